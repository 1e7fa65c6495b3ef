// SPDX-License-Identifier: GPL-2.0

//! User pages pinned for long, charged to their process's locked-memory limit.
//!
//! C header: `include/linux/mm.h`; `Documentation/core-api/pin_user_pages.rst`.

use super::{
    ffi,
    ratelimit::info_limited, //
};
use kernel::{
    bindings,
    error::to_result,
    mm::Mm,
    prelude::*,
    sync::aref::ARef, //
};

/// The process whose memory is pinned. Keeps the address space's structure, not its memory.
pub(crate) struct PinOwner {
    mm: ARef<Mm>,
}

impl PinOwner {
    /// The current process.
    pub(crate) fn current() -> Result<Self> {
        let current = kernel::current!();
        let mm = current.mm().ok_or(ESRCH)?;
        Ok(Self { mm: ARef::from(&**mm) })
    }

    /// Is this the current process?
    pub(crate) fn is_current(&self) -> bool {
        kernel::current!().mm().is_some_and(|mm| mm.as_raw() == self.mm.as_raw())
    }

    /// The process's address space.
    #[cfg(CONFIG_MMU_NOTIFIER)]
    pub(super) fn as_raw(&self) -> *mut bindings::mm_struct {
        self.mm.as_raw()
    }

    /// Is every byte of the range mapped in the current process, which must be this one?
    pub(crate) fn has_mapped(&self, start: usize, end: usize) -> bool {
        let current = kernel::current!();
        let Some(mm) = current.mm().filter(|mm| mm.as_raw() == self.mm.as_raw()) else {
            return false;
        };
        let guard = mm.mmap_read_lock();
        let mut address = start;
        while address < end {
            match guard.vma_lookup(address) {
                Some(vma) => address = vma.end(),
                None => return false,
            }
        }
        true
    }

    /// Pins `count` pages from a page-aligned address of this process, which must be the current
    /// one (-EIO); for writing, in one go. All or nothing: -ENOMEM over the limit, -EFAULT where
    /// nothing is mapped, -EINTR if the process is being killed.
    pub(crate) fn pin(&self, address: usize, count: usize) -> Result<PinnedPages> {
        if !self.is_current() {
            return Err(EIO);
        }
        let mut pinned = PinnedPages {
            pages: KVec::with_capacity(count, GFP_KERNEL)?,
            taken: 0,
            charge: Charge::new(&self.mm, count)?,
        };
        while pinned.pages.len() < count {
            let done = pinned.pages.len();
            let rest = c_int::try_from(count - done)?;
            let flags = bindings::FOLL_WRITE | bindings::FOLL_LONGTERM;
            let start = address + done * kernel::page::PAGE_SIZE;
            let spare = pinned.pages.spare_capacity_mut();
            // SAFETY: `spare` has room for `count - done` pointers, because the capacity is at
            // least `count`. The pages are those of `current->mm`, which was checked to be the
            // owner.
            let result = unsafe {
                bindings::pin_user_pages_fast(start, rest, flags, spare.as_mut_ptr().cast())
            };
            to_result(result).inspect_err(|error| {
                info_limited!("memory at {start:#x} cannot be pinned for writing: {error:?}\n");
            })?;
            match usize::try_from(result)? {
                0 => return Err(EFAULT),
                // SAFETY: The call initialised as many pointers as it returned, at most `rest`.
                more => unsafe { pinned.pages.inc_len(more) },
            }
        }
        Ok(pinned)
    }
}

/// Pages charged to an address space's pinned memory.
///
/// # Invariants
///
/// `pages` of the mm's `pinned_vm` are this value's.
pub(super) struct Charge {
    mm: ARef<Mm>,
    pages: usize,
}

impl Charge {
    fn new(mm: &ARef<Mm>, pages: usize) -> Result<Self> {
        // SAFETY: The reference keeps the mm_struct; only an atomic counter of it is used.
        to_result(unsafe { ffi::gzvm_kx_charge_pinned(mm.as_raw(), pages) }).inspect_err(|_| {
            info_limited!("pinning {pages} more pages exceeds the locked-memory limit\n");
        })?;
        Ok(Self { mm: mm.clone(), pages })
    }

