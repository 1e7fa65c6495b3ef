// SPDX-License-Identifier: GPL-2.0

//! A record of what backs a VM's memory: pinned pages from a guest frame on. Consecutive pages are
//! a range, which may be as long as it likes; others are in a table, where that takes less than a
//! record for each run of them.

use crate::{
    kx::{
        gup::{
            PinnedPages,
            PinnedRange, //
        },
        pin_table::PinTable,
        sched, //
    },
    model::{
        addr::{
            Gfn,
            PageRange,
            Pfn, //
        },
        pins::{
            self,
            Mapped, //
        }, //
    }, //
};
use kernel::{
    prelude::*,
    rbtree::RBTreeNodeReservation, //
};

/// A node of the tree of records.
pub(crate) type Reservation = RBTreeNodeReservation<Gfn, Record>;

/// Pages that are unpinned in one go.
const UNPIN_PAGES: usize = 512;

/// Bytes of memory that a record occupies: the tree's node has three words.
pub(crate) const RECORD_BYTES: usize = 3 * size_of::<usize>() + size_of::<(Gfn, Record)>();

// An allocation of 64 bytes for each range of pages.
const _: () = assert!(RECORD_BYTES <= 64);

/// Pages that are pinned.
pub(crate) enum Pinned {
    /// Consecutive ones.
    Range(PinnedRange),
    /// Any, one at least. `None` is a record on its way out of the tree.
    Table(Option<KBox<PinTable>>),
}

impl Pinned {
    /// Number of pages.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Range(pages) => pages.count() as u64,
            Self::Table(table) => table.as_ref().map_or(0, |table| table.count() as u64),
        }
    }

    /// Bytes of memory beside the record's.
    pub(crate) fn table_bytes(&self) -> usize {
        match self {
            Self::Table(Some(table)) => table.bytes(),
            Self::Range(_) | Self::Table(None) => 0,
        }
    }

    /// Unpins the pages, giving way to others now and then.
    pub(crate) fn unpin(self) {
        let Self::Range(pages) = self else {
            drop(self);
            sched::cond_resched();
            return;
        };
        let mut rest = Some(pages);
        while let Some(mut pages) = rest {
            rest = pages.split_off(UNPIN_PAGES);
            drop(pages);
            sched::cond_resched();
        }
    }

    /// As a drop, but without folio locks; see [`PinnedRange::unpin_unlocked`].
    pub(crate) fn unpin_unlocked(self) {
        match self {
            Self::Range(pages) => pages.unpin_unlocked(),
            Self::Table(Some(table)) => KBox::into_inner(table).unpin_unlocked(),
            Self::Table(None) => {}
        }
    }

    /// Leaves the pages pinned for ever: for memory that the hypervisor would not give back.
    pub(crate) fn leak(self) {
        match self {
            Self::Range(pages) => pages.leak(),
            Self::Table(Some(table)) => KBox::into_inner(table).leak(),
            Self::Table(None) => {}
        }
    }
}

/// One record: the pages that are mapped, and when they were mapped last.
pub(crate) struct Record {
    pub(crate) pages: Pinned,
    pub(crate) mapped_at: u64,
}

impl Record {
    /// The guest frames of a record that starts at `start`: those in between that nothing backs are
    /// among them.
    pub(crate) fn span(&self, start: Gfn) -> Option<PageRange> {
        let frames = match &self.pages {
            Pinned::Range(pages) => pages.count(),
            Pinned::Table(table) => table.as_ref()?.len(),
        };
        PageRange::new(start, frames as u64)
    }

    /// The first frames from `from` on that are backed, without a gap.
    pub(crate) fn stretch(&self, start: Gfn, from: Gfn) -> Option<PageRange> {
        let (_, rest) = self.span(start)?.split_at(from);
        let Pinned::Table(Some(table)) = &self.pages else { return rest };
        let at = index(start, rest?.start())?;
        let (at, pages) = pins::stretch(table.len(), at, |at| table.has(at))?;
        PageRange::new(Gfn(start.0 + at as u64), pages as u64)
    }

    /// Moves the first `count` of `pages`, mapped at `at`, to the end of the record's table.
    /// `false` if it has none, or no room there.
    pub(crate) fn append(&mut self, pages: &mut PinnedPages, count: usize, at: u64) -> bool {
        let Pinned::Table(Some(table)) = &mut self.pages else { return false };
        let appended = table.append(pages, count);
        if appended {
            self.mapped_at = self.mapped_at.max(at);
        }
        appended
    }

    /// Puts pages, mapped at `at`, into a hole of the record's table; gives them back if there is
    /// none.
    pub(crate) fn put(
        &mut self,
        place: usize,
        pages: PinnedRange,
        at: u64,
    ) -> Result<(), PinnedRange> {
        let Pinned::Table(Some(table)) = &mut self.pages else { return Err(pages) };
        table.put(place, pages)?;
        self.mapped_at = self.mapped_at.max(at);
        Ok(())
    }

    /// The page behind a frame.
    pub(crate) fn mapped(&self, start: Gfn, gfn: Gfn) -> Option<Mapped> {
        let at = index(start, gfn)?;
        let pfn = match &self.pages {
            Pinned::Range(pages) => pages.pfn() + Some(at).filter(|at| *at < pages.count())? as u64,
            Pinned::Table(table) => table.as_ref()?.pfn(at)?,
        };
        Some(Mapped { pfn: Pfn(pfn), mapped_at: self.mapped_at })
    }
}

/// Where a frame is in a record that starts at `start`.
pub(crate) fn index(start: Gfn, gfn: Gfn) -> Option<usize> {
    usize::try_from(gfn.0.checked_sub(start.0)?).ok()
}

/// Room for records of pages, to be had before the pages are mapped: afterwards nothing may fail.
pub(crate) enum Room {
    /// A node for each run of consecutive pages.
    Runs(KVec<Reservation>),
    /// A table of all that is left, and its node.
    Table(Option<(Reservation, KBox<PinTable>)>),
}

impl Room {
    /// None yet, of the kind that takes less memory for what is left of `pages`.
    pub(crate) fn new(pages: &PinnedPages) -> Self {
        let most = pins::most_runs(RECORD_BYTES, PinTable::bytes_of(pages.left()));
        if pages.runs(usize::MAX).nth(most).is_some() {
            Self::Table(None)
        } else {
            Self::runs()
        }
    }

    /// None yet, for runs in any case.
    pub(crate) const fn runs() -> Self {
        Self::Runs(KVec::new())
    }

    /// Has what the first `count` pages that are left need at most.
    pub(crate) fn fill(&mut self, pages: &PinnedPages, count: usize) -> Result {
        match self {
            Self::Runs(nodes) => {
                for _ in nodes.len()..pages.runs_within(count) {
                    nodes.push(Reservation::new(GFP_KERNEL_ACCOUNT)?, GFP_KERNEL)?;
                }
            }
            Self::Table(Some(_)) => {}
            Self::Table(room) => {
                let table = KBox::new(PinTable::with_room_for(pages)?, GFP_KERNEL_ACCOUNT)?;
                *room = Some((Reservation::new(GFP_KERNEL_ACCOUNT)?, table));
            }
        }
        Ok(())
    }
}
