// SPDX-License-Identifier: Apache-2.0
//! Guest memory: one sealed memfd, mapped in whole blocks, and the driver's slots over it.
//!
//! Each region is a mapping of its own with a hole behind it, because phones' drivers demand that a
//! slot is exactly one mapping of the kernel's, and the kernel joins neighbours.

mod policy;
mod reclaim;

pub use policy::{Mode, Policy};
pub use reclaim::{ReclaimError, Reclaimer, Rule};

use crate::layout::{Layout, Region, MIB};
use gzvm::abi::uapi::{self, UserspaceMemoryRegion};
use gzvm::abi::BLOCK_SIZE;
use gzvm::Vm;
pub use gzvm_preflight::host_page;
use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::libc;
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use thiserror::Error;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// Name of the memfd: virtmgr counts mappings of this name as the VM's memory.
const MEMFD_NAME: &std::ffi::CStr = c"crosvm_guest";

/// Why guest memory could not be made.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The memfd could not be created, sized or sealed.
    #[error("guest memory of {size} bytes: memfd: {source}")]
    Memfd {
        /// Bytes.
        size: u64,
        /// Cause.
        source: io::Error,
    },
    /// A region could not be mapped.
    #[error("guest memory at {:#x}: mmap of {} bytes: {source}", region.start, region.size)]
    Map {
        /// Where.
        region: Region,
        /// Cause.
        source: io::Error,
    },
    /// The regions do not make a memory.
    #[error("guest memory: {0}")]
    Regions(#[from] vm_memory::Error),
    /// The host could not provide it in advance.
    #[error(
        "guest memory: the host provided {} of {} MiB: {source}: give the VM less (--mem), or use \
         --memory-policy lazy",
        provided / MIB, total / MIB
    )]
    Populate {
        /// Bytes that there are.
        provided: u64,
        /// Bytes that there should be.
        total: u64,
        /// Cause.
        source: io::Error,
    },
    /// The driver refused a slot.
    #[error("guest memory at {:#x}: {source}", region.start)]
    Slot {
        /// Where.
        region: Region,
        /// Cause.
        source: gzvm::Error,
    },
}

/// Guest memory.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    parts: Vec<Part>,
}

/// One region, its purpose for the hypervisor, and its mapping.
#[derive(Debug)]
struct Part {
    region: Region,
    purpose: u32,
    mapping: Mapping,
}

impl GuestRam {
    /// Makes the memory that `layout` asks for. Nothing is populated.
    pub fn new(layout: &Layout, policy: Policy) -> Result<Self, MemoryError> {
        let wanted: Vec<(Region, u32)> = [
            (layout.pvmfw, uapi::MEM_REGION_PROTECT_FW),
            (Some(layout.ram), uapi::MEM_REGION_GUEST_MEM),
            (layout.swiotlb, uapi::MEM_REGION_STATIC_SWIOTLB),
        ]
        .into_iter()
        .filter_map(|(region, purpose)| Some((region?, purpose)))
        .collect();
        let size = wanted.iter().map(|(region, _)| region.size).sum();
        let file = Arc::new(memfd(size).map_err(|source| MemoryError::Memfd { size, source })?);
        let mut parts = Vec::new();
        let mut regions = Vec::new();
        let mut offset = 0;
        for (region, purpose) in wanted {
            let mapping = Mapping::new(&file, offset, region.size, policy)
                .map_err(|source| MemoryError::Map { region, source })?;
            regions.push(mapping.guest_region(&file, offset, region)?);
            parts.push(Part { region, purpose, mapping });
            offset += region.size;
        }
        let ram = Self { memory: GuestMemoryMmap::from_regions(regions)?, parts };
        ram.populate(policy.mode)?;
        Ok(ram)
    }

    /// Has the host provide the memory now, if the mode says so.
    fn populate(&self, mode: Mode) -> Result<(), MemoryError> {
        if mode == Mode::Lazy {
            return Ok(());
        }
        let total = self.parts.iter().map(|part| part.region.size).sum();
        let mut provided = 0;
        for part in &self.parts {
            for (offset, len) in policy::batches(part.region.size) {
                part.mapping
                    .populate(offset, len, mode == Mode::Static)
                    .map_err(|source| MemoryError::Populate { provided, total, source })?;
                if policy::is_step(provided, provided + len, total) {
                    let there = (provided + len) / MIB;
                    log::info!("guest memory: {there} of {} MiB are there", total / MIB);
                }
                provided += len;
            }
        }
        Ok(())
    }

