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
            PageRange, //
        },
        pins::Mapped, //
    },
    record::{
        index,
        Pinned,
        Record,
        Reservation,
        Room,
        RECORD_BYTES, //
    }, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    }, //
};

/// What became of a page that the guest gave back.
pub(crate) enum Relinquished {
    /// It backs nothing any more.
    Gone(Option<Pinned>),
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
/// No two records overlap, and none reaches from one memory slot into another. A table may have
/// holes, and has a page at least.
pub(crate) struct Backing {
    records: RBTree<Gfn, Record>,
    count: usize,
    bytes: usize,
    /// Pages of mapping calls that failed and could not be undone. A failed call may have mapped
    /// some of them, so they stay pinned until the VM is gone.
    abandoned: Option<KBox<Abandoned>>,
    pages: u64,
}

impl Backing {
    /// Nothing is backed.
    pub(crate) fn new() -> Self {
        Self { records: RBTree::new(), count: 0, bytes: 0, abandoned: None, pages: 0 }
    }

    /// Number of pages that back the guest.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Number of records, and the bytes of memory that they occupy.
    pub(crate) fn records(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    /// Looks at the last record that starts at or in front of a frame.
    fn floor<T>(&self, gfn: Gfn, look: impl FnOnce(Gfn, &Record) -> Option<T>) -> Option<T> {
        let next = Gfn(gfn.0.checked_add(1)?);
        if let Some(cursor) = self.records.cursor_lower_bound(&next) {
            let (start, record) = cursor.peek_prev()?;
            look(*start, record)
        } else {
            let cursor = self.records.cursor_back()?;
            let (start, record) = cursor.current();
            look(*start, record)
        }
    }

    /// The first frames at or behind one that are backed, without a gap, as far as their record
    /// goes.
    pub(crate) fn next(&self, gfn: Gfn) -> Option<PageRange> {
        let here = self.floor(gfn, |start, record| record.stretch(start, gfn));
        here.or_else(|| {
            let cursor = self.records.cursor_lower_bound(&gfn)?;
            let (start, record) = cursor.current();
            record.stretch(*start, *start)
        })
    }

    /// The same within a range.
    fn first_in(&self, range: PageRange) -> Option<PageRange> {
        self.next(range.start())?.intersection(range)
    }

    /// The page behind a frame.
    pub(crate) fn mapped(&self, gfn: Gfn) -> Option<Mapped> {
        self.floor(gfn, |start, record| record.mapped(start, gfn))
    }

    /// Is a part of the range backed?
    pub(crate) fn touches(&self, range: PageRange) -> bool {
        self.first_in(range).is_some()
    }

    /// The end of what is backed from a frame on without a gap; the frame itself if it is not. Does
    /// not look further than `limit`.
    fn backed_until(&self, gfn: Gfn, limit: Gfn) -> Gfn {
        let mut end = gfn;
        while end < limit {
            match self.next(end) {
                Some(backed) if backed.start() == end => end = backed.end(),
                _ => break,
            }
        }
        end
    }

    /// The first part of the range that is not backed, in a single table or in none.
    pub(crate) fn first_gap(&self, range: PageRange) -> Option<PageRange> {
        let start = self.backed_until(range.start(), range.end());
        let rest = range.split_at(start).1?;
        let end = self.next(start).map_or(range.end(), |backed| backed.start());
        let border = match self.table_around(start) {
            Some(table) => Some(table.end()),
            None => self.records.cursor_lower_bound(&start).map(|cursor| *cursor.current().0),
        };
        rest.split_at(border.map_or(end, |border| border.min(end))).0
    }

    /// The first part of the range that is backed without a gap, at most `max` pages.
    pub(crate) fn first_backed(&self, range: PageRange, max: u64) -> Option<PageRange> {
        let start = self.first_in(range)?.start();
        let limit = Gfn(start.0.saturating_add(max).min(range.end().0));
        let end = self.backed_until(start, limit).min(limit);
        PageRange::new(start, end.0 - start.0)
    }

    /// The smallest range around one of its parts that no range of pages reaches across: cutting it
    /// out needs no room.
    pub(crate) fn uncut(&self, range: PageRange) -> PageRange {
        let across = self.floor(range.start(), |start, record| {
            let whole = record.span(start)?;
            let across = whole.contains(range.start()) && range.end() < whole.end();
            let splits = across && matches!(record.pages, Pinned::Range(_));
            splits.then(|| PageRange::new(start, range.end().0 - start.0)).flatten()
        });
        across.unwrap_or(range)
    }

    fn insert(&mut self, start: Gfn, pages: Pinned, mapped_at: u64, room: Reservation) {
        self.count += 1;
        self.bytes += RECORD_BYTES + pages.table_bytes();
        // INVARIANT: there is no record that starts there, as callers saw to it that none overlaps.
        self.records.insert(room.into_node(start, Record { pages, mapped_at }));
    }

    fn remove(&mut self, start: Gfn) -> Option<(Pinned, u64, Reservation)> {
        let record = self.records.get_mut(&start)?;
        let pages = core::mem::replace(&mut record.pages, Pinned::Table(None));
        let at = record.mapped_at;
        let node = self.records.remove_node(&start).map(RBTreeNode::into_reservation)?;
        self.count -= 1;
        self.bytes -= RECORD_BYTES + pages.table_bytes();
        Some((pages, at, node))
    }

    /// Records consecutive pages of the slot `slot` that were just mapped: in one record with those
    /// in front of and behind them where all is contiguous, or in the table around them.
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
        let Err(pages) = self.fill_hole(start, pages, at) else { return };
        if let Err(pages) = self.extend(slot, start, pages, at) {
            self.insert(start, Pinned::Range(pages), at, room);
        }
        if end < slot.end() {
            self.close_up(slot, end);
        }
    }

