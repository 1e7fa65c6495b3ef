// SPDX-License-Identifier: Apache-2.0
//! The guest's physical address space: crosvm's map, because AOSP's firmware and bare-metal guests
//! have it built in.

use gzvm::abi::uapi::{VGIC_DIST_SIZE, VGIC_REDIST_SIZE};
use gzvm::abi::BLOCK_SIZE;
pub use gzvm_preflight::MIB;
use thiserror::Error;

/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;

/// First address of main memory.
pub const RAM_BASE: u64 = 0x8000_0000;
/// Size and alignment of the device tree's window. AOSP's guests map exactly this much.
pub const DTB_WINDOW: u64 = 2 * MIB;
/// Where the hypervisor's firmware is loaded: 4 MiB that end at main memory.
pub const PVMFW: Region = Region { start: RAM_BASE - PVMFW_SIZE, size: PVMFW_SIZE };
/// Bytes of [`PVMFW`].
pub const PVMFW_SIZE: u64 = 4 * MIB;

/// The GIC's distributor.
pub const GIC_DIST: Region = Region { start: 0x3fff_0000, size: VGIC_DIST_SIZE };

/// Registers of the four 16550 ports: (address, SPI).
pub const SERIAL: [(u64, u32); 4] = [(0x3f8, 0), (0x2f8, 2), (0x3e8, 0), (0x2e8, 2)];
/// Bytes of a port's registers.
pub const SERIAL_SIZE: u64 = 8;

/// The real-time clock's registers.
pub const RTC: Region = Region { start: 0x2000, size: 0x1000 };
/// Its SPI.
pub const RTC_SPI: u32 = 1;
/// The stall detector's registers.
pub const STALL_DETECTOR: Region = Region { start: 0x3000, size: 0x1000 };
/// Its PPI in the device tree.
pub const STALL_DETECTOR_PPI: u32 = 15;

/// The address after the last that a guest may have: 40 bits where the hypervisor does not say
/// otherwise.
const ADDRESS_LIMIT: u64 = 1 << gzvm::abi::uapi::DEFAULT_IPA_BITS;

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Size in bytes; `start + size` does not overflow.
    pub size: u64,
}

impl Region {
    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Whether `other` is completely inside.
    pub fn contains(&self, other: &Region) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Region) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Nothing would be left for the guest.
    #[error(
        "{memory} MiB of memory are too little, {used} MiB of them are for the device tree and \
         restricted DMA: give the VM more memory (--mem)",
        memory = .memory / MIB,
        used = .swiotlb.saturating_add(DTB_WINDOW) / MIB
    )]
    TooSmall {
        /// All memory in bytes.
        memory: u64,
        /// The pool in bytes.
        swiotlb: u64,
    },
    /// More memory than guest addresses reach.
    #[error("{} MiB of memory are more than a guest can address: give the VM less (--mem)", .0 / MIB)]
    TooLarge(u64),
    /// The payload does not fit.
    #[error(
        "{what} ({size} bytes) does not fit into {memory} MiB of memory: give the VM more memory \
         (--mem)",
        memory = .memory / MIB
    )]
    DoesNotFit {
        /// Kernel, initrd or firmware.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Main memory in bytes.
        memory: u64,
    },
}

/// Where things are, apart from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Main memory: whole blocks of [`BLOCK_SIZE`].
    pub ram: Region,
    /// The static restricted-DMA pool: whole blocks behind main memory.
    pub swiotlb: Option<Region>,
    /// The window of the hypervisor's firmware.
    pub pvmfw: Option<Region>,
    /// The device tree's window, in main memory.
    pub dtb: Region,
    /// Where the payload may go, in main memory.
    pub payload: Region,
    /// The redistributors, which end where the distributor starts.
    pub gic_redist: Region,
}