    /// The memory, for loading and for devices. Not for longer than `self` lives.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Where each region is in this process.
    pub fn mappings(&self) -> impl Iterator<Item = (u64, Region)> + '_ {
        self.parts.iter().map(|part| (part.mapping.address(), part.region))
    }

    /// Gives the memory to `vm`, one slot a region, main memory first.
    pub fn register(self: &Arc<Self>, vm: &Vm) -> Result<(), MemoryError> {
        let mut order: Vec<&Part> = self.parts.iter().collect();
        order.sort_by_key(|part| part.purpose);
        for (slot, part) in (0..).zip(order) {
            let slot = UserspaceMemoryRegion {
                slot,
                flags: part.purpose,
                guest_phys_addr: part.region.start,
                memory_size: part.region.size,
                userspace_addr: part.mapping.address(),
            };
            // SAFETY: the slot is exactly `part.mapping`, which holds guest memory only and is
            // accessed through `GuestMemoryMmap`'s volatile accesses. The reference kept below
            // keeps it mapped until the process ends.
            unsafe { vm.set_user_memory_region(&slot) }
                .map_err(|source| MemoryError::Slot { region: part.region, source })?;
        }
        // A vCPU's handle keeps the VM alive, and vCPU threads are not always joined when the
        // process ends; so memory that a VM knows is never unmapped.
        std::mem::forget(Arc::clone(self));
        Ok(())
    }
}