    /// Number of pages.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Is the other one of the same address space, so that both can be joined?
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.mm.as_raw() == other.mm.as_raw()
    }

    /// No page, of the same address space.
    pub(super) fn none(&self) -> Self {
        Self { mm: self.mm.clone(), pages: 0 }
    }

    /// Moves a part of the charge into a value of its own.
    pub(super) fn split(&mut self, pages: usize) -> Self {
        let pages = pages.min(self.pages);
        let mut part = self.none();
        // INVARIANT: The pages are the new value's from now on.
        self.pages -= pages;
        part.pages = pages;
        part
    }

    /// Adds a charge of the same address space.
    pub(super) fn join(&mut self, mut other: Self) {
        debug_assert!(self.is_like(&other));
        // INVARIANT: The pages are this value's from now on; the other one ends without any.
        self.pages += core::mem::take(&mut other.pages);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // SAFETY: The reference keeps the mm_struct; by the type invariant the amount is ours.
        unsafe { ffi::gzvm_kx_uncharge_pinned(self.mm.as_raw(), self.pages) };
    }
}

/// Pages as they were pinned, one pointer each.
///
/// # Invariants
///
/// The pages from index `taken` on are pinned and owned by this value, and charged by `charge`.
pub(crate) struct PinnedPages {
    pages: KVec<*mut bindings::page>,
    taken: usize,
    charge: Charge,
}

impl PinnedPages {
    /// The pages that are left.
    fn rest(&self) -> &[*mut bindings::page] {
        self.pages.get(self.taken..).unwrap_or(&[])
    }

    /// Frame numbers of the first `max` pages that are left.
    pub(crate) fn pfns(&self, max: usize) -> impl Iterator<Item = u64> + '_ {
        self.runs(max).flat_map(|(first, length)| first..first + length as u64)
    }

    /// Runs of consecutive frames among the first `max` pages that are left: first frame and
    /// length.
    pub(crate) fn runs(&self, max: usize) -> impl Iterator<Item = (u64, usize)> + '_ {
        let rest = self.rest();
        let mut rest = rest.get(..max).unwrap_or(rest);
        core::iter::from_fn(move || {
            let first = *rest.first()?;
            let length = run_length(rest);
            rest = rest.get(length..).unwrap_or(&[]);
            // SAFETY: By the type invariant the page is pinned, so its descriptor is valid.
            Some((unsafe { ffi::gzvm_kx_page_to_pfn(first) as u64 }, length))
        })
    }

    /// Number of pages that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest().len()
    }

    /// Whose the pages are.
    pub(super) fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Gives up the first `count` pages that are left: they are the caller's, with their charge.
    pub(super) fn hand_over(&mut self, count: usize) -> (&[*mut bindings::page], Charge) {
        let start = self.taken;
        let count = count.min(self.left());
        // INVARIANT: The pages in front of the new `taken` are not this value's any more.
        self.taken += count;
        let charge = self.charge.split(count);
        (self.pages.get(start..self.taken).unwrap_or(&[]), charge)
    }

    /// Number of runs of consecutive frames among the first `max` pages that are left.
    pub(crate) fn runs_within(&self, max: usize) -> usize {
        self.runs(max).count()
    }

    /// Takes the run of consecutive frames at the front off, at most `max`.
    pub(crate) fn take_run(&mut self, max: usize) -> Option<PinnedRange> {
        let rest = self.rest();
        let rest = rest.get(..max).unwrap_or(rest);
        let count = run_length(rest);
        let (pages, charge) = self.hand_over(count);
        // INVARIANT: The pages handed over belong to the range alone, and are consecutive.
        Some(PinnedRange { first: *pages.first()?, charge })
    }
}

/// How many pages at the front have consecutive frames: on this architecture, consecutive
/// descriptors (the vmemmap is linear).
pub(super) fn run_length(pages: &[*mut bindings::page]) -> usize {
    let pairs = pages.iter().zip(pages.iter().skip(1));
    let run = pairs.take_while(|(page, next)| page.wrapping_add(1) == **next);
    run.count() + usize::from(!pages.is_empty())
}

impl PinnedPages {
    /// Leaves the pages pinned for ever: for memory that the hypervisor may have mapped.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
    }
}

