// SPDX-License-Identifier: Apache-2.0
//! Long random histories of hosts and guests: whatever they ask for, every page has one owner, the
//! tables follow, refused calls change nothing, and everything comes back wiped.

use super::*;
use crate::stage2::{Kind, Leaf};
use crate::testing::FakeHardware;
use proptest::prelude::*;

/// The host's pages are frames 0x200 to 0x200 + HOST_PAGES; the pool follows.
const FIRST: u64 = 0x200;
const HOST_PAGES: u64 = 24;
const ALL_PAGES: usize = 260;
const VMS: usize = 3;
/// Guest frames that histories use: in two tables.
const GFNS: [u64; 6] = [0x80000, 0x80001, 0x80002, 0x80003, 0x80200, 0x80201];
const MARK: u64 = 0x5ec7_e751;

#[derive(Clone, Debug)]
enum Op {
    Create { vm: usize },
    Map { vm: usize, gfn: usize, pfns: Vec<u64>, private: bool },
    Open { vm: usize, gfn: usize },
    Close { vm: usize, gfn: usize },
    Unmap { vm: usize, gfn: usize },
    UnmapRange { vm: usize, gfn: usize, pages: u64 },
    Guard { vm: usize, gfn: usize, allow: bool },
    Protect { vm: usize },
    Pin { pfn: u64 },
    Unpin { pfn: u64 },
    HostAccess { pfn: u64, user: bool, fetch: bool },
    Teardown { vm: usize, budget: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let vm = 0..VMS;
    let gfn = 0..GFNS.len();
    // Some of the frames are the hypervisor's or no memory at all.
    let pfn = FIRST - 1..FIRST + HOST_PAGES + 2;
    prop_oneof![
        2 => vm.clone().prop_map(|vm| Op::Create { vm }),
        6 => (vm.clone(), gfn.clone(), prop::collection::vec(pfn.clone(), 1..4), any::<bool>())
            .prop_map(|(vm, gfn, pfns, private)| Op::Map { vm, gfn, pfns, private }),
        2 => (vm.clone(), gfn.clone()).prop_map(|(vm, gfn)| Op::Open { vm, gfn }),
        2 => (vm.clone(), gfn.clone()).prop_map(|(vm, gfn)| Op::Close { vm, gfn }),
        2 => (vm.clone(), gfn.clone()).prop_map(|(vm, gfn)| Op::Unmap { vm, gfn }),
        2 => (vm.clone(), gfn.clone(), 1u64..0x300)
            .prop_map(|(vm, gfn, pages)| Op::UnmapRange { vm, gfn, pages }),
        1 => (vm.clone(), gfn, any::<bool>())
            .prop_map(|(vm, gfn, allow)| Op::Guard { vm, gfn, allow }),
        1 => vm.clone().prop_map(|vm| Op::Protect { vm }),
        1 => pfn.clone().prop_map(|pfn| Op::Pin { pfn }),
        1 => pfn.clone().prop_map(|pfn| Op::Unpin { pfn }),
        3 => (pfn, any::<bool>(), any::<bool>())
            .prop_map(|(pfn, user, fetch)| Op::HostAccess { pfn, user, fetch }),
        2 => (vm, 1u32..3).prop_map(|(vm, budget)| Op::Teardown { vm, budget }),
    ]
}

fn states() -> Vec<Page> {
    (0..ALL_PAGES as u64)
        .map(|n| if n < HOST_PAGES { Page::FREE } else { Page::Hypervisor })
        .collect()
}

fn build<'a>(hw: &FakeHardware, states: &'a mut [Page]) -> Memory<'a> {
    let host_end = (FIRST + HOST_PAGES) * PAGE_SIZE;
    let pool = Pool::new(host_end, (FIRST + ALL_PAGES as u64) * PAGE_SIZE);
    let mut memory = Memory::new(hw, Pages::new(FIRST, states), pool, 8).expect("room");
    memory.map_identity(hw, FIRST * PAGE_SIZE, host_end, Kind::Memory).expect("identity map");
    memory
}

/// Addresses and leaves of one address space.
type Leaves = Vec<(u64, Leaf)>;

