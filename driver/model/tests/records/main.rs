// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The driver's records of pinned pages, in the driver's own files, against a list with an entry for
//! each frame: whatever comes and goes, both know the same, and each pin is given back once.
#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    unexpected_cfgs,
    clippy::missing_safety_doc,
    clippy::new_without_default,
    reason = "parts of the kernel module, and of the kernel, in another place"
)]

extern crate self as kernel;

#[path = "../../../backing.rs"]
mod backing;
#[path = "kernel.rs"]
mod host_kernel;
#[path = "../../../record.rs"]
mod record;

use host_kernel::ffi;
pub use host_kernel::{bindings, error, mm, page, prelude, rbtree, sync, Task};

#[path = "../../../kx/gup.rs"]
mod gup;
#[path = "../../../kx/pin_table.rs"]
mod pin_table;

mod kx {
    pub(crate) use super::{gup, pin_table, sched};
}

mod model {
    pub(crate) use gzvm_model::{addr, pins};
}

mod ratelimit {
    macro_rules! info_limited {
        ($($text:tt)*) => {
            let _ = format_args!($($text)*);
        };
    }
    pub(crate) use info_limited;
}

mod sched {
    pub(crate) fn cond_resched() {}
}

use backing::{Backing, Relinquished};
use gup::PinOwner;
use gzvm_model::addr::{Gfn, PageRange};
use host_kernel::host;
use prelude::*;
use proptest::prelude::{any, prop_oneof, proptest, Strategy};
use record::{Pinned, Reservation, Room};

/// Frames of the guest, in two slots.
const FRAMES: u64 = 2000;
const BORDER: u64 = 700;
const BLOCK: u64 = 512;

/// What happens to a guest's memory.
#[derive(Clone, Debug)]
enum Step {
    /// The guest touches a frame: its block comes in, or it alone. Frames of the host are
    /// consecutive in runs of so many. Another vCPU gives `other` back between two batches.
    Fault { gfn: u64, run: usize, batch: u64, other: u64 },
    /// All of a range that is missing comes in.
    Populate { start: u64, pages: u64, run: usize, batch: u64 },
    /// The guest gives every so many-th frame back.
    GiveBack { start: u64, pages: u64, step: usize },
    /// The owner takes a range, with memory for a record or without.
    Take { start: u64, pages: u64, room: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let run = || prop_oneof![1usize..2, 1usize..20, 200usize..600];
    let batch = || prop_oneof![1u64..2, 16u64..17, 64u64..65, 512u64..513];
    let pages = || prop_oneof![1u64..2, 1u64..40, 1u64..FRAMES];
    prop_oneof![
        4 => (0..FRAMES, run(), batch(), 0..FRAMES)
            .prop_map(|(gfn, run, batch, other)| Step::Fault { gfn, run, batch, other }),
        1 => (0..FRAMES, pages(), run(), batch())
            .prop_map(|(start, pages, run, batch)| Step::Populate { start, pages, run, batch }),
        3 => (0..FRAMES, pages(), 1usize..9)
            .prop_map(|(start, pages, step)| Step::GiveBack { start, pages, step }),
        3 => (0..FRAMES, pages(), any::<bool>())
            .prop_map(|(start, pages, room)| Step::Take { start, pages, room }),
    ]
}

/// So many frames of the guest, as far as there are.
fn range(start: u64, pages: u64) -> PageRange {
    PageRange::new(Gfn(start), pages.min(FRAMES - start)).expect("a frame at least")
}

fn frames(range: PageRange) -> impl Iterator<Item = usize> {
    range.start().0 as usize..range.end().0 as usize
}

fn slot_of(gfn: u64) -> PageRange {
    if gfn < BORDER {
        range(0, BORDER)
    } else {
        range(BORDER, FRAMES)
    }
}

fn block_of(gfn: u64) -> PageRange {
    range(gfn - gfn % BLOCK, BLOCK)
}

/// What the records should know of a frame: the host's frame, and when it was mapped.
type Known = Option<(u64, u64)>;

struct Guest {
    /// Memory comes by blocks when it is touched; else it is populated, and comes back by pages. A
    /// VM has one or the other.
    blocks: bool,
    owner: PinOwner,
    backing: Backing,
    known: Vec<Known>,
    mappings: u64,
    /// The next frame of the host that nobody had yet.
    fresh: usize,
}

impl Guest {
    fn new(blocks: bool) -> Self {
        host(|host| *host = host_kernel::Host::default());
        let owner = PinOwner::current().expect("an owner");
        Self {
            blocks,
            owner,
            backing: Backing::new(),
            known: vec![None; FRAMES as usize],
            mappings: 0,
            fresh: 0,
        }
    }

