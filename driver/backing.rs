// SPDX-License-Identifier: GPL-2.0

//! What backs a VM's memory: pinned pages by guest frame, as few records as contiguity allows.
//!
//! Nothing here allocates: callers bring the room, so that no lock is held meanwhile.

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
        RBTreeNode,
        RBTreeNodeReservation, //
    }, //
};

/// Room for one more record, allocated before the pages are mapped: afterwards nothing may fail.
pub(crate) type Reservation = RBTreeNodeReservation<Gfn, Record>;

/// Pages that are unpinned in one go.
const UNPIN_PAGES: usize = 512;

/// Bytes of memory that a record occupies: the tree's node has three words.
const RECORD_BYTES: usize = 3 * size_of::<usize>() + size_of::<(Gfn, Record)>();

/// One record: the pages that are mapped, and when they were mapped last.
pub(crate) struct Record {
    /// Empty only on its way out of the tree.
    pages: Option<PinnedRange>,
    mapped_at: u64,
}

impl Record {
    fn run(&self, start: Gfn) -> Option<Run> {
        let pages = self.pages.as_ref()?;
        let range = PageRange::new(start, pages.count() as u64)?;
        Some(Run { range, pfn: Pfn(pages.pfn()), mapped_at: self.mapped_at })
    }
}

/// What became of a page that the guest gave back.
pub(crate) enum Relinquished {
    /// It backs nothing any more.
    Gone(Option<PinnedRange>),
    /// It may be mapped again already and stays pinned.
    Kept,
    /// It was not backed.
    Unknown,
}

/// Pages of a mapping call that failed, in a list.
pub(crate) struct Abandoned {
    pages: PinnedPages,
    next: Option<KBox<Abandoned>>,
}

impl Abandoned {
    /// An entry of its own.
    pub(crate) fn new(pages: PinnedPages) -> Self {
        Self { pages, next: None }
    }
}

/// All pinned pages of a VM.
///
/// # Invariants
///
/// No two records overlap, and none reaches from one memory slot into another.
pub(crate) struct Backing {
    records: RBTree<Gfn, Record>,
    count: usize,
    /// Pages of mapping calls that failed and could not be undone. A failed call may have mapped
    /// some of them, so they stay pinned until the VM is gone.
    abandoned: Option<KBox<Abandoned>>,
    pages: u64,
}

impl Backing {
    /// Nothing is backed.
    pub(crate) fn new() -> Self {
        Self { records: RBTree::new(), count: 0, abandoned: None, pages: 0 }
    }