/// All that a refused call must not change: owners and translations.
fn snapshot(memory: &Memory<'_>, hw: &FakeHardware) -> (Vec<(u64, Page)>, Vec<Leaves>) {
    let mut spaces = vec![Vec::new()];
    memory.host.for_each(hw, 0, |ipa, walk| spaces[0].push((ipa, walk.leaf)));
    for guest in memory.guests.iter().flatten() {
        let mut leaves = Vec::new();
        guest.s2.for_each(hw, 0, |ipa, walk| leaves.push((ipa, walk.leaf)));
        spaces.push(leaves);
    }
    (memory.pages.iter().collect(), spaces)
}

/// The history's own notes: which VMs are being torn down, and who pinned what.
#[derive(Default)]
struct Notes {
    dying: [bool; VMS],
    pins: Vec<u64>,
}

fn apply(memory: &mut Memory<'_>, hw: &FakeHardware, notes: &mut Notes, op: &Op) -> bool {
    let ipa = |gfn: &usize| GFNS[*gfn] * PAGE_SIZE;
    let alive = |vm: &usize| !notes.dying[*vm];
    match op {
        Op::Create { vm } => memory.create(hw, *vm).is_ok(),
        Op::Map { vm, gfn, pfns, private } if alive(vm) => {
            memory.map(hw, *vm, GFNS[*gfn], pfns, *private).is_ok()
        }
        Op::Open { vm, gfn } if alive(vm) => memory.open(hw, *vm, ipa(gfn)).is_ok(),
        Op::Close { vm, gfn } if alive(vm) => memory.close(hw, *vm, ipa(gfn)).is_ok(),
        Op::Unmap { vm, gfn } if alive(vm) => memory.unmap(hw, *vm, ipa(gfn)).is_ok(),
        Op::UnmapRange { vm, gfn, pages } if alive(vm) => {
            unmap_all(memory, hw, *vm, GFNS[*gfn], *pages)
        }
        Op::Guard { vm, gfn, allow } if alive(vm) => {
            memory.guard(hw, *vm, ipa(gfn), *allow).is_ok()
        }
        Op::Protect { vm } if alive(vm) => {
            let protect = |memory: &mut Memory<'_>| memory.protect(hw, *vm, 1, |ipa| ipa & 1 != 0);
            loop {
                match protect(memory) {
                    Ok(Progress::More) => (),
                    other => break other.is_ok(),
                }
            }
        }
        Op::Pin { pfn } => {
            let pinned = memory.pin(pfn * PAGE_SIZE, 1).is_ok();
            if pinned {
                notes.pins.push(*pfn);
            }
            pinned
        }
        Op::Unpin { pfn } => match notes.pins.iter().position(|p| p == pfn) {
            Some(index) => {
                notes.pins.swap_remove(index);
                memory.unpin(pfn * PAGE_SIZE, 1);
                true
            }
            None => false,
        },
        Op::HostAccess { pfn, user, fetch } => {
            let access = HostAccess { ipa: pfn * PAGE_SIZE, user: *user, fetch: *fetch };
            let fault = memory.host_fault(hw, access);
            let leaf = memory.host.walk(hw, access.ipa).leaf;
            // What is retried must then succeed, and never reach a page that is not the host's.
            if fault == HostFault::Retry {
                let Leaf::Mapped(pa) = leaf else { panic!("retry of {access:?} faults again") };
                assert!(pa == memory.scratch || memory.pages.get(*pfn).host_sees());
            }
            fault == HostFault::Retry
        }
        Op::Teardown { vm, budget } => {
            if !notes.dying[*vm] {
                memory.begin_teardown(hw, *vm);
            }
            let progress = memory.teardown(hw, *vm, *budget);
            notes.dying[*vm] = progress == Ok(Progress::More);
            progress.is_ok()
        }
        _ => false,
    }
}

/// Unmaps a range in as many calls as it takes; nothing is left in it, and all else is as it was.
fn unmap_all(memory: &mut Memory<'_>, hw: &FakeHardware, vm: usize, gfn: u64, pages: u64) -> bool {
    let (start, end) = (gfn * PAGE_SIZE, (gfn + pages) * PAGE_SIZE);
    let Ok(s2) = memory.guest(vm).map(|guest| guest.s2) else { return false };
    let outside = |s2: &Stage2| {
        let mut leaves = Vec::new();
        s2.for_each(hw, 0, |ipa, walk| leaves.push((ipa, walk.leaf)));
        leaves.retain(|(ipa, _)| !(start..end).contains(ipa));
        leaves
    };
    let before = outside(&s2);
    let mut done = 0;
    while done < pages {
        let step = memory.unmap_range(hw, vm, gfn + done, pages - done).expect("a VM and a range");
        assert!((1..=pages - done).contains(&step), "{step} of {}", pages - done);
        done += step;
    }
    assert_eq!(outside(&s2), before);
    check_states(memory, hw, vm, gfn, pages);
    assert_eq!(memory.range_state(hw, vm, gfn, 1), Ok((Presence::Absent, 1)));
    s2.for_each(hw, 0, |ipa, _| assert!(!(start..end).contains(&ipa)));
    true
}

