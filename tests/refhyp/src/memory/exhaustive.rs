// SPDX-License-Identifier: Apache-2.0
//! All histories of a small machine: two pages of the host, two VMs with two frames each, every
//! operation in every state that some number of operations reach.

use super::*;
use crate::stage2::{Kind, Leaf};
use crate::testing::FakeHardware;
use std::collections::HashSet;

const FIRST: u64 = 0x200;
const HOST_PAGES: u64 = 2;
const ALL_PAGES: u64 = 146;
const VMS: usize = 2;
/// Two frames of one table.
const GFNS: [u64; 2] = [0x80000, 0x80001];
/// Operations in a row.
const DEPTH: usize = 6;
const MARK: u64 = 0x5ec7_e751;

#[derive(Clone, Copy, Debug)]
enum Op {
    Create(usize),
    Map {
        vm: usize,
        gfn: u64,
        pfn: u64,
        private: bool,
    },
    /// Both pages at once, at both frames.
    MapBoth {
        vm: usize,
        private: bool,
    },
    Open(usize, u64),
    Close(usize, u64),
    Unmap(usize, u64),
    UnmapRange(usize),
    Protect(usize),
    Pin(u64),
    Unpin(u64),
    Touch(u64),
    Teardown(usize),
}

fn ops() -> Vec<Op> {
    let mut ops = Vec::new();
    for vm in 0..VMS {
        ops.extend([Op::Create(vm), Op::UnmapRange(vm), Op::Protect(vm), Op::Teardown(vm)]);
        for private in [false, true] {
            ops.push(Op::MapBoth { vm, private });
            for gfn in GFNS {
                let pfns = FIRST..FIRST + HOST_PAGES;
                ops.extend(pfns.map(|pfn| Op::Map { vm, gfn, pfn, private }));
            }
        }
        for gfn in GFNS {
            ops.extend([Op::Open(vm, gfn), Op::Close(vm, gfn), Op::Unmap(vm, gfn)]);
        }
    }
    for pfn in FIRST..FIRST + HOST_PAGES {
        ops.extend([Op::Pin(pfn), Op::Unpin(pfn), Op::Touch(pfn)]);
    }
    ops
}

/// What operations depend on, and all that they may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pages: Vec<String>,
    host: Vec<Option<u64>>,
    guests: Vec<Option<[Option<u64>; 2]>>,
    dying: [bool; VMS],
}

/// A state to go on from.
struct Saved {
    words: Vec<u64>,
    states: Vec<Page>,
    pool: Pool,
    guests: [Option<GuestSpace>; VMS],
    dying: [bool; VMS],
    history: Vec<Op>,
}

struct World<'a> {
    hw: &'a FakeHardware,
    memory: Memory<'a>,
    dying: [bool; VMS],
}

fn mapped(leaf: Leaf) -> Option<u64> {
    match leaf {
        Leaf::Mapped(pa) => Some(pa),
        Leaf::Absent(_) => None,
    }
}