    fn follow(&mut self, step: &Step) {
        match *step {
            Step::Fault { gfn, .. } if self.known[gfn as usize].is_some() => {
                self.mappings += 1;
                self.backing.mapped_again(Gfn(gfn), self.mappings);
                self.known[gfn as usize].as_mut().expect("a page").1 = self.mappings;
            }
            Step::Fault { gfn, run, batch, other } => {
                let window = block_of(gfn);
                let range = if !self.blocks || self.backing.touches(window) {
                    range(gfn, 1)
                } else {
                    window.intersection(slot_of(gfn)).expect("the frame")
                };
                self.map(range, run, batch, Some(other));
            }
            Step::Populate { .. } if self.blocks => {}
            Step::Populate { start, pages, run, batch } => {
                let slot = slot_of(start);
                let range = range(start, pages).intersection(slot).expect("the first frame");
                while let Some(gap) = self.backing.first_gap(range) {
                    self.map(gap, run, batch, None);
                }
            }
            Step::GiveBack { start, pages, step } => {
                frames(range(start, pages))
                    .step_by(step)
                    .for_each(|gfn| self.give_back(gfn as u64));
            }
            Step::Take { start, pages, room } => {
                let mut room = room.then(|| Reservation::new(GFP_KERNEL).expect("memory"));
                let mut range = range(start, pages);
                if room.is_none() {
                    range = self.backing.uncut(range);
                }
                while let Some(part) = self.backing.first_backed(range, 1 << 15) {
                    let pages = self.backing.cut(part, &mut room).expect("room");
                    self.gone(part, pages);
                }
            }
        }
    }

    /// As `Pages::map` does it.
    fn map(&mut self, range: PageRange, run: usize, batch: u64, mut other: Option<u64>) {
        for (index, gfn) in frames(range).enumerate() {
            self.fresh += 1 + usize::from(index % run == 0);
            host(|host| host.mapped.insert(gfn, self.fresh));
        }
        let first = usize::try_from(range.start().gpa()).expect("an address");
        let mut pages = self.owner.pin(first, range.pages() as usize).expect("pages");
        let frames_of_host: Vec<_> = pages.pfns(usize::MAX).collect();
        let mut room = match Room::new(&pages) {
            Room::Table(_) if self.backing.is_in_table(range.start()) => Room::runs(),
            room => room,
        };
        for batch in range.chunks(batch) {
            room.fill(&pages, batch.pages() as usize).expect("memory");
            if batch.start() != range.start() {
                other.take().into_iter().for_each(|gfn| self.give_back(gfn));
            }
            self.mappings += 1;
            for gfn in frames(batch) {
                let frame = frames_of_host[gfn - range.start().0 as usize];
                assert_eq!(self.known[gfn].replace((frame, self.mappings)), None);
            }
            let (slot, at) = (slot_of(range.start().0), self.mappings);
            let Room::Runs(nodes) = &mut room else {
                self.backing.add_to_table(slot, batch, &mut pages, at, &mut room);
                continue;
            };
            let mut rest = Some(batch);
            while let Some(part) = rest {
                let run = pages.take_run(part.pages() as usize).expect("pages");
                let (next, node) = (Gfn(part.start().0 + run.count() as u64), nodes.pop());
                self.backing.add(slot, part.start(), run, at, node.expect("room"));
                (_, rest) = part.split_at(next);
            }
        }
        assert_eq!(pages.left(), 0, "all is recorded");
    }

    fn give_back(&mut self, gfn: u64) {
        let room = Reservation::new(GFP_KERNEL).expect("memory");
        match self.backing.relinquish(Gfn(gfn), self.mappings, room) {
            Relinquished::Gone(pages) => self.gone(range(gfn, 1), pages.expect("the page")),
            Relinquished::Unknown => assert_eq!(self.known[gfn as usize], None),
            Relinquished::Kept => panic!("nothing was mapped since"),
        }
    }

