// SPDX-License-Identifier: Apache-2.0
//! A GenieZone in memory, for tests of guest code on any machine.
//!
//! It keeps the rules that a guest can break: a page is shared once and unshared once, a page is
//! guarded in once, the guard comes after the enrolment.

use crate::trng::{TRNG_FEATURES, TRNG_RND64, TRNG_VERSION};
use crate::Hvc;
use gzvm_abi::guest;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A hypervisor whose state can be looked at and whose answers can be broken.
#[derive(Debug)]
pub struct FakeHypervisor {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    protected: bool,
    uid: [u32; 4],
    granule: u64,
    shared: BTreeSet<u64>,
    guarded: BTreeSet<u64>,
    relinquished: BTreeSet<u64>,
    enrolled: bool,
    /// Answers that are given in place of the real one: (function, x1 or any) to x0.
    overrides: BTreeMap<(u32, Option<u64>), u64>,
    random: u64,
    calls: Vec<u32>,
}

impl FakeHypervisor {
    /// A GenieZone with 4 KiB granules and this guest in it.
    pub fn new(protected: bool) -> Self {
        Self {
            state: RefCell::new(State {
                protected,
                uid: guest::GENIEZONE_UID,
                granule: gzvm_abi::PAGE_SIZE,
                shared: BTreeSet::new(),
                guarded: BTreeSet::new(),
                relinquished: BTreeSet::new(),
                enrolled: false,
                overrides: BTreeMap::new(),
                random: 0x9e37_79b9_7f4a_7c15,
                calls: Vec::new(),
            }),
        }
    }

    /// Answers another UID from now on.
    pub fn set_uid(&self, uid: [u32; 4]) {
        self.state.borrow_mut().uid = uid;
    }

    /// Answers another granule from now on, for sharing and guard.
    pub fn set_granule(&self, granule: u64) {
        self.state.borrow_mut().granule = granule;
    }

    /// Answers `x0` to `function`, if `x1` is given only where the argument is that.
    pub fn set_answer(&self, function: u32, x1: Option<u64>, x0: i64) {
        self.state.borrow_mut().overrides.insert((function, x1), x0.cast_unsigned());
    }

    /// The pages that are shared with the host.
    pub fn shared(&self) -> Vec<u64> {
        self.state.borrow().shared.iter().copied().collect()
    }

    /// The pages that are guarded in.
    pub fn guarded(&self) -> Vec<u64> {
        self.state.borrow().guarded.iter().copied().collect()
    }

    /// The pages that were given back.
    pub fn relinquished(&self) -> Vec<u64> {
        self.state.borrow().relinquished.iter().copied().collect()
    }

    /// The function ids of all calls so far.
    pub fn calls(&self) -> Vec<u32> {
        self.state.borrow().calls.clone()
    }
}

impl Hvc for FakeHypervisor {
    fn call(&self, args: [u64; 8]) -> [u64; 4] {
        let mut state = self.state.borrow_mut();
        let [function, x1, ..] = args;
        let Ok(function) = u32::try_from(function) else {
            return refuse(guest::NOT_SUPPORTED);
        };
        state.calls.push(function);
        let overrides = &state.overrides;
        let answer = overrides.get(&(function, Some(x1))).or(overrides.get(&(function, None)));
        match answer {
            Some(&x0) => [x0, 0, 0, 0],
            None => state.answer(function, x1),
        }
    }
}

impl State {
    fn answer(&mut self, function: u32, x1: u64) -> [u64; 4] {
        match function {
            guest::SMCCC_VERSION => [0x1_0001, 0, 0, 0],
            TRNG_VERSION => [0x1_0000, 0, 0, 0],
            TRNG_FEATURES if x1 == u64::from(TRNG_RND64) => [0; 4],
            TRNG_RND64 => [0, self.random(), self.random(), self.random()],
            guest::VENDOR_HYP_UID => self.uid.map(u64::from),
            guest::VENDOR_FEATURES => [self.features(), 0, 0, 0],
            guest::PTP if x1 <= guest::PTP_PHYS_COUNTER => [0x1122, 0x3344_5566, 0x77, 0x88],
            guest::MEMINFO | guest::MMIO_GUARD_INFO => [self.granule, 0, 0, 0],
            guest::MEM_SHARE => [status(self.protected && self.shared.insert(x1)), 0, 0, 0],
            guest::MEM_UNSHARE => [status(self.shared.remove(&x1)), 0, 0, 0],
            guest::MMIO_GUARD_ENROLL => {
                self.enrolled = true;
                [0; 4]
            }
            guest::MMIO_GUARD_MAP => [status(self.enrolled && self.guarded.insert(x1)), 0, 0, 0],
            guest::MMIO_GUARD_UNMAP => [status(self.guarded.remove(&x1)), 0, 0, 0],
            guest::MEM_RELINQUISH => [status(self.relinquished.insert(x1)), 0, 0, 0],
            _ => refuse(guest::NOT_SUPPORTED),
        }
    }

    fn features(&self) -> u64 {
        let sharing = if self.protected { guest::FEATURE_MEM_SHARE } else { 0 };
        guest::FEATURE_PTP | guest::FEATURE_MMIO_GUARD | sharing
    }

    /// The next number of a xorshift generator: repeatable, never twice the same.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// The answer of a call that is refused.
fn refuse(status: i64) -> [u64; 4] {
    [status.cast_unsigned(), 0, 0, 0]
}

/// x0 of a call that changes something.
fn status(done: bool) -> u64 {
    let status = if done { guest::SUCCESS } else { guest::INVALID_PARAMETER };
    status.cast_unsigned()
}
