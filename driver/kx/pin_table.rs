// SPDX-License-Identifier: GPL-2.0

//! Pinned pages in a table, a pointer each: for pages that are not consecutive, and that come and
//! go one by one.

use super::{
    ffi,
    gup::{
        run_length,
        Charge,
        PinnedPages,
        PinnedRange, //
    }, //
};
use kernel::{
    bindings,
    prelude::*, //
};

/// Pinned pages by index.
///
/// # Invariants
///
/// The pages that entries point to are pinned and owned by this value, and `charge` has as many.
/// Entries without a page are null.
pub(crate) struct PinTable {
    entries: KVec<*mut bindings::page>,
    charge: Charge,
}

// SAFETY: Pins belong to no thread.
unsafe impl Send for PinTable {}
// SAFETY: There is no access through a shared reference but to plain values.
unsafe impl Sync for PinTable {}

impl PinTable {
    /// An empty table with room for all that is left of `pages`.
    pub(crate) fn with_room_for(pages: &PinnedPages) -> Result<Self> {
        let entries = KVec::with_capacity(pages.left(), GFP_KERNEL_ACCOUNT)?;
        Ok(Self { entries, charge: pages.charge().none() })
    }

    /// Bytes of memory that a table with so many entries occupies.
    pub(crate) const fn bytes_of(entries: usize) -> usize {
        size_of::<Self>() + entries * size_of::<*mut bindings::page>()
    }

    /// Bytes of memory that the table occupies.
    pub(crate) fn bytes(&self) -> usize {
        Self::bytes_of(self.entries.capacity())
    }

    /// Number of pages.
    pub(crate) fn count(&self) -> usize {
        self.charge.pages()
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there a page at an index?
    pub(crate) fn has(&self, at: usize) -> bool {
        self.entries.get(at).is_some_and(|page| !page.is_null())
    }

    /// Frame number of the page at an index.
    pub(crate) fn pfn(&self, at: usize) -> Option<u64> {
        let page = *self.entries.get(at).filter(|page| !page.is_null())?;
        // SAFETY: By the type invariant the page is pinned, so its descriptor is valid.
        Some(unsafe { ffi::gzvm_kx_page_to_pfn(page) as u64 })
    }

    /// Moves the first `count` of `pages` behind the last entry. `false` if there is no room for
    /// them, or fewer are left.
    pub(crate) fn append(&mut self, pages: &mut PinnedPages, count: usize) -> bool {
        let room = self.entries.capacity() - self.entries.len();
        if count > room || count > pages.left() || !self.charge.is_like(pages.charge()) {
            return false;
        }
        // INVARIANT: The pages come with their charge, and there is an entry for each.
        let (pages, charge) = pages.hand_over(count);
        let entered = self.entries.extend_from_slice(pages, GFP_NOWAIT);
        debug_assert!(entered.is_ok());
        self.charge.join(charge);
        true
    }

    /// Puts pages at an index where there are none; gives them back if there are.
    pub(crate) fn put(&mut self, at: usize, mut range: PinnedRange) -> Result<(), PinnedRange> {
        let (first, count) = (range.first(), range.count());
        let places = self.entries.get_mut(at..at.saturating_add(count));
        let fits = |places: &&mut [*mut bindings::page]| places.iter().all(|page| page.is_null());
        let (Some(places), true) = (places.filter(fits), self.charge.is_like(range.charge()))
        else {
            return Err(range);
        };
        // INVARIANT: The pages come with their charge, and each gets an entry of its own.
        for (index, place) in places.iter_mut().enumerate() {
            *place = first.wrapping_add(index);
        }
        self.charge.join(range.take_charge());
        Ok(())
    }

    /// Takes the pages with consecutive frames from an index on out, at most `max`; `None` if there
    /// is no page.
    pub(crate) fn take(&mut self, at: usize, max: usize) -> Option<PinnedRange> {
        let end = at.saturating_add(max).min(self.entries.len());
        let rest = self.entries.get_mut(at..end)?;
        let first = *rest.first().filter(|page| !page.is_null())?;
        let count = run_length(rest);
        for place in rest.iter_mut().take(count) {
            *place = core::ptr::null_mut();
        }
        let charge = self.charge.split(count);
        // SAFETY: By the type invariant the pages were pinned and ours, and no entry points to them
        // any more. They are consecutive, as `run_length` found.
        Some(unsafe { PinnedRange::new(first, charge) })
    }

    /// As a drop, but without folio locks; see [`PinnedRange::unpin_unlocked`].
    pub(crate) fn unpin_unlocked(mut self) {
        for page in self.pages() {
            // SAFETY: By the type invariant the page is pinned.
            unsafe { ffi::gzvm_kx_set_dirty(*page, 1) };
        }
        self.unpin(false);
    }

    /// Leaves the pages pinned for ever: for memory that the hypervisor would not give back.
    pub(crate) fn leak(mut self) {
        let all = self.charge.pages();
        // INVARIANT: There is neither a page nor a charge left.
        core::mem::forget(self.charge.split(all));
        self.entries.clear();
    }

    /// The pages alone.
    fn pages(&mut self) -> &mut [*mut bindings::page] {
        self.entries.retain(|page| !page.is_null());
        &mut self.entries
    }

    fn unpin(&mut self, dirty: bool) {
        let pages = self.pages();
        // SAFETY: By the type invariant the pages are pinned and ours.
        unsafe { bindings::unpin_user_pages_dirty_lock(pages.as_mut_ptr(), pages.len(), dirty) };
        // INVARIANT: There is no page left; the charge that had them ends with the next line.
        self.entries.clear();
        let all = self.charge.pages();
        drop(self.charge.split(all));
    }
}

impl Drop for PinTable {
    fn drop(&mut self) {
        // The guest may have written the pages, so they are dirty.
        self.unpin(true);
    }
}
