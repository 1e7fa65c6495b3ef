// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Properties of the model that hold for any input.

use gzvm_abi::{run, uapi};
use gzvm_model::addr::{Gfn, PageRange};
use gzvm_model::claims::Claims;
use gzvm_model::destroy::{Destruction, Step};
use gzvm_model::exit::{self, Exit};
use gzvm_model::fault::{self, Paging};
use gzvm_model::ioeventfd::{self, Entry, Pattern, Table};
use gzvm_model::refusal::Result;
use gzvm_model::slots::{Request, Slot, SlotTable};
use gzvm_model::store::Store;
use gzvm_model::{caps, device, irq, irqfd, pins, reg, ticks, tunables};
use proptest::prelude::*;

/// The host's vector as a store.
struct Vector<T>(Vec<T>);

impl<T> Store<T> for Vector<T> {
    fn entries(&self) -> &[T] {
        &self.0
    }

    fn entries_mut(&mut self) -> &mut [T] {
        &mut self.0
    }

    fn insert(&mut self, at: usize, entry: T) -> Result<()> {
        self.0.insert(at, entry);
        Ok(())
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        (at < self.0.len()).then(|| self.0.remove(at))
    }
}

fn range() -> impl Strategy<Value = PageRange> {
    (0u64..4096, 1u64..700)
        .prop_map(|(start, pages)| PageRange::new(Gfn(start), pages).expect("a small range"))
}