    /// Number of pages that back the guest.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Number of records, and the bytes of memory that they occupy.
    pub(crate) fn records(&self) -> (usize, usize) {
        (self.count, self.count * RECORD_BYTES)
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

    /// The first record that overlaps a range.
    fn first_in(&self, range: PageRange) -> Option<Run> {
        let run = self.run_at(range.start()).or_else(|| {
            let cursor = self.records.cursor_lower_bound(&range.start())?;
            let (start, record) = cursor.current();
            record.run(*start)
        });
        run.filter(|run| run.range.overlaps(range))
    }

    /// The record that contains a frame.
    pub(crate) fn run_at(&self, gfn: Gfn) -> Option<Run> {
        self.floor(gfn).filter(|run| run.range.contains(gfn))
    }

    /// Is a part of the range backed?
    pub(crate) fn touches(&self, range: PageRange) -> bool {
        self.first_in(range).is_some()
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

    /// The first part of the range that is backed without a gap, at most `max` pages.
    pub(crate) fn first_backed(&self, range: PageRange, max: u64) -> Option<PageRange> {
        let first = self.first_in(range)?.range.intersection(range)?;
        let mut end = first.end();
        while end.0 - first.start().0 < max && end < range.end() {
            let Some(next) = self.run_at(end) else { break };
            end = next.range.end();
        }
        let pages = (end.0 - first.start().0).min(max);
        PageRange::new(first.start(), pages)?.intersection(range)
    }

    /// The smallest range around one of its parts that no record reaches across: cutting it out
    /// needs no room.
    pub(crate) fn uncut(&self, range: PageRange) -> PageRange {
        let across = self.run_at(range.start()).filter(|run| range.end() < run.range.end());
        let whole = across.and_then(|run| {
            let start = run.range.start();
            PageRange::new(start, range.end().0 - start.0)
        });
        whole.unwrap_or(range)
    }

    fn insert(&mut self, start: Gfn, pages: PinnedRange, mapped_at: u64, room: Reservation) {
        let record = Record { pages: Some(pages), mapped_at };
        self.count += usize::from(self.records.insert(room.into_node(start, record)).is_none());
    }

    fn remove(&mut self, start: Gfn) -> Option<(PinnedRange, u64, Reservation)> {
        let record = self.records.get_mut(&start)?;
        let (pages, at) = (record.pages.take()?, record.mapped_at);
        let node = self.records.remove_node(&start).map(RBTreeNode::into_reservation)?;
        self.count -= 1;
        Some((pages, at, node))
    }

    /// Records pages of the slot `slot` that were just mapped, in one record with those in front of
    /// and behind them where all is contiguous.
    pub(crate) fn add(
        &mut self,
        slot: PageRange,
        start: Gfn,
        pages: PinnedRange,
        at: u64,
        room: Reservation,
    ) {
        // INVARIANT: the caller claimed the range and found it unbacked, so there is no overlap.
        let end = Gfn(start.0 + pages.count() as u64);
        self.pages += pages.count() as u64;
        if let Err(pages) = self.extend(slot, start, pages, at) {
            self.insert(start, pages, at, room);
        }
        if end < slot.end() {
            self.close_up(slot, end);
        }
    }

    /// Joins the pages with the record in front of them, if both are contiguous.
    fn extend(
        &mut self,
        slot: PageRange,
        start: Gfn,
        pages: PinnedRange,
        at: u64,
    ) -> Result<(), PinnedRange> {
        let front = self.floor(start).filter(|run| run.range.end() == start);
        // INVARIANT: nothing is joined across the beginning of the slot.
        let Some(front) = front.filter(|_| start > slot.start()).map(|run| run.range.start())
        else {
            return Err(pages);
        };
        let record = self.records.get_mut(&front);
        let Some(record) = record else { return Err(pages) };
        let Some(before) = record.pages.as_mut() else { return Err(pages) };
        before.join(pages)?;
        record.mapped_at = record.mapped_at.max(at);
        Ok(())
    }

    /// Joins the record that starts at a frame with the one in front of it, if both are contiguous.
    fn close_up(&mut self, slot: PageRange, back: Gfn) {
        let Some((pages, at, room)) = self.remove(back) else { return };
        if let Err(pages) = self.extend(slot, back, pages, at) {
            self.insert(back, pages, at, room);
        }
    }

    /// Notes that a frame was mapped again.
    pub(crate) fn mapped_again(&mut self, gfn: Gfn, at: u64) {
        let record = self.run_at(gfn).and_then(|run| self.records.get_mut(&run.range.start()));
        if let Some(record) = record {
            record.mapped_at = record.mapped_at.max(at);
        }
    }

    /// Keeps pages whose mapping failed.
    pub(crate) fn abandon(&mut self, mut entry: KBox<Abandoned>) {
        entry.next = self.abandoned.take();
        self.abandoned = Some(entry);
    }

    /// Takes the first pages of a range that are in one record out; `None` if nothing of it is
    /// backed. `room` is needed where a record falls into two, else nothing is taken.
    pub(crate) fn cut(
        &mut self,
        range: PageRange,
        room: &mut Option<Reservation>,
    ) -> Option<PinnedRange> {
        let run = self.first_in(range)?;
        let (start, part) = (run.range.start(), run.range.intersection(range)?);
        let splits = start < part.start() && part.end() < run.range.end();
        if splits && room.is_none() {
            return None;
        }
        let (mut pages, at, own) = self.remove(start)?;
        let mut rooms = [Some(own), if splits { room.take() } else { None }].into_iter().flatten();
        let front = usize::try_from(part.start().0 - start.0).ok()?;
        // INVARIANT: what is put back lies within the record that was taken out.
        if front > 0 {
            let rest = pages.split_off(front)?;
            let front = core::mem::replace(&mut pages, rest);
            self.insert(start, front, at, rooms.next()?);
        }
        if let Some(back) = pages.split_off(usize::try_from(part.pages()).ok()?) {
            self.insert(part.end(), back, at, rooms.next()?);
        }
        self.pages -= part.pages();
        Some(pages)
    }

    /// Takes a page out that the guest gave back; see [`Run::surely_unmapped`] for `entered_at`.
    pub(crate) fn relinquish(
        &mut self,
        gfn: Gfn,
        entered_at: u64,
        room: Reservation,
    ) -> Relinquished {
        match (self.run_at(gfn), PageRange::single(gfn)) {
            (Some(run), _) if !run.surely_unmapped(entered_at) => Relinquished::Kept,
            (Some(_), Some(page)) => Relinquished::Gone(self.cut(page, &mut Some(room))),
            _ => Relinquished::Unknown,
        }
    }

    /// Unpins everything, giving way to others now and then. The guest must be gone.
    pub(crate) fn unpin_all(&mut self) {
        while let Some(cursor) = self.records.cursor_front_mut() {
            let (_, node) = cursor.remove_current();
            let mut rest = node.to_key_value().1.pages;
            while let Some(mut pages) = rest {
                rest = pages.split_off(UNPIN_PAGES);
                drop(pages);
                sched::cond_resched();
            }
        }
        while let Some(mut entry) = self.abandoned.take() {
            self.abandoned = entry.next.take();
            drop(entry);
            sched::cond_resched();
        }
    }

    /// Leaves everything pinned for ever, because the hypervisor did not let go of it.
    pub(crate) fn leak_all(&mut self) {
        while let Some(cursor) = self.records.cursor_front_mut() {
            let (_, node) = cursor.remove_current();
            if let Some(pages) = node.to_key_value().1.pages {
                pages.leak();
            }
        }
        while let Some(entry) = self.abandoned.take() {
            let Abandoned { pages, next } = KBox::into_inner(entry);
            self.abandoned = next;
            pages.leak();
        }
    }
}