// SAFETY: Pins belong to no thread.
unsafe impl Send for PinnedPages {}

impl Drop for PinnedPages {
    fn drop(&mut self) {
        let rest = self.pages.get_mut(self.taken..).unwrap_or(&mut []);
        // SAFETY: By the type invariant these pages are pinned and ours.
        unsafe { bindings::unpin_user_pages(rest.as_mut_ptr(), rest.len()) };
    }
}

/// Physically consecutive pinned pages.
///
/// # Invariants
///
/// `first` and the `charge.pages - 1` pages behind it are pinned and owned by this value.
pub(crate) struct PinnedRange {
    first: *mut bindings::page,
    charge: Charge,
}

// SAFETY: Pins belong to no thread.
unsafe impl Send for PinnedRange {}
// SAFETY: There is no access through a shared reference but to plain values.
unsafe impl Sync for PinnedRange {}

impl PinnedRange {
    /// Makes a range of pages that a value of another kind had.
    ///
    /// # Safety
    ///
    /// `first` and the pages behind it, as many as the charge has, are pinned and owned by the
    /// caller, and from now on by the new value.
    pub(super) unsafe fn new(first: *mut bindings::page, charge: Charge) -> Self {
        Self { first, charge }
    }

    /// The first page.
    pub(super) fn first(&self) -> *mut bindings::page {
        self.first
    }

    /// Whose the pages are.
    pub(super) fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Gives up the pages: they are the caller's, with their charge.
    pub(super) fn take_charge(&mut self) -> Charge {
        let all = self.charge.pages;
        // INVARIANT: Without a page in the charge, no page is this value's.
        self.charge.split(all)
    }

    /// Number of pages.
    pub(crate) fn count(&self) -> usize {
        self.charge.pages
    }

    /// Frame number of the first page.
    pub(crate) fn pfn(&self) -> u64 {
        // SAFETY: By the type invariant the page is pinned, so its descriptor is valid.
        unsafe { ffi::gzvm_kx_page_to_pfn(self.first) as u64 }
    }

    /// Joins a range that begins where this one ends; otherwise gives it back.
    pub(crate) fn join(&mut self, mut next: Self) -> Result<(), Self> {
        let follows = self.pfn() + self.count() as u64 == next.pfn();
        if !follows || !self.charge.is_like(&next.charge) {
            return Err(next);
        }
        // INVARIANT: The pages of `next` follow ours; they and their charge become ours.
        self.charge.join(next.take_charge());
        Ok(())
    }

    /// Cuts the range after `count` pages, at least one: this value keeps those, the rest is
    /// returned.
    pub(crate) fn split_off(&mut self, count: usize) -> Option<Self> {
        let rest = self.count().checked_sub(count).filter(|rest| *rest > 0)?;
        // SAFETY: `count` is below the number of pages, and descriptors of consecutive frames in
        // one pinned range are reachable from each other (the vmemmap is linear).
        let first = unsafe { self.first.add(count) };
        // INVARIANT: The pages from `count` on belong to the new value alone.
        Some(Self { first, charge: self.charge.split(rest) })
    }

    /// As a drop, but without folio locks, for watchers of the owner's mappings.
    ///
    /// Setting the flag is all that marking a page dirty means for memory that can be pinned for
    /// long and for writing: anonymous memory, tmpfs and hugetlbfs.
    pub(crate) fn unpin_unlocked(mut self) {
        let charge = self.take_charge();
        // SAFETY: By the type invariant these consecutive pages are pinned and ours; with no page
        // in the charge left, the drop does not unpin them once more.
        unsafe {
            ffi::gzvm_kx_set_dirty(self.first, charge.pages);
            bindings::unpin_user_page_range_dirty_lock(self.first, charge.pages, false);
        }
    }

    /// Leaves the pages pinned for ever: for memory that the hypervisor would not give back.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
    }
}

impl Drop for PinnedRange {
    fn drop(&mut self) {
        if self.charge.pages > 0 {
            // SAFETY: By the type invariant these consecutive pages are pinned and ours. The guest
            // may have written them, so they are dirty.
            unsafe {
                bindings::unpin_user_page_range_dirty_lock(self.first, self.charge.pages, true)
            };
        }
    }
}