    /// Records the first pages as backing a range of the slot `slot`, which were just mapped: in
    /// the table that ends there, or in the one that the room has.
    pub(crate) fn add_to_table(
        &mut self,
        slot: PageRange,
        range: PageRange,
        pages: &mut PinnedPages,
        at: u64,
        room: &mut Room,
    ) {
        let Ok(count) = usize::try_from(range.pages()) else { return };
        // INVARIANT: as in `add`; no table grows across the beginning of the slot.
        self.pages += range.pages();
        let front = self.floor(range.start(), |start, record| {
            let ends_there = record.span(start)?.end() == range.start();
            (ends_there && range.start() > slot.start()).then_some(start)
        });
        if let Some(record) = front.and_then(|front| self.records.get_mut(&front)) {
            if record.append(pages, count, at) {
                return;
            }
        }
        let Room::Table(room) = room else { return };
        if let Some((node, mut table)) = room.take() {
            table.append(pages, count);
            self.insert(range.start(), Pinned::Table(Some(table)), at, node);
        }
    }

    /// Is a frame among those of a table, in a hole perhaps?
    pub(crate) fn is_in_table(&self, gfn: Gfn) -> bool {
        self.table_around(gfn).is_some()
    }

    fn table_around(&self, gfn: Gfn) -> Option<PageRange> {
        self.floor(gfn, |start, record| {
            let span = record.span(start).filter(|span| span.contains(gfn));
            span.filter(|_| matches!(record.pages, Pinned::Table(_)))
        })
    }

    /// Puts pages into the table around them.
    fn fill_hole(&mut self, gfn: Gfn, pages: PinnedRange, at: u64) -> Result<(), PinnedRange> {
        let Some(start) = self.table_around(gfn).map(|table| table.start()) else {
            return Err(pages);
        };
        let (place, record) = (index(start, gfn), self.records.get_mut(&start));
        let (Some(place), Some(record)) = (place, record) else { return Err(pages) };
        record.put(place, pages, at)
    }

    /// Joins the pages with the record in front of them, if both are contiguous.
    fn extend(
        &mut self,
        slot: PageRange,
        start: Gfn,
        pages: PinnedRange,
        at: u64,
    ) -> Result<(), PinnedRange> {
        let front = self.floor(start, |front, record| {
            // INVARIANT: nothing is joined across the beginning of the slot.
            (record.span(front)?.end() == start && start > slot.start()).then_some(front)
        });
        let Some(front) = front else { return Err(pages) };
        let Some(record) = self.records.get_mut(&front) else { return Err(pages) };
        let Pinned::Range(before) = &mut record.pages else { return Err(pages) };
        before.join(pages)?;
        record.mapped_at = record.mapped_at.max(at);
        Ok(())
    }

    /// Joins the record that starts at a frame with the one in front of it, if both are contiguous.
    fn close_up(&mut self, slot: PageRange, back: Gfn) {
        if !matches!(self.records.get(&back), Some(Record { pages: Pinned::Range(_), .. })) {
            return;
        }
        let Some((Pinned::Range(pages), at, room)) = self.remove(back) else { return };
        if let Err(pages) = self.extend(slot, back, pages, at) {
            self.insert(back, Pinned::Range(pages), at, room);
        }
    }