    /// The first pages of a range that are backed were taken out.
    fn gone(&mut self, range: PageRange, pages: Pinned) {
        let count = pages.count() as usize;
        assert!(count > 0);
        let before = host(|host| host.pins.len());
        if count.is_multiple_of(2) {
            pages.unpin();
        } else {
            pages.unpin_unlocked();
        }
        assert_eq!(host(|host| host.pins.len()), before - count);
        let backed = frames(range).filter(|gfn| self.known[*gfn].is_some());
        let first: Vec<_> = backed.take(count).collect();
        for gfn in first {
            let (frame, _) = self.known[gfn].take().expect("a page");
            assert!(host(|host| !host.pins.contains_key(&(frame as usize))), "another page went");
        }
    }

    /// Both know the same.
    fn check(&self, range: PageRange) {
        let pinned: Vec<_> =
            self.known.iter().flatten().map(|(frame, _)| *frame as usize).collect();
        assert_eq!(self.backing.pages(), pinned.len() as u64);
        host(|host| {
            assert_eq!((host.charged, host.pins.len()), (pinned.len(), pinned.len()));
            assert!(pinned.iter().all(|frame| host.pins.get(frame) == Some(&1)));
        });
        for (gfn, known) in self.known.iter().enumerate() {
            let mapped = self.backing.mapped(Gfn(gfn as u64));
            assert_eq!(mapped.map(|mapped| mapped.pfn.0), known.map(|(frame, _)| frame));
            // Of a record, the latest counts.
            assert!(mapped.zip(*known).is_none_or(|(mapped, (_, at))| mapped.mapped_at >= at));
        }
        let is_backed = |gfn: &usize| self.known[*gfn].is_some();
        let backed = frames(range).find(is_backed);
        assert_eq!(self.backing.touches(range), backed.is_some());
        let part = self.backing.first_backed(range, u64::MAX);
        assert_eq!(part.map(|part| part.start().0 as usize), backed);
        for part in part.into_iter() {
            assert!(frames(part).all(|gfn| is_backed(&gfn)));
            assert!(part.end() == range.end() || !is_backed(&(part.end().0 as usize)), "all of it");
        }
        let gap = self.backing.first_gap(range);
        assert_eq!(
            gap.map(|gap| gap.start().0 as usize),
            frames(range).find(|gfn| !is_backed(gfn))
        );
        assert!(gap.is_none_or(|gap| frames(gap).all(|gfn| !is_backed(&gfn))));
    }
}

proptest! {
    #[test]
    fn records_know_what_is_pinned(
        steps in proptest::collection::vec((step(), 0..FRAMES, 1..FRAMES), 1..60),
        leak in any::<bool>(),
        blocks in any::<bool>(),
    ) {
        let mut guest = Guest::new(blocks);
        for (step, start, pages) in &steps {
            guest.follow(step);
            guest.check(range(*start, *pages));
        }
        let pinned = guest.backing.pages() as usize;
        if leak {
            guest.backing.leak_all();
        } else {
            guest.backing.unpin_all();
        }
        drop(guest);
        let left = if leak { pinned } else { 0 };
        assert_eq!(host(|host| (host.pins.len(), host.charged)), (left, left));
    }
}

/// In any order, 512 scattered pages take no more memory than a word each and one record.
#[test]
fn w30_scattered_pages_take_a_word_each() {
    let mut guest = Guest::new(true);
    guest.map(range(1024, BLOCK), 1, 64, None);
    let all = guest.backing.records();
    assert!(all.0 == 1 && all.1 <= 512 * 8 + 128, "{all:?}");
    for gfn in (1024..1536).map(|gfn| 1024 + gfn * 181 % 512) {
        guest.give_back(gfn);
        guest.map(range(gfn, 1), 1, 1, None);
        assert_eq!(guest.backing.records(), all);
    }
    (1024..1536).rev().for_each(|gfn| guest.give_back(gfn));
    assert_eq!(guest.backing.records(), (0, 0));
    guest.check(range(0, FRAMES));
}