/// What a range is said to be, page by page and in one, is what tables and owners say.
fn check_states(memory: &Memory<'_>, hw: &FakeHardware, vm: usize, gfn: u64, pages: u64) {
    let state = |gfn: u64| match memory.lookup(hw, vm, gfn * PAGE_SIZE) {
        Ok(Leaf::Mapped(pa)) if memory.page(pa / PAGE_SIZE).host_sees() => Presence::Shared,
        Ok(Leaf::Mapped(_)) => Presence::Private,
        _ => Presence::Absent,
    };
    let mut at = gfn;
    while at < gfn + pages {
        let left = gfn + pages - at;
        let (presence, count) = memory.range_state(hw, vm, at, left).expect("a range");
        assert!((1..=left).contains(&count));
        assert!((at..at + count).all(|gfn| state(gfn) == presence));
        at += count;
    }
}

/// A VM marks what it has; whatever the host gets back must not show the mark.
fn check_secrets(memory: &Memory<'_>, hw: &FakeHardware) {
    for (pfn, state) in memory.pages.iter() {
        match state {
            Page::Guest { .. } => hw.write(pfn * PAGE_SIZE, MARK),
            Page::Host { .. } => assert_ne!(hw.read(pfn * PAGE_SIZE), MARK, "frame {pfn:#x}"),
            _ => (),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_every_promise(ops in prop::collection::vec(op(), 1..60)) {
        let hw = FakeHardware::new(FIRST * PAGE_SIZE, ALL_PAGES);
        let mut states = states();
        let mut memory = build(&hw, &mut states);
        let mut notes = Notes::default();
        let idle = memory.audit(&hw);
        for op in &ops {
            let before = snapshot(&memory, &hw);
            if !apply(&mut memory, &hw, &mut notes, op) {
                prop_assert!(before == snapshot(&memory, &hw), "refused {:?} changed something", op);
            }
            prop_assert_eq!(memory.audit(&hw).wrong, 0, "after {:?}", op);
            check_secrets(&memory, &hw);
            for vm in (0..VMS).filter(|vm| memory.guest(*vm).is_ok()) {
                check_states(&memory, &hw, vm, GFNS[0] - 1, 0x300);
            }
        }
        for vm in 0..VMS {
            memory.begin_teardown(&hw, vm);
            while memory.teardown(&hw, vm, 1) == Ok(Progress::More) {}
        }
        check_secrets(&memory, &hw);
        for pfn in &notes.pins {
            memory.unpin(pfn * PAGE_SIZE, 1);
        }
        prop_assert_eq!(memory.audit(&hw), idle);
        prop_assert!(memory.pages.iter().take(HOST_PAGES as usize).all(|(_, p)| p == Page::FREE));
    }
}

/// A memory with one VM in slot 0.
fn with_vm<R>(test: impl FnOnce(&FakeHardware, &mut Memory<'_>) -> R) -> R {
    let hw = FakeHardware::new(FIRST * PAGE_SIZE, ALL_PAGES);
    let mut states = states();
    let mut memory = build(&hw, &mut states);
    memory.create(&hw, 0).expect("free slot");
    test(&hw, &mut memory)
}

#[test]
fn given_pages_are_invalidated_before_the_guest_sees_them() {
    with_vm(|hw, memory| {
        let before = hw.invalidations().len();
        memory.map(hw, 0, GFNS[0], &[FIRST, FIRST + 1], true).expect("free pages");
        let host = memory.host_space();
        let new = hw.invalidations().split_off(before);
        assert_eq!(new, [(host, crate::hw::Invalidate::All)]);
        assert_eq!(memory.host.walk(hw, FIRST * PAGE_SIZE).leaf, Leaf::Absent(0));
    });
}

#[test]
fn the_quota_is_an_error_and_changes_nothing() {
    with_vm(|hw, memory| {
        // Two tables for each frame so far apart; eight pages of quota, of which two are roots.
        let far = |n: u64| (n << 30) / PAGE_SIZE;
        for n in 0..3 {
            memory.map(hw, 0, far(n), &[FIRST + n], true).expect("within quota");
        }
        let before = snapshot(memory, hw);
        assert_eq!(memory.map(hw, 0, far(3), &[FIRST + 3], true), Err(Error::NoMemory));
        assert!(before == snapshot(memory, hw));
    });
}

#[test]
fn kernel_accesses_to_a_given_page_find_zeros_until_it_returns() {
    with_vm(|hw, memory| {
        memory.map(hw, 0, GFNS[0], &[FIRST], true).expect("free page");
        let access = |user, fetch| HostAccess { ipa: FIRST * PAGE_SIZE + 8, user, fetch };
        assert_eq!(memory.host_fault(hw, access(true, false)), HostFault::Abort);
        assert_eq!(memory.host_fault(hw, access(false, true)), HostFault::Abort);
        assert_eq!(memory.host_fault(hw, access(false, false)), HostFault::Retry);
        let scratch = memory.scratch;
        assert_eq!(memory.host.walk(hw, FIRST * PAGE_SIZE).leaf, Leaf::Mapped(scratch));
        assert_eq!(memory.host_fault(hw, access(true, false)), HostFault::Retry);
        assert_eq!(memory.host_fault(hw, access(false, true)), HostFault::Abort);
        memory.unmap(hw, 0, GFNS[0] * PAGE_SIZE).expect("mapped");
        let own = Leaf::Mapped(FIRST * PAGE_SIZE);
        assert_eq!(memory.host.walk(hw, FIRST * PAGE_SIZE).leaf, own);
    });
}

#[test]
fn protecting_takes_a_page_that_others_use_away_from_the_guest() {
    with_vm(|hw, memory| {
        memory.create(hw, 1).expect("free slot");
        memory.map(hw, 0, GFNS[0], &[FIRST, FIRST + 1], false).expect("free pages");
        memory.map(hw, 1, GFNS[0], &[FIRST], false).expect("shared page");
        while memory.protect(hw, 0, 1, |_| false) == Ok(Progress::More) {}
        assert_eq!(memory.lookup(hw, 0, GFNS[0] * PAGE_SIZE), Ok(Leaf::Absent(0)));
        assert_eq!(memory.page(FIRST), Page::Host { shares: 1, pins: 0 });
        assert_eq!(memory.page(FIRST + 1), Page::Guest { vm: 0, open: false });
        assert_eq!(memory.usage(0), Usage { tables: 4, private: 1, shared: 0 });
    });
}

#[test]
fn unmapped_pages_are_invalidated_before_the_host_has_them_and_tables_return() {
    with_vm(|hw, memory| {
        let left = memory.pool_left();
        let pfns: Vec<u64> = (FIRST..FIRST + HOST_PAGES).collect();
        memory.map(hw, 0, 0x801f4, &pfns, false).expect("free pages");
        let guest = memory.guest_space(0).expect("a VM");
        let before = hw.invalidations().len();
        // One page, and not the last of the range.
        assert_eq!(memory.unmap_range(hw, 0, 0x801f3, 2), Ok(2));
        let page = crate::hw::Invalidate::Page(0x801f4 * PAGE_SIZE);
        assert_eq!(hw.invalidations().split_off(before), [(guest, page)]);
        // The rest is in two tables, of which a call leaves one at most.
        assert_eq!(memory.unmap_range(hw, 0, 0x801f5, 0x1000), Ok(11));
        assert_eq!(hw.invalidations().last(), Some(&(guest, crate::hw::Invalidate::All)));
        assert_eq!(memory.unmap_range(hw, 0, 0x80200, 0x1000), Ok(0x200));
        assert_eq!(memory.pool_left(), left, "all tables are given back");
        assert_eq!(memory.usage(0), Usage { tables: ROOT_PAGES, private: 0, shared: 0 });
        assert!(pfns.iter().all(|pfn| memory.page(*pfn) == Page::FREE));
        // Nothing there: one call looks at as many gigabytes as a table has entries.
        assert_eq!(memory.unmap_range(hw, 0, 0, 1 << 28), Ok(1 << 27));
        assert_eq!(memory.unmap_range(hw, 0, 0, (1 << 28) + 1), Err(Error::Address));
    });
}
