// SPDX-License-Identifier: GPL-2.0

//! Physically contiguous, zeroed pages that a hypervisor reads and writes too.
//!
//! C header: `include/linux/gfp.h`.

use super::ffi;
use core::ptr::NonNull;
use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// `SIZE` bytes of physically contiguous memory, aligned to a page, charged to the current memory
/// cgroup.
///
/// Others may write it at any time, so there are never references into it: data is copied in and
/// out, by C's `memcpy` or in volatile words. What is copied while somebody writes may be any mix
/// of old and new bytes, as with user memory; for Rust the copy is a value like any other.
///
/// # Invariants
///
/// `start` is the address of `SIZE` bytes that `alloc_pages_exact` returned and that this value
/// owns.
pub(crate) struct ExactPages<const SIZE: usize> {
    start: NonNull<u8>,
    leaked: Atomic<bool>,
}

// SAFETY: The memory belongs to no thread.
unsafe impl<const SIZE: usize> Send for ExactPages<SIZE> {}
// SAFETY: Shared access only copies bytes, in ways that stand a race (see the type), and all types
// copied are valid for any bytes.
unsafe impl<const SIZE: usize> Sync for ExactPages<SIZE> {}

impl<const SIZE: usize> ExactPages<SIZE> {
    /// Allocates zeroed pages.
    pub(crate) fn new() -> Result<Self> {
        let flags = bindings::GFP_KERNEL_ACCOUNT | bindings::__GFP_ZERO;
        // SAFETY: The function has no requirements; sleeping is allowed wherever a `Result` of an
        // ioctl or probe is computed.
        let start = unsafe { bindings::alloc_pages_exact_noprof(SIZE, flags) };
        // INVARIANT: just allocated with this size.
        NonNull::new(start.cast())
            .map(|start| Self { start, leaked: Atomic::new(false) })
            .ok_or(ENOMEM)
    }

    /// Host physical address of the first byte.
    pub(crate) fn phys(&self) -> u64 {
        // SAFETY: By the type invariant the address is in the linear map.
        unsafe { ffi::gzvm_kx_virt_to_phys(self.start.as_ptr().cast()) }
    }