impl World<'_> {
    fn key(&self) -> Key {
        let host = FIRST..FIRST + HOST_PAGES;
        let guest = |vm: usize| {
            let s2 = self.memory.guest(vm).ok()?.s2;
            Some(GFNS.map(|gfn| mapped(s2.walk(self.hw, gfn * PAGE_SIZE).leaf)))
        };
        Key {
            pages: host.clone().map(|pfn| format!("{:?}", self.memory.page(pfn))).collect(),
            host: host
                .map(|pfn| mapped(self.memory.host.walk(self.hw, pfn * PAGE_SIZE).leaf))
                .collect(),
            guests: (0..VMS).map(guest).collect(),
            dying: self.dying,
        }
    }

    fn save(&self, history: Vec<Op>) -> Saved {
        let mut guests = self.memory.guests.iter().cloned();
        Saved {
            words: self.hw.save(),
            states: self.memory.pages.iter().map(|(_, page)| page).collect(),
            pool: self.memory.pool.clone(),
            guests: [(); VMS].map(|()| guests.next().flatten()),
            dying: self.dying,
            history,
        }
    }

    fn restore(&mut self, saved: &Saved) {
        self.hw.restore(&saved.words);
        for ((pfn, _), state) in (FIRST..).zip(0..ALL_PAGES).zip(&saved.states) {
            self.memory.pages.apply(pfn, |_| Ok(*state)).expect("a page of the table");
        }
        self.memory.pool = saved.pool.clone();
        for (place, guest) in self.memory.guests.iter_mut().zip(&saved.guests) {
            place.clone_from(guest);
        }
        self.dying = saved.dying;
    }

    /// Whether the operation was accepted.
    fn apply(&mut self, op: Op) -> bool {
        let (hw, dying) = (self.hw, self.dying);
        let memory = &mut self.memory;
        let ipa = |gfn: u64| gfn * PAGE_SIZE;
        match op {
            Op::Create(vm) => memory.create(hw, vm).is_ok(),
            Op::Map { vm, gfn, pfn, private } if !dying[vm] => {
                memory.map(hw, vm, gfn, &[pfn], private).is_ok()
            }
            Op::MapBoth { vm, private } if !dying[vm] => {
                memory.map(hw, vm, GFNS[0], &[FIRST, FIRST + 1], private).is_ok()
            }
            Op::Open(vm, gfn) if !dying[vm] => memory.open(hw, vm, ipa(gfn)).is_ok(),
            Op::Close(vm, gfn) if !dying[vm] => memory.close(hw, vm, ipa(gfn)).is_ok(),
            Op::Unmap(vm, gfn) if !dying[vm] => memory.unmap(hw, vm, ipa(gfn)).is_ok(),
            Op::UnmapRange(vm) if !dying[vm] => memory.unmap_range(hw, vm, GFNS[0], 2).is_ok(),
            Op::Protect(vm) if !dying[vm] => loop {
                match memory.protect(hw, vm, 1, |_| false) {
                    Ok(Progress::More) => (),
                    other => break other.is_ok(),
                }
            },
            Op::Pin(pfn) => memory.pin(ipa(pfn), 1).is_ok(),
            Op::Unpin(pfn) => match memory.page(pfn) {
                Page::Host { pins: 1.., .. } => {
                    memory.unpin(ipa(pfn), 1);
                    true
                }
                _ => false,
            },
            Op::Touch(pfn) => {
                let access = HostAccess { ipa: ipa(pfn), user: false, fetch: false };
                memory.host_fault(hw, access) == HostFault::Retry
            }
            Op::Teardown(vm) => {
                if !self.dying[vm] {
                    memory.begin_teardown(hw, vm);
                }
                let progress = memory.teardown(hw, vm, 1);
                self.dying[vm] = progress == Ok(Progress::More);
                progress.is_ok()
            }
            _ => false,
        }
    }

    /// What must hold after every step. Marks what the VMs have.
    fn check(&self, key: &Key) {
        for pfn in FIRST..FIRST + HOST_PAGES {
            let page = self.memory.page(pfn);
            let pa = pfn * PAGE_SIZE;
            let host = mapped(self.memory.host.walk(self.hw, pa).leaf);
            assert_eq!(host == Some(pa), page.host_sees(), "{page:?}");
            assert!(host.is_none_or(|to| to == pa || to == self.memory.scratch));
            let users: Vec<usize> = (0..VMS)
                .flat_map(|vm| key.guests[vm].into_iter().flatten().map(move |to| (vm, to)))
                .filter(|(_, to)| *to == Some(pa))
                .map(|(vm, _)| vm)
                .collect();
            match page {
                Page::Guest { vm, .. } => {
                    assert_eq!(users, [usize::from(vm)]);
                    self.hw.write(pa, MARK);
                }
                Page::Host { shares, .. } => {
                    assert_eq!(users.len(), usize::from(shares));
                    assert_ne!(self.hw.read(pa), MARK, "not wiped");
                }
                _ => panic!("{page:?} is nobody's"),
            }
        }
    }

    /// Ends both VMs: everything comes back.
    fn finish(&mut self, room: u64) {
        for vm in 0..VMS {
            self.memory.begin_teardown(self.hw, vm);
            while self.memory.teardown(self.hw, vm, 1) == Ok(Progress::More) {}
        }
        for pfn in FIRST..FIRST + HOST_PAGES {
            assert!(matches!(self.memory.page(pfn), Page::Host { shares: 0, .. }));
            assert_ne!(self.hw.read(pfn * PAGE_SIZE), MARK, "not wiped");
        }
        assert_eq!(self.memory.pool_left(), room);
    }
}

#[test]
fn every_state_that_can_be_reached_keeps_every_promise() {
    let hw = FakeHardware::new(FIRST * PAGE_SIZE, ALL_PAGES as usize);
    let mut states: Vec<Page> = (0..ALL_PAGES)
        .map(|n| if n < HOST_PAGES { Page::FREE } else { Page::Hypervisor })
        .collect();
    let host_end = (FIRST + HOST_PAGES) * PAGE_SIZE;
    let pool = Pool::new(host_end, (FIRST + ALL_PAGES) * PAGE_SIZE);
    let mut memory = Memory::new(&hw, Pages::new(FIRST, &mut states), pool, 8).expect("room");
    memory.map_identity(&hw, FIRST * PAGE_SIZE, host_end, Kind::Memory).expect("identity map");
    let room = memory.pool_left();
    let mut world = World { hw: &hw, memory, dying: [false; VMS] };
    let mut seen = HashSet::from([world.key()]);
    let mut edge = vec![world.save(Vec::new())];
    let (ops, mut steps, mut useful) = (ops(), 0, HashSet::new());
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for saved in &edge {
            for (number, op) in ops.iter().enumerate() {
                world.restore(saved);
                let before = world.key();
                let mut history = saved.history.clone();
                history.push(*op);
                let accepted = world.apply(*op);
                steps += 1;
                let key = world.key();
                assert!(accepted || key == before, "refused, but changed: {history:?}");
                world.check(&key);
                useful.extend(accepted.then_some(number));
                if !seen.insert(key) {
                    continue;
                }
                assert_eq!(world.memory.audit(&hw).wrong, 0, "{history:?}");
                let reached = world.save(history);
                world.finish(room);
                next.push(reached);
            }
        }
        edge = next;
    }
    println!("{} states, {steps} steps, {} states at the edge", seen.len(), edge.len());
    assert_eq!(useful.len(), ops.len(), "some operation was always refused");
}
