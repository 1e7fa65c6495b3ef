// SPDX-License-Identifier: Apache-2.0
//! Memory for guests.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Memory of this process that a guest may use at the same time: there are never references into it.
pub struct Mapping {
    start: *mut u8,
    size: usize,
}

// SAFETY: all access is by volatile reads and writes of single words.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Private anonymous memory.
    pub fn anonymous(size: u64) -> Self {
        Self::map(size, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    /// A part of a file.
    pub fn of_file(file: &File, offset: u64, size: u64) -> Self {
        let offset = libc::off_t::try_from(offset).expect("offset");
        Self::map(size, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    fn map(size: u64, flags: i32, fd: i32, offset: libc::off_t) -> Self {
        let size = usize::try_from(size).expect("size");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let start =
            // SAFETY: a new mapping at an address of the kernel's choice.
            unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, offset) };
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Self { start: start.cast(), size }
    }

    /// Address of the first byte.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    fn word(&self, offset: u64) -> *mut u64 {
        let offset = usize::try_from(offset).expect("offset");
        assert!(offset % 8 == 0 && offset + 8 <= self.size, "offset {offset:#x} in mapping");
        // SAFETY: the word lies inside the mapping.
        unsafe { self.start.add(offset).cast() }
    }

    /// Reads a word.
    pub fn read(&self, offset: u64) -> u64 {
        // SAFETY: `word` answers an aligned address inside the mapping.
        unsafe { self.word(offset).read_volatile() }
    }

    /// Writes a word.
    pub fn write(&self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { self.word(offset).write_volatile(value) };
    }

    /// Copies bytes in, word by word; the last word is filled with zeros.
    pub fn store(&self, offset: u64, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write(offset + 8 * index as u64, u64::from_le_bytes(word));
        }
    }

    /// Copies bytes out, word by word.
    pub fn fetch(&self, offset: u64, bytes: &mut [u8]) {
        for (index, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = self.read(offset + 8 * index as u64).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Copies a program in and makes it visible to instruction fetches that bypass the caches.
    pub fn load(&self, offset: u64, code: &[u8]) {
        self.store(offset, code);
        self.clean(offset, code.len() as u64);
    }

    /// Cleans a range to the point of coherency: guests without an MMU bypass the caches.
    #[cfg(target_arch = "aarch64")]
    pub fn clean(&self, offset: u64, size: u64) {
        // The smallest line that any CPU has.
        for at in (offset & !15..offset + size).step_by(16) {
            let address = self.address() + at;
            // SAFETY: cleaning a line of our own mapping changes no data; Linux allows it in EL0.
            unsafe { std::arch::asm!("dc cvac, {}", in(reg) address) };
        }
        // SAFETY: a barrier.
        unsafe { std::arch::asm!("dsb sy") };
    }

    /// Nothing to do where there are no guests.
    #[cfg(not(target_arch = "aarch64"))]
    pub fn clean(&self, _offset: u64, _size: u64) {}

    /// Takes write access to the whole mapping away from this process, or gives it back.
    pub fn set_writable(&self, writable: bool) {
        let write = if writable { libc::PROT_WRITE } else { 0 };
        let protection = libc::PROT_READ | write;
        // SAFETY: changes the protection of our own mapping.
        let result = unsafe { libc::mprotect(self.start.cast(), self.size, protection) };
        assert_eq!(result, 0, "mprotect: {}", io::Error::last_os_error());
    }

    /// Asks the kernel to back the mapping by huge pages; it need not.
    pub fn ask_for_huge_pages(&self) {
        // SAFETY: advice about our own mapping changes no data.
        unsafe { libc::madvise(self.start.cast(), self.size, libc::MADV_HUGEPAGE) };
    }

    /// Asks the kernel to back the mapping by small pages, so that a change of one is about no other.
    pub fn ask_for_small_pages(&self) {
        // SAFETY: advice about our own mapping changes no data.
        unsafe { libc::madvise(self.start.cast(), self.size, libc::MADV_NOHUGEPAGE) };
    }

    /// Has the kernel bring all of the mapping in.
    pub fn populate(&self) {
        let advice = libc::MADV_POPULATE_WRITE;
        // SAFETY: advice about our own mapping changes no data.
        let answer = unsafe { libc::madvise(self.start.cast(), self.size, advice) };
        assert_eq!(answer, 0, "madvise: {}", io::Error::last_os_error());
    }

    /// Has the kernel bring all of the mapping in, in an order in which neighbours are not consecutive
    /// for the host.
    pub fn scatter(&self) {
        // An odd number has no factor in common with a power of two: all pages are visited.
        const STEP: u64 = 40_503;
        let pages = self.size() / PAGE;
        let modulus = pages.next_power_of_two();
        for page in (0..modulus).map(|at| at * STEP % modulus).filter(|page| *page < pages) {
            self.write(page * PAGE, 0);
        }
    }

    /// The address and size of a part, whole pages of the mapping.
    fn part(&self, offset: u64, size: u64) -> (*mut libc::c_void, usize) {
        assert!((offset | size) & (PAGE - 1) == 0 && offset + size <= self.size());
        (self.word(offset).cast(), usize::try_from(size).expect("size"))
    }

    /// Replaces a page by fresh anonymous memory at the same address.
    pub fn replace_page(&self, offset: u64) {
        self.replace(offset, PAGE);
    }

    /// Replaces a part by fresh anonymous memory at the same address.
    pub fn replace(&self, offset: u64, size: u64) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (address, size) = self.part(offset, size);
        // SAFETY: replaces a part of our own mapping, into which there are no references.
        let start = unsafe { libc::mmap(address, size, protection, flags, -1, 0) };
        assert_eq!(start, address, "mmap: {}", io::Error::last_os_error());
    }

    /// Drops the pages of a part: it is zeroes then, or again what its file has.
    pub fn drop_pages(&self, offset: u64, size: u64) {
        let (address, size) = self.part(offset, size);
        // SAFETY: a part of our own mapping, into which there are no references.
        let result = unsafe { libc::madvise(address, size, libc::MADV_DONTNEED) };
        assert_eq!(result, 0, "madvise: {}", io::Error::last_os_error());
    }

    /// Unmaps a part. Nobody may read or write there until it is replaced.
    pub fn unmap(&self, offset: u64, size: u64) {
        let (address, size) = self.part(offset, size);
        // SAFETY: a part of our own mapping, into which there are no references.
        let result = unsafe { libc::munmap(address, size) };
        assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }

    /// Takes access away from a part of the mapping, which splits it for the kernel, and back.
    pub fn split(&self, offset: u64, size: u64) {
        let size = usize::try_from(size).expect("size");
        let address = self.word(offset).cast();
        for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC] {
            // SAFETY: changes the protection of our own mapping.
            let result = unsafe { libc::mprotect(address, size, protection) };
            assert_eq!(result, 0, "mprotect: {}", io::Error::last_os_error());
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has references into it.
        unsafe { libc::munmap(self.start.cast(), self.size) };
    }
}

/// Punches a hole into a file: its pages are freed, and read as zeroes from then on.
pub fn punch(file: &File, offset: u64, size: u64) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let offset = libc::off_t::try_from(offset).expect("offset");
    let size = libc::off_t::try_from(size).expect("size");
    // SAFETY: takes plain values; nobody has references into mappings of the file.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, size) };
    assert_eq!(result, 0, "fallocate: {}", io::Error::last_os_error());
}

/// A file in memory.
pub fn memfd(size: u64) -> File {
    // SAFETY: the name is a NUL-terminated string; the answer is a new descriptor of ours.
    let file = unsafe {
        let fd = libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    file.set_len(size).expect("size of a memfd");
    file
}