    /// Copies a value out, from a place that is checked at compile time.
    pub(crate) fn read<T: FromBytes, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= SIZE) };
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: By the type invariant and the assertion the source lies in our pages; the
        // destination is a local variable of that size. `T: FromBytes` is valid for any bytes.
        unsafe {
            let source = self.start.as_ptr().add(OFFSET);
            ffi::gzvm_kx_copy(value.as_mut_ptr().cast(), source.cast(), size_of::<T>());
            value.assume_init()
        }
    }

    /// As [`Self::read`], over another value.
    pub(crate) fn read_into<T: FromBytes, const OFFSET: usize>(&self, value: &mut T) {
        const { assert!(OFFSET + size_of::<T>() <= SIZE) };
        // SAFETY: By the type invariant and the assertion the source lies in our pages, which
        // `value` cannot overlap. `T: FromBytes` is valid for any bytes.
        unsafe {
            let source = self.start.as_ptr().add(OFFSET);
            let destination = core::ptr::from_mut(value).cast();
            ffi::gzvm_kx_copy(destination, source.cast(), size_of::<T>());
        }
    }

    /// Reads a word in a place that is checked at compile time.
    pub(crate) fn word<const OFFSET: usize>(&self) -> u32 {
        const {
            assert!(OFFSET % size_of::<u32>() == 0);
            assert!(OFFSET + size_of::<u32>() <= SIZE);
        }
        // SAFETY: By the type invariant and the assertions the word lies in our pages, and is
        // aligned as pages are.
        unsafe { self.start.as_ptr().add(OFFSET).cast::<u32>().read_volatile() }
    }

    /// Copies the words of an array out, one after the other, from a place that is checked at
    /// compile time: for arrays of which few are used.
    pub(crate) fn words<const COUNT: usize, const OFFSET: usize>(
        &self,
    ) -> impl Iterator<Item = u64> + '_ {
        const {
            assert!(OFFSET % size_of::<u64>() == 0);
            assert!(OFFSET + COUNT * size_of::<u64>() <= SIZE);
        }
        let start = self.start.as_ptr().wrapping_add(OFFSET).cast::<u64>();
        (0..COUNT).map(move |index| {
            // SAFETY: By the type invariant and the assertion the word lies in our pages, which
            // live as long as the iterator, because that borrows `self`, and is aligned as pages
            // are.
            unsafe { start.add(index).read_volatile() }
        })
    }

    /// Copies a value in, to a place that is checked at compile time.
    pub(crate) fn write<T: IntoBytes + Immutable, const OFFSET: usize>(&self, value: &T) {
        const { assert!(OFFSET + size_of::<T>() <= SIZE) };
        // SAFETY: By the type invariant and the assertion the destination lies in our pages; the
        // source is `value` itself, which `T: IntoBytes` lets us read as bytes.
        unsafe {
            let source = core::ptr::from_ref(value).cast();
            let destination = self.start.as_ptr().add(OFFSET);
            ffi::gzvm_kx_copy(destination.cast(), source, size_of::<T>());
        }
    }

    /// Copies bytes in; -EINVAL if they do not fit behind `offset`.
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) -> Result {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > SIZE) {
            return Err(EINVAL);
        }
        // SAFETY: By the type invariant and the check the destination lies in our pages, which
        // no slice can overlap.
        unsafe {
            let destination = self.start.as_ptr().add(offset);
            ffi::gzvm_kx_copy(destination.cast(), bytes.as_ptr().cast(), bytes.len());
        }
        Ok(())
    }

    /// Copies words in, little-endian, one behind the other from the start on; -EINVAL if they do
    /// not fit.
    pub(crate) fn write_words(&self, words: impl Iterator<Item = u64>) -> Result {
        const WORD: usize = size_of::<u64>();
        let start = self.start.as_ptr().cast::<u64>();
        let mut places = 0..SIZE / WORD;
        for word in words {
            let place = places.next().ok_or(EINVAL)?;
            // SAFETY: By the type invariant, and as `place` is below the number of words that fit,
            // the destination lies in our pages, which are aligned to more than a word.
            unsafe { start.add(place).write_volatile(word.to_le()) };
        }
        Ok(())
    }

    /// The pages are never freed: for memory that the hypervisor would not give back.
    pub(crate) fn leak(&self) {
        self.leaked.store(true, Relaxed);
    }
}

impl<const SIZE: usize> Drop for ExactPages<SIZE> {
    fn drop(&mut self) {
        if *self.leaked.get_mut() {
            return;
        }
        // SAFETY: By the type invariant the pages came from `alloc_pages_exact` with this size and
        // are ours; nobody uses them after the drop. They are wiped first, since the hypervisor
        // may have left guest state in them.
        unsafe {
            core::ptr::write_bytes(self.start.as_ptr(), 0, SIZE);
            bindings::free_pages_exact(self.start.as_ptr().cast(), SIZE);
        }
    }
}

#[kernel::macros::kunit_tests(gzvm_exact_pages)]
mod tests {
    use super::*;
    use kernel::page::Page;

    #[test]
    fn w10_pages_come_zeroed() {
        const PATTERN: [u8; 64] = [0xa5; 64];
        const COUNT: usize = 64;
        // The allocator hands out first what was freed last.
        let mut dirty = [const { None }; COUNT];
        for place in &mut dirty {
            *place = Page::alloc_page(GFP_KERNEL).ok();
            if let Some(page) = place {
                // SAFETY: Nobody else knows the page.
                let written = unsafe { page.write_raw(PATTERN.as_ptr(), 0, PATTERN.len()) };
                assert!(written.is_ok());
            }
        }
        drop(dirty);
        let mut pages = [const { None }; COUNT];
        for place in &mut pages {
            *place = ExactPages::<4096>::new().ok();
            let found = place.as_ref().map(|page| page.read::<[u8; 64], 0>());
            assert_eq!(found, Some([0; 64]));
        }
    }
}