proptest! {
    /// Whatever is asked of the slots, no two overlap, numbers are unique, and a look-up finds what
    /// a search through all of them finds.
    #[test]
    fn slots_stay_disjoint_and_findable(
        steps in proptest::collection::vec((0u32..40, range(), any::<bool>()), 1..200),
        probes in proptest::collection::vec(0u64..5000, 20),
    ) {
        let mut table = SlotTable::new(Vector(Vec::new()));
        for (id, range, delete) in steps {
            let before = table.slots().to_vec();
            if delete {
                prop_assert_eq!(table.remove(id), before.iter().find(|slot| slot.id == id).copied());
            } else if table.insert(Slot { id, range, hva: 0x1000, purpose: 1 }).is_err() {
                prop_assert_eq!(table.slots(), &before[..], "a refusal changes nothing");
            }
            for (index, slot) in table.slots().iter().enumerate() {
                for other in &table.slots()[index + 1..] {
                    prop_assert!(!slot.range.overlaps(other.range) && slot.id != other.id);
                    prop_assert!(slot.range.end() <= other.range.start(), "sorted");
                }
            }
        }
        for gfn in probes.into_iter().map(Gfn) {
            let slow = table.slots().iter().find(|slot| slot.range.contains(gfn));
            prop_assert_eq!(table.find(gfn), slow);
        }
    }

    /// Any region is refused, or becomes a slot whose every address is in bounds.
    #[test]
    fn slot_requests_never_wrap(
        slot in any::<u32>(), flags in 0u32..8, gpa in any::<u64>(), size in any::<u64>(),
        hva in any::<u64>(), ipa_bits in 32u32..=52,
    ) {
        // Aligned values are what gets far.
        for mask in [0, 0xfff] {
            let region = uapi::UserspaceMemoryRegion {
                slot: slot % 2048,
                flags,
                guest_phys_addr: gpa & !mask,
                memory_size: size & !mask,
                userspace_addr: hva & !mask,
            };
            if let Ok(Request::Set(slot)) = Request::parse(&region, ipa_bits) {
                prop_assert!(slot.range.end().gpa() <= 1 << ipa_bits);
                prop_assert!(slot.hva.checked_add(slot.range.bytes()).is_some());
                let last = Gfn(slot.range.end().0 - 1);
                prop_assert_eq!(slot.hva_of(last), slot.hva + slot.range.bytes() - 4096);
            }
        }
    }

    /// A fault brings in the page that faulted, stays within slot and block, and never touches two
    /// blocks.
    #[test]
    fn faults_stay_in_their_window(slot in range(), at in 0u64..700, partly in any::<bool>()) {
        let gfn = Gfn(slot.start().0 + at % slot.pages());
        for paging in [Paging::Page, Paging::Block, Paging::Populate] {
            let window = fault::window(gfn, paging).expect("a small frame number");
            let pages = fault::pages(gfn, window, slot, partly).expect("the page is in the slot");
            prop_assert!(pages.contains(gfn));
            prop_assert_eq!(pages.intersection(slot), Some(pages));
            prop_assert_eq!(pages.intersection(window), Some(pages));
            prop_assert_eq!(pages.start().0 / 512, (pages.end().0 - 1) / 512);
            if partly {
                prop_assert_eq!(pages.pages(), 1);
            }
        }
    }

    /// Chunks are consecutive, not too long, and cover the range.
    #[test]
    fn chunks_cover(range in range(), size in 0u64..600) {
        let chunks: Vec<_> = range.chunks(size).collect();
        prop_assert_eq!(chunks.first().map(|chunk| chunk.start()), Some(range.start()));
        prop_assert_eq!(chunks.last().map(|chunk| chunk.end()), Some(range.end()));
        prop_assert!(chunks.windows(2).all(|pair| pair[0].end() == pair[1].start()));
        prop_assert!(chunks.iter().all(|chunk| chunk.pages() <= size.max(1)));
    }

    /// A claim is granted exactly if it overlaps no other one.
    #[test]
    fn claims_exclude_each_other(
        steps in proptest::collection::vec((range(), any::<bool>()), 1..60),
    ) {
        let mut claims = Claims::new(Vector(Vec::new()));
        let mut held: Vec<PageRange> = Vec::new();
        for (range, release) in steps {
            if let (true, Some(oldest)) = (release, held.first().copied()) {
                claims.release(oldest);
                held.remove(0);
            }
            let free = !held.iter().any(|other| other.overlaps(range));
            prop_assert_eq!(claims.claim(range), Ok(free));
            if free {
                held.push(range);
            }
        }
    }

    /// What a change takes from a slot is what the changed addresses back, to the byte.
    #[test]
    fn changes_take_what_they_back(range in range(), start in 0u64..6000, pages in 1u64..6000) {
        let slot = Slot { id: 0, range, hva: 1000 * 4096, purpose: 0 };
        let (start, end) = (start * 4096, (start + pages) * 4096);
        let taken = slot.backed_by(start, end);
        for gfn in (range.start().0..range.end().0).map(Gfn) {
            let changed = (start..end).contains(&slot.hva_of(gfn));
            prop_assert_eq!(taken.is_some_and(|taken| taken.contains(gfn)), changed);
        }
        prop_assert!(taken.is_none_or(|taken| taken.intersection(range) == Some(taken)));
        // A part of a page is the page.
        prop_assert_eq!(slot.backed_by(start + 1, end - 1), taken);
    }

    /// Stretches are all entries with a page, each once, and end at gaps.
    #[test]
    fn stretches_are_what_is_there(has in proptest::collection::vec(any::<bool>(), 0..64), from in 0usize..70) {
        let (mut found, mut at) = (vec![false; has.len()], from);
        while let Some((start, pages)) = pins::stretch(has.len(), at, |at| has[at]) {
            prop_assert!(pages > 0 && start >= at);
            found[start..start + pages].fill(true);
            at = start + pages;
            prop_assert!(has.get(at) != Some(&true));
        }
        let behind: Vec<_> = has.iter().enumerate().map(|(at, has)| *has && at >= from).collect();
        prop_assert_eq!(found, behind);
    }

    /// Pages get records for their runs exactly if a record and a table would not take less.
    #[test]
    fn records_take_the_least(record in 1usize..200, table in 0usize..5000, runs in 1usize..600) {
        let fewer = runs <= pins::most_runs(record, table);
        prop_assert_eq!(fewer, runs * record <= record + table);
    }

    /// Any exit decodes without a panic, and only what a VMM understands goes to it.
    #[test]
    fn any_exit_decodes(reason in any::<u64>(), words in proptest::array::uniform32(any::<u64>())) {
        let shared = run::Run { payload: words, ..Default::default() };
        for reason in [reason, 0x9292_0000 | (reason % 16)] {
            if let Exit::User(_) = exit::decode(reason, &shared) {
                prop_assert!((1..=9).contains(&((reason as u32).wrapping_sub(run::EXIT_UNKNOWN))));
            }
            prop_assert!(exit::index(reason) < exit::NAMES.len());
        }
    }

    /// What the VMM answers changes nothing but the answer's own fields.
    #[test]
    fn answers_touch_only_their_fields(
        ours in proptest::array::uniform32(any::<u64>()),
        theirs in proptest::array::uniform32(any::<u64>()),
    ) {
        let before = run::Run { payload: ours, ..Default::default() };
        let answer = run::Run { payload: theirs, immediate_exit: 7, ..Default::default() };
        let mut shared = before;
        exit::Completion::None.apply(&answer, &mut shared);
        prop_assert_eq!(shared, before);
        exit::Completion::MmioRead.apply(&answer, &mut shared);
        prop_assert_eq!(shared.payload[1], theirs[1]);
        shared.payload[1] = ours[1];
        prop_assert_eq!(shared, before);
        exit::Completion::Hypercall.apply(&answer, &mut shared);
        prop_assert_eq!(&shared.payload[..8], &theirs[..8]);
        prop_assert_eq!(&shared.payload[8..], &ours[8..]);
    }

    /// No write matches two patterns, and the look-up finds what a search finds.
    #[test]
    fn ioeventfds_are_unambiguous(
        patterns in proptest::collection::vec((0u64..4, 0usize..5, proptest::option::of(0u64..3)), 1..40),
        write in (0u64..4, 0usize..4, 0u64..4),
    ) {
        struct Plain(Pattern);
        impl Entry for Plain {
            fn pattern(&self) -> &Pattern {
                &self.0
            }
        }
        let mut table = Table::new(Vector(Vec::new()));
        let mut accepted = Vec::new();
        for (addr, len, data) in patterns {
            let len = [0, 1, 2, 4, 8][len];
            let pattern = Pattern { addr, len, data: data.filter(|_| len != 0) };
            if table.insert(Plain(pattern)).is_ok() {
                accepted.push(pattern);
            }
        }
        let write = run::Mmio {
            phys_addr: write.0,
            size: [1, 2, 4, 8][write.1],
            data: write.2.to_le_bytes(),
            is_write: 1,
            ..Default::default()
        };
        let matching: Vec<_> = accepted.iter().filter(|pattern| pattern.matches(&write)).collect();
        prop_assert!(matching.len() <= 1);
        let found = table.find::<Plain>(&write).map(|entry| &entry.0);
        prop_assert_eq!(found, matching.first().copied());
    }

    /// Garbage in ioctl arguments never panics.
    #[test]
    fn garbage_is_decided_upon(words in proptest::array::uniform8(any::<u64>()), bytes in any::<[u8; 24]>()) {
        let low = |index: usize| words[index] as u32;
        let _ = irq::decode(low(0), 8, Some(96));
        let _ = reg::size(words[0]);
        let _ = device::check(&uapi::CreateDevice { dev_type: low(0) % 4, attr_addr: words[1], attr_size: words[2], ..Default::default() });
        let _ = irqfd::parse(&uapi::Irqfd { flags: low(0) % 8, resamplefd: low(1), ..Default::default() });
        let _ = ioeventfd::parse(&uapi::Ioeventfd {
            datamatch: words[0], addr: words[1], len: low(2) % 9, fd: 0, flags: low(3) % 16, pad: [0; 36],
        });
        let _ = caps::enable(&uapi::EnableCap { cap: words[0], args: [words[1]; 5] }, &caps::Limits::default());
        let _ = (tunables::demand_batch(&bytes), tunables::destroy_batch(&bytes));
        let limits = caps::Limits::from_answer(words[0]);
        prop_assert!((1..=caps::VCPU_CAP).contains(&limits.vcpus) && (32..=52).contains(&limits.ipa_bits));
    }

    /// Ticks convert exactly, rounded up, for any frequency; only what is longer than the limit is
    /// cut.
    #[test]
    fn ticks_convert_exactly(count in any::<u64>(), hz in 1u32..=2_000_000_000) {
        let exact = (u128::from(count) * 1_000_000_000).div_ceil(u128::from(hz));
        prop_assert_eq!(u128::from(ticks::to_ns(count, hz)), exact.min(u128::from(ticks::MAX_NS)));
    }

    /// Destruction comes to an end whatever the hypervisor answers.
    #[test]
    fn destruction_ends(pages in 0u64..1 << 20, batch in any::<u32>(), answers in proptest::collection::vec(any::<u64>(), 1..50)) {
        let mut destruction = Destruction::new(pages, batch);
        for answer in answers {
            prop_assert_ne!(destruction.after(answer) == Step::Done, answer as u32 != 0);
        }
    }
}