    /// Notes that a frame was mapped again.
    pub(crate) fn mapped_again(&mut self, gfn: Gfn, at: u64) {
        let start = self.floor(gfn, |start, record| record.mapped(start, gfn).map(|_| start));
        if let Some(record) = start.and_then(|start| self.records.get_mut(&start)) {
            record.mapped_at = record.mapped_at.max(at);
        }
    }

    /// Keeps pages whose mapping failed.
    pub(crate) fn abandon(&mut self, mut entry: KBox<Abandoned>) {
        entry.next = self.abandoned.take();
        self.abandoned = Some(entry);
    }

    /// Takes pages of a range out, the first ones and as many as can be had in one go; `None` if
    /// nothing of it is backed. `room` is needed where a record falls into two, else nothing is
    /// taken.
    pub(crate) fn cut(
        &mut self,
        range: PageRange,
        room: &mut Option<Reservation>,
    ) -> Option<Pinned> {
        let part = self.first_in(range)?;
        let (start, whole, is_table) = self.floor(part.start(), |start, record| {
            Some((start, record.span(start)?, matches!(record.pages, Pinned::Table(_))))
        })?;
        let pages = if whole.intersection(range) == Some(whole) {
            self.remove(start)?.0
        } else if is_table {
            Pinned::Range(self.cut_table(start, part)?)
        } else {
            Pinned::Range(self.cut_range(whole, part, room)?)
        };
        self.pages -= pages.count();
        Some(pages)
    }

    /// Takes a part of a record of consecutive pages out.
    fn cut_range(
        &mut self,
        whole: PageRange,
        part: PageRange,
        room: &mut Option<Reservation>,
    ) -> Option<PinnedRange> {
        let splits = whole.start() < part.start() && part.end() < whole.end();
        if splits && room.is_none() {
            return None;
        }
        let (Pinned::Range(mut pages), at, own) = self.remove(whole.start())? else { return None };
        let mut rooms = [Some(own), if splits { room.take() } else { None }].into_iter().flatten();
        let front = index(whole.start(), part.start())?;
        // INVARIANT: what is put back lies within the record that was taken out.
        if front > 0 {
            let rest = pages.split_off(front)?;
            let front = core::mem::replace(&mut pages, rest);
            self.insert(whole.start(), Pinned::Range(front), at, rooms.next()?);
        }
        if let Some(back) = pages.split_off(usize::try_from(part.pages()).ok()?) {
            self.insert(part.end(), Pinned::Range(back), at, rooms.next()?);
        }
        Some(pages)
    }

    /// Takes the first consecutive pages of a part out of a table.
    fn cut_table(&mut self, start: Gfn, part: PageRange) -> Option<PinnedRange> {
        let record = self.records.get_mut(&start)?;
        let Pinned::Table(Some(table)) = &mut record.pages else { return None };
        let max = usize::try_from(part.pages()).ok()?;
        let pages = table.take(index(start, part.start())?, max)?;
        if table.count() == 0 {
            // INVARIANT: no table is empty.
            self.remove(start)?;
        }
        Some(pages)
    }

    /// Takes a page out that the guest gave back; see [`Mapped::surely_unmapped`] for `entered_at`.
    pub(crate) fn relinquish(
        &mut self,
        gfn: Gfn,
        entered_at: u64,
        room: Reservation,
    ) -> Relinquished {
        match (self.mapped(gfn), PageRange::single(gfn)) {
            (Some(mapped), _) if !mapped.surely_unmapped(entered_at) => Relinquished::Kept,
            (Some(_), Some(page)) => Relinquished::Gone(self.cut(page, &mut Some(room))),
            _ => Relinquished::Unknown,
        }
    }

    /// Unpins everything, giving way to others now and then. The guest must be gone.
    pub(crate) fn unpin_all(&mut self) {
        while let Some(cursor) = self.records.cursor_front_mut() {
            let (_, node) = cursor.remove_current();
            node.to_key_value().1.pages.unpin();
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
            node.to_key_value().1.pages.leak();
        }
        while let Some(entry) = self.abandoned.take() {
            let Abandoned { pages, next } = KBox::into_inner(entry);
            self.abandoned = next;
            pages.leak();
        }
    }
}