impl Layout {
    /// Lays out `memory` bytes, of which `swiotlb` are the restricted-DMA pool. Both are rounded
    /// up to whole blocks so that no block is private and shared at once. A flat binary (`bios`)
    /// has the device tree before it, a kernel at the end of main memory.
    pub fn new(
        memory: u64,
        swiotlb: Option<u64>,
        vcpus: u32,
        bios: bool,
        pvmfw: bool,
    ) -> Result<Self, LayoutError> {
        let total = block_up(memory).ok_or(LayoutError::TooLarge(memory))?;
        // The last 4 GiB stay free for `high_mmio`.
        if total > ADDRESS_LIMIT - RAM_BASE - 4 * GIB {
            return Err(LayoutError::TooLarge(memory));
        }
        let too_small = LayoutError::TooSmall { memory, swiotlb: swiotlb.unwrap_or(0) };
        let pool = block_up(swiotlb.unwrap_or(0)).ok_or(too_small)?;
        let main = total.checked_sub(pool).filter(|&m| m > DTB_WINDOW).ok_or(too_small)?;
        let ram = Region { start: RAM_BASE, size: main };
        let dtb_start = if bios { ram.start } else { ram.end() - DTB_WINDOW };
        let payload_start = if bios { ram.start + DTB_WINDOW } else { ram.start };
        let redist_size = u64::from(vcpus) * VGIC_REDIST_SIZE;
        Ok(Self {
            ram,
            swiotlb: swiotlb.filter(|&s| s != 0).map(|_| Region { start: ram.end(), size: pool }),
            pvmfw: pvmfw.then_some(PVMFW),
            dtb: Region { start: dtb_start, size: DTB_WINDOW },
            payload: Region { start: payload_start, size: main - DTB_WINDOW },
            gic_redist: Region { start: GIC_DIST.start - redist_size, size: redist_size },
        })
    }

    /// All memory that the guest is told about: main memory and the pool behind it.
    pub fn memory(&self) -> Region {
        let pool = self.swiotlb.map_or(0, |pool| pool.size);
        Region { start: self.ram.start, size: self.ram.size + pool }
    }

    /// Addresses behind all memory, for devices with 64-bit addresses. AOSP's firmware demands such
    /// a window; nothing here is in it.
    pub fn high_mmio(&self) -> Region {
        let start = self.memory().end().next_multiple_of(4 * GIB);
        Region { start, size: ADDRESS_LIMIT.saturating_sub(start) }
    }

    /// Finds room for a kernel of `size` bytes, which occupies `occupied` of them from `offset` on
    /// once it runs, and an initrd behind it.
    pub fn place_kernel(
        &self,
        offset: u64,
        size: u64,
        occupied: u64,
        initrd: Option<u64>,
    ) -> Result<Placement, LayoutError> {
        let memory = self.ram.size;
        let no_room = |what, size| LayoutError::DoesNotFit { what, size, memory };
        let occupied = occupied.max(size);
        let kernel = self.room(self.payload.start, offset, occupied);
        let kernel = kernel.ok_or(no_room("the kernel", occupied))?;
        let initrd = match initrd {
            None => None,
            Some(size) => {
                let start = block_up(kernel.end()).ok_or(no_room("the initrd", size))?;
                Some(self.room(start, 0, size).ok_or(no_room("the initrd", size))?)
            }
        };
        Ok(Placement { payload: Region { start: kernel.start, size }, initrd })
    }

    /// Finds room for a flat binary of `size` bytes.
    pub fn place_bios(&self, size: u64) -> Result<Placement, LayoutError> {
        let memory = self.ram.size;
        let payload = self.room(self.payload.start, 0, size);
        let payload = payload.ok_or(LayoutError::DoesNotFit { what: "the bios", size, memory })?;
        Ok(Placement { payload, initrd: None })
    }

    fn room(&self, base: u64, offset: u64, size: u64) -> Option<Region> {
        let start = base.checked_add(offset)?;
        start.checked_add(size)?;
        let region = Region { start, size };
        self.payload.contains(&region).then_some(region)
    }
}

/// Where the payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Kernel or flat binary as loaded, entered at its start: exactly the file's bytes, because
    /// firmware looks for the signature at their end. A kernel may occupy more once it runs.
    pub payload: Region,
    /// Initial ramdisk.
    pub initrd: Option<Region>,
}

