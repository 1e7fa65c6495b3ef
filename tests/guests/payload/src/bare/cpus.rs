// SPDX-License-Identifier: Apache-2.0
//! The machine's other CPUs: each says that it is there and turns itself off.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use guest_bare::aarch64_rt::{start_core, Stack};
use payload::machine::MAX_CPUS;
use smccc::Hvc;

/// Pages of stack of a secondary CPU.
const STACK_PAGES: usize = 2;

/// The secondary CPUs' stacks.
struct Stacks([UnsafeCell<Stack<STACK_PAGES>>; MAX_CPUS - 1]);

// SAFETY: Each stack is used by the one CPU that `start` gives it to.
unsafe impl Sync for Stacks {}

/// Zeroed, so in `.bss`.
static STACKS: Stacks = Stacks([const { UnsafeCell::new(Stack::new()) }; MAX_CPUS - 1]);
/// CPUs that were started, which is also the number of stacks in use.
static STARTED: AtomicUsize = AtomicUsize::new(0);
/// CPUs that have said that they are there.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);

/// Starts the CPU with this MPIDR. Says whether the hypervisor accepted that.
pub(super) fn start(mpidr: u64) -> bool {
    let index = STARTED.fetch_add(1, Ordering::Relaxed);
    let Some(stack) = STACKS.0.get(index) else {
        return false;
    };
    // SAFETY: The index is never given out again, so the stack is this CPU's alone for ever; the
    // page table, which it uses too, maps it.
    unsafe { start_core::<Hvc, _, STACK_PAGES>(mpidr, stack.get(), arrive) }.is_ok()
}

/// CPUs that have arrived.
pub(super) fn arrived() -> usize {
    ARRIVED.load(Ordering::Acquire)
}

/// What a secondary CPU does.
fn arrive() {
    ARRIVED.fetch_add(1, Ordering::Release);
    let _ = smccc::psci::cpu_off::<Hvc>();
    guest_bare::stop()
}