/// A memfd of `size` bytes that can no longer change its size.
fn memfd(size: u64) -> io::Result<File> {
    let fd = memfd_create(
        MEMFD_NAME,
        MemFdCreateFlag::MFD_CLOEXEC | MemFdCreateFlag::MFD_ALLOW_SEALING,
    )?;
    let file = File::from(fd);
    file.set_len(size)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_raw_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// A block-aligned mapping of a part of a file, with a hole behind it.
///
/// Invariant: `reservation .. + reserved` is mapped and belongs to this value; `start`, inside of
/// it and a multiple of [`BLOCK_SIZE`], is where the file's part of `size` bytes is mapped.
#[derive(Debug)]
struct Mapping {
    reservation: NonNull<c_void>,
    reserved: NonZeroUsize,
    start: NonNull<c_void>,
    size: NonZeroUsize,
}

// SAFETY: the addresses stay valid in all threads, and no method accesses the memory.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, offset: u64, size: u64, policy: Policy) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let block = usize::try_from(BLOCK_SIZE).map_err(|_| invalid())?;
        let size = usize::try_from(size).ok().and_then(NonZeroUsize::new).ok_or_else(invalid)?;
        // One block to align with, and at least one page that stays a hole.
        let reserved = size.checked_add(2 * block).ok_or_else(invalid)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let reservation =
            // SAFETY: a new anonymous mapping at an address of the kernel's choice.
            unsafe { mman::mmap_anonymous(None, reserved, ProtFlags::PROT_NONE, flags) }?;
        let misaligned = reservation.as_ptr().align_offset(block);
        // SAFETY: `misaligned` is less than a block, the reservation has two more than `size`.
        let start = unsafe { reservation.byte_add(misaligned) };
        let mapping = Self { reservation, reserved, start, size };
        let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let address = NonZeroUsize::new(start.as_ptr().addr());
        // SAFETY: MAP_FIXED replaces pages of the reservation only, which is ours and unused.
        unsafe { mman::mmap(address, size, prot, flags, file, offset) }?;
        mapping.advise(policy);
        Ok(mapping)
    }

    fn advise(&self, policy: Policy) {
        let mut wanted = Vec::new();
        if policy.hugepages {
            wanted.push((MmapAdvise::MADV_HUGEPAGE, "huge pages"));
        }
        if policy.private {
            wanted.push((MmapAdvise::MADV_DONTFORK, "exclusion from child processes"));
            wanted.push((MmapAdvise::MADV_DONTDUMP, "exclusion from core dumps"));
        }
        for (advice, what) in wanted {
            // SAFETY: the range is our mapping, and none of these changes its contents.
            if let Err(e) = unsafe { mman::madvise(self.start, self.size.get(), advice) } {
                log::warn!("guest memory: {what}: {e}");
            }
        }
    }

    /// Has the kernel provide `len` bytes at `offset`, and lock them if that is wanted.
    fn populate(&self, offset: u64, len: u64, lock: bool) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let offset = usize::try_from(offset).map_err(|_| invalid())?;
        let len = usize::try_from(len).map_err(|_| invalid())?;
        if offset.checked_add(len).is_none_or(|end| end > self.size.get()) {
            return Err(invalid());
        }
        // SAFETY: the range is in our mapping (checked), and populating changes no contents.
        let done = unsafe {
            let start = self.start.as_ptr().byte_add(offset);
            libc::madvise(start, len, libc::MADV_POPULATE_WRITE)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        if lock {
            // SAFETY: the range is in our mapping (checked), and locking changes no contents.
            unsafe { mman::mlock(self.start.byte_add(offset), len) }?;
        }
        Ok(())
    }

    fn address(&self) -> u64 {
        // CAST: addresses have 64 bits on the supported machines.
        self.start.as_ptr().addr() as u64
    }

    fn guest_region(
        &self,
        file: &Arc<File>,
        offset: u64,
        region: Region,
    ) -> Result<GuestRegionMmap, MemoryError> {
        // SAFETY: `start` and `size` are a mapping (invariant), which `GuestRam` keeps as long as
        // the region that is made here.
        let builder = unsafe {
            MmapRegionBuilder::new(self.size.get())
                .with_raw_mmap_pointer(self.start.as_ptr().cast())
        };
        let mapped = builder
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::from_arc(Arc::clone(file), offset))
            .build()
            .map_err(|e| MemoryError::Map { region, source: io::Error::other(e) })?;
        Ok(GuestRegionMmap::new(mapped, GuestAddress(region.start))?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours (invariant), and `GuestRam` drops the memory that uses
        // it first.
        if let Err(e) = unsafe { mman::munmap(self.reservation, self.reserved.get()) } {
            log::warn!("guest memory: munmap: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;
    use std::fs;
    use vm_memory::{Bytes, GuestMemory, GuestMemoryRegion};

    fn protected(mode: Mode) -> GuestRam {
        let layout = Layout::new(24 * MIB, Some(8 * MIB), 1, false, true).unwrap();
        GuestRam::new(&layout, Policy { mode, hugepages: true, private: true }).unwrap()
    }

    /// Bytes of guest memory that the host has provided.
    fn resident(ram: &GuestRam) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let of = |part: &Part| {
            let start = format!("{:x}-", part.mapping.address());
            let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
            let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            rss.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
        };
        ram.parts.iter().map(of).sum()
    }

    #[test]
    fn memory_is_provided_when_the_mode_says() {
        assert_eq!(resident(&protected(Mode::Lazy)), 0);
        assert_eq!(resident(&protected(Mode::Prefault)), 28 * MIB);
    }

    #[test]
    fn regions_are_block_aligned_and_apart() {
        let ram = protected(Mode::Lazy);
        let mut ends = Vec::new();
        for part in &ram.parts {
            assert_eq!(part.mapping.address() % BLOCK_SIZE, 0);
            ends.push((part.mapping.address(), part.mapping.address() + part.region.size));
        }
        assert_eq!(ends.len(), 3);
        for (_, end) in &ends {
            assert!(ends.iter().all(|(start, _)| start != end), "the kernel would join them");
        }
    }

    #[test]
    fn each_region_is_one_mapping_of_the_memfd() {
        let ram = protected(Mode::Lazy);
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        for part in &ram.parts {
            let start = part.mapping.address();
            let expected = format!("{start:x}-{:x} rw-s ", start + part.region.size);
            let line = maps.lines().find(|line| line.starts_with(&expected));
            assert!(line.is_some_and(|l| l.contains("memfd:crosvm_guest")), "{expected}\n{maps}");
        }
    }

    #[test]
    fn contents_are_the_files_and_the_size_is_sealed() {
        let ram = protected(Mode::Lazy);
        ram.memory().write_obj(0x1122_3344_u32, GuestAddress(0x8000_0000)).unwrap();
        let region = ram.memory().find_region(GuestAddress(0x8000_0000)).unwrap();
        let offset = region.file_offset().unwrap();
        assert_eq!(offset.start(), 4 * MIB, "the firmware's window comes first");
        let mut word = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(offset.file(), &mut word, 4 * MIB).unwrap();
        assert_eq!(u32::from_le_bytes(word), 0x1122_3344);
        assert!(offset.file().set_len(1).is_err());
        assert!(offset.file().set_len(1 << 30).is_err());
    }
}
