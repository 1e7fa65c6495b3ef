// SPDX-License-Identifier: GPL-2.0

//! What backs a VM's memory: pinned pages by guest frame, as few records as contiguity allows.

use crate::{
    kx::{
        gup::{
            PinnedPages,
            PinnedRange, //
        },
        sched, //
    },
    model::{
        addr::{
            Gfn,
            PageRange,
            Pfn, //
        },
        pins::Run, //
    }, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    }, //
};

/// Room for one more record, allocated before the pages are mapped: afterwards nothing may fail.
pub(crate) type Reservation = RBTreeNodeReservation<Gfn, Record>;

/// Pages that are unpinned in one go.
const UNPIN_PAGES: usize = 512;

/// One record: the pages that are mapped, and when they were mapped last.
pub(crate) struct Record {
    pages: PinnedRange,
    mapped_at: u64,
}

impl Record {
    fn run(&self, start: Gfn) -> Option<Run> {
        let range = PageRange::new(start, self.pages.count() as u64)?;
        Some(Run { range, pfn: Pfn(self.pages.pfn()), mapped_at: self.mapped_at })
    }
}

/// What became of a page that the guest gave back.
pub(crate) enum Relinquished {
    /// It backs nothing any more.
    Gone(PinnedRange),
    /// It may be mapped again already and stays pinned.
    Kept,
    /// It was not backed.
    Unknown,
}

/// All pinned pages of a VM.
///
/// # Invariants
///
/// No two records overlap.
pub(crate) struct Backing {
    records: RBTree<Gfn, Record>,
    /// Pages of mapping calls that failed. A failed call may have mapped some of them, so they stay
    /// pinned until the VM is gone.
    abandoned: KVec<PinnedPages>,
    pages: u64,
}

impl Backing {
    /// Nothing is backed.
    pub(crate) fn new() -> Self {
        Self { records: RBTree::new(), abandoned: KVec::new(), pages: 0 }
    }

    /// Number of pages ever mapped, less those given back.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The last record that starts at or in front of a frame.
    fn floor(&self, gfn: Gfn) -> Option<Run> {
        let next = Gfn(gfn.0.checked_add(1)?);
        if let Some(cursor) = self.records.cursor_lower_bound(&next) {
            let (start, record) = cursor.peek_prev()?;
            record.run(*start)
        } else {
            let cursor = self.records.cursor_back()?;
            let (start, record) = cursor.current();
            record.run(*start)
        }
    }

    /// The record that contains a frame.
    pub(crate) fn run_at(&self, gfn: Gfn) -> Option<Run> {
        self.floor(gfn).filter(|run| run.range.contains(gfn))
    }

    /// Is a part of the range backed?
    pub(crate) fn touches(&self, range: PageRange) -> bool {
        let last = Gfn(range.end().0 - 1);
        self.floor(last).is_some_and(|run| run.range.overlaps(range))
    }

    /// The first part of the range that is not backed.
    pub(crate) fn first_gap(&self, range: PageRange) -> Option<PageRange> {
        let mut start = range.start();
        while let Some(run) = self.run_at(start) {
            start = run.range.end();
        }
        let (_, rest) = range.split_at(start);
        let rest = rest?;
        let end = match self.records.cursor_lower_bound(&start) {
            Some(cursor) => rest.end().min(*cursor.current().0),
            None => rest.end(),
        };
        rest.split_at(end).0
    }

    /// Records pages that were just mapped at `start`. They must not be backed already.
    pub(crate) fn add(&mut self, start: Gfn, pages: PinnedRange, at: u64, room: Reservation) {
        self.pages += pages.count() as u64;
        let Some(pages) = self.extend(start, pages, at) else { return };
        // INVARIANT: the caller's contract; there was no record of these frames.
        self.records.insert(room.into_node(start, Record { pages, mapped_at: at }));
    }

    /// Joins the pages with the record in front of them, if both are contiguous.
    fn extend(&mut self, start: Gfn, pages: PinnedRange, at: u64) -> Option<PinnedRange> {
        let front = self.floor(start).filter(|run| run.range.end() == start);
        let record = front.and_then(|run| self.records.get_mut(&run.range.start()));
        let Some(record) = record else { return Some(pages) };
        match record.pages.join(pages) {
            Ok(()) => {
                record.mapped_at = at;
                None
            }
            Err(pages) => Some(pages),
        }
    }

    /// Notes that a frame was mapped again.
    pub(crate) fn mapped_again(&mut self, gfn: Gfn, at: u64) {
        let record = self.run_at(gfn).and_then(|run| self.records.get_mut(&run.range.start()));
        if let Some(record) = record {
            record.mapped_at = at;
        }
    }

    /// Keeps pages whose mapping failed.
    pub(crate) fn abandon(&mut self, pages: PinnedPages) {
        if self.abandoned.reserve(1, GFP_KERNEL).is_err() {
            // Unpinning could hand the hypervisor's memory to somebody else.
            pages.leak();
            return;
        }
        if let Err(error) = self.abandoned.push_within_capacity(pages) {
            drop(error);
        }
    }

    /// Takes a page out that the guest gave back; see [`Run::surely_unmapped`] for `entered_at`. The
    /// record may fall into two, which need room.
    pub(crate) fn relinquish(
        &mut self,
        gfn: Gfn,
        entered_at: u64,
        room: [Reservation; 2],
    ) -> Relinquished {
        let Some(run) = self.run_at(gfn) else { return Relinquished::Unknown };
        if !run.surely_unmapped(entered_at) {
            return Relinquished::Kept;
        }
        let start = run.range.start();
        let Some(node) = self.records.remove_node(&start) else { return Relinquished::Unknown };
        let (_, Record { pages, mapped_at }) = node.to_key_value();
        let (front, page, back) = pages.cut_out(usize::try_from(gfn.0 - start.0).unwrap_or(0));
        // INVARIANT: the parts lie within the record that was taken out.
        let [front_room, back_room] = room;
        if let Some(pages) = front {
            self.records.insert(front_room.into_node(start, Record { pages, mapped_at }));
        }
        if let Some(pages) = back {
            let behind = Gfn(gfn.0 + 1);
            self.records.insert(back_room.into_node(behind, Record { pages, mapped_at }));
        }
        self.pages -= 1;
        Relinquished::Gone(page)
    }

    /// Unpins everything, giving way to others now and then. The guest must be gone.
    pub(crate) fn unpin_all(&mut self) {
        while let Some(cursor) = self.records.cursor_front_mut() {
            let (_, node) = cursor.remove_current();
            let mut rest = Some(node.to_key_value().1.pages);
            while let Some(mut pages) = rest {
                rest = pages.split_off(UNPIN_PAGES);
                drop(pages);
                sched::cond_resched();
            }
        }
        while let Some(pages) = self.abandoned.pop() {
            drop(pages);
            sched::cond_resched();
        }
    }

    /// Leaves everything pinned for ever, because the hypervisor did not let go of it.
    pub(crate) fn leak_all(&mut self) {
        while let Some(cursor) = self.records.cursor_front_mut() {
            let (_, node) = cursor.remove_current();
            node.to_key_value().1.pages.leak();
        }
        while let Some(pages) = self.abandoned.pop() {
            pages.leak();
        }
    }
}
