// SPDX-License-Identifier: Apache-2.0
//! The physical CPUs.

use super::sysreg::read;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// CPUs that the hypervisor can run on.
pub const MAX_CPUS: usize = 16;
/// Bytes of EL2 stack for each.
pub const STACK_SIZE: usize = 32768;

/// Affinity bits of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// One CPU.
pub struct Cpu {
    /// Affinity bits of its MPIDR.
    mpidr: AtomicU64,
    /// Where the host wants it to start, and with what in x0.
    entry: AtomicU64,
    context: AtomicU64,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu { mpidr: AtomicU64::new(0), entry: AtomicU64::new(0), context: AtomicU64::new(0) }
}; MAX_CPUS];
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// Notes which CPUs there are. The boot CPU becomes index 0, as its stack is the first.
pub fn register(mpidrs: &[u64]) {
    let own = read!("mpidr_el1") & AFFINITY;
    let others = mpidrs.iter().copied().filter(|mpidr| *mpidr != own);
    let mut count = 0;
    for (cpu, mpidr) in CPUS.iter().zip(core::iter::once(own).chain(others)) {
        cpu.mpidr.store(mpidr, Ordering::Relaxed);
        count += 1;
    }
    COUNT.store(count, Ordering::Release);
}

/// How many CPUs there are.
pub fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The index of the CPU that runs this.
pub fn current() -> usize {
    // CAST: `boot.rs` put an index below MAX_CPUS there.
    read!("tpidr_el2") as usize
}

/// The index of the CPU with this MPIDR.
pub fn find(mpidr: u64) -> Option<usize> {
    CPUS.iter().take(count()).position(|cpu| cpu.mpidr.load(Ordering::Relaxed) == mpidr & AFFINITY)
}

/// Affinity bits of a CPU.
pub fn mpidr(index: usize) -> u64 {
    CPUS.get(index).map_or(0, |cpu| cpu.mpidr.load(Ordering::Relaxed))
}

/// Notes where the host wants a CPU to start; returns what its start code needs in x0.
pub fn prepare(index: usize, entry: u64, context: u64) -> u64 {
    if let Some(cpu) = CPUS.get(index) {
        cpu.entry.store(entry, Ordering::Relaxed);
        cpu.context.store(context, Ordering::Release);
    }
    // CAST: widening.
    index as u64
}

/// What [`prepare`] noted.
pub fn prepared(index: usize) -> (u64, u64) {
    CPUS.get(index).map_or((0, 0), |cpu| {
        let context = cpu.context.load(Ordering::Acquire);
        (cpu.entry.load(Ordering::Relaxed), context)
    })
}