fn block_up(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_vm() {
        let layout = Layout::new(256 * MIB, None, 2, false, false).unwrap();
        assert_eq!(layout.ram, Region { start: 0x8000_0000, size: 256 * MIB });
        assert_eq!(layout.dtb, Region { start: 0x8fe0_0000, size: 2 * MIB });
        assert_eq!(layout.gic_redist, Region { start: 0x3ffb_0000, size: 0x4_0000 });
        assert_eq!((layout.swiotlb, layout.pvmfw), (None, None));
    }

    #[test]
    fn protected_vm_has_its_pool_behind_main_memory() {
        let layout = Layout::new(264 * MIB, Some(8 * MIB), 1, false, true).unwrap();
        assert_eq!(layout.ram.size, 256 * MIB);
        assert_eq!(layout.swiotlb, Some(Region { start: 0x9000_0000, size: 8 * MIB }));
        assert_eq!(layout.memory().size, 264 * MIB);
        assert_eq!(layout.pvmfw, Some(Region { start: 0x7fc0_0000, size: 4 * MIB }));
        assert!(layout.ram.contains(&layout.dtb), "the device tree is not in the pool");
    }

    #[test]
    fn bios_has_the_device_tree_first() {
        let layout = Layout::new(16 * MIB, None, 1, true, false).unwrap();
        assert_eq!(layout.dtb.start, 0x8000_0000);
        assert_eq!(layout.place_bios(1).unwrap().payload.start, 0x8020_0000);
    }

    #[test]
    fn the_payload_stays_off_the_device_tree() {
        let layout = Layout::new(16 * MIB, None, 1, false, false).unwrap();
        let placed = layout.place_kernel(0, 4 * MIB, 5 * MIB + 1, Some(100)).unwrap();
        assert_eq!(placed.payload, Region { start: 0x8000_0000, size: 4 * MIB });
        assert_eq!(placed.initrd, Some(Region { start: 0x8060_0000, size: 100 }));
        assert!(layout.place_kernel(0, 1, 14 * MIB, None).is_ok());
        let error = layout.place_kernel(0, 1, 14 * MIB + 1, None).unwrap_err();
        assert!(error.to_string().contains("--mem"), "{error}");
        assert!(layout.place_kernel(0, 14 * MIB + 1, 1, None).is_err(), "the file's size counts");
        assert!(layout.place_kernel(0, 1, 14 * MIB, Some(1)).is_err());
        assert!(layout.place_kernel(u64::MAX, 1, u64::MAX, None).is_err());
    }

    #[test]
    fn impossible_sizes() {
        assert!(Layout::new(8 * MIB, Some(8 * MIB), 1, false, false).is_err());
        assert!(Layout::new(2 * MIB, None, 1, false, false).is_err());
        assert!(Layout::new(u64::MAX, None, 1, false, false).is_err());
        assert!(Layout::new(64 * MIB, Some(u64::MAX), 1, false, false).is_err());
        assert!(Layout::new(1 << 40, None, 1, false, false).is_err());
    }

    proptest! {
        #[test]
        fn no_block_is_split(mem in 1_u64..4096, pool in proptest::option::of(0_u64..256),
                             vcpus in 1_u32..16, bios: bool, pvmfw: bool) {
            let pool = pool.map(|p| p * MIB);
            let Ok(layout) = Layout::new(mem * MIB, pool, vcpus, bios, pvmfw) else {
                return Ok(());
            };
            prop_assert!(layout.memory().size >= mem * MIB);
            for region in [Some(layout.ram), layout.swiotlb, layout.pvmfw, Some(layout.dtb)] {
                let region = region.unwrap_or(layout.ram);
                prop_assert_eq!(region.start % BLOCK_SIZE, 0);
                prop_assert_eq!(region.size % BLOCK_SIZE, 0);
            }
            prop_assert!(!layout.payload.overlaps(&layout.dtb));
            prop_assert!(layout.ram.contains(&layout.payload));
            prop_assert_eq!(layout.gic_redist.end(), GIC_DIST.start);
        }
    }
}
