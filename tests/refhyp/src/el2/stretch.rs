// SPDX-License-Identifier: Apache-2.0
//! How long interrupts stay off (test builds): from each entry into EL2 to the return to the host,
//! or to the entry of a guest, which physical interrupts stop. Counter ticks, the longest of each
//! host function. Under an emulator that counts instructions as time they are exact.

use super::cpu::{self, MAX_CPUS};
use super::sysreg::{isb, read};
use core::sync::atomic::{AtomicU64, Ordering};
use gzvm_abi::{ext, hvc};
use refhyp::hostcall::{index, Call};

/// Capability number of ENABLE_CAP that asks for a function's longest stretch: x3 = index of the
/// function, or [`OTHERS`]; x1 = ticks.
pub const QUERY: u64 = 0x92fd;
/// Index for all that is no call: faults, system registers, the firmware's calls.
pub const OTHERS: u64 = FUNCTIONS as u64;

// CAST: a small constant.
const FUNCTIONS: usize = hvc::NR_FUNCTIONS as usize;

static STARTED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static LONGEST: [AtomicU64; FUNCTIONS + 1] = [const { AtomicU64::new(0) }; FUNCTIONS + 1];

fn now() -> u64 {
    isb();
    read!("cntpct_el0")
}

/// The index of a call's function; nothing for what only tests do, which may take long.
pub fn kind(call: &Call) -> Option<u64> {
    let for_tests = call.index == index(hvc::ENABLE_CAP)
        && matches!(call.x(2), QUERY | ext::TEST_AUDIT | ext::TEST_FAULT);
    (!for_tests && call.index < hvc::NR_FUNCTIONS).then_some(u64::from(call.index))
}

/// Interrupts are off from now on.
pub fn begin() {
    if !cfg!(feature = "test-hooks") {
        return;
    }
    if let Some(started) = STARTED.get(cpu::current()) {
        started.store(now(), Ordering::Relaxed);
    }
}

/// Interrupts come in again, after a call of this function or something else.
pub fn end(kind: u64) {
    if !cfg!(feature = "test-hooks") {
        return;
    }
    let longest = usize::try_from(kind).ok().and_then(|kind| LONGEST.get(kind));
    if let (Some(started), Some(longest)) = (STARTED.get(cpu::current()), longest) {
        longest.fetch_max(now() - started.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The longest stretch that a call asks for, if it is such a call.
#[cfg(feature = "test-hooks")]
pub fn query(call: &Call) -> Option<u64> {
    if call.index != index(hvc::ENABLE_CAP) || call.x(2) != QUERY {
        return None;
    }
    let longest = LONGEST.get(usize::try_from(call.x(3)).ok()?)?;
    Some(longest.load(Ordering::Relaxed))
}
