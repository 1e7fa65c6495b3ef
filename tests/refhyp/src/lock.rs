// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's lock: a spin lock that waits politely.

use spin::mutex::{SpinMutex, SpinMutexGuard};
use spin::relax::RelaxStrategy;

/// Waits by giving the CPU up for a moment.
///
/// `core::hint::spin_loop` is an `isb` on this architecture; an emulator that runs CPUs in turns
/// would burn the whole slice of the waiting CPU on it.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

impl RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        relax();
    }
}

/// Gives the CPU up for a moment.
#[inline]
#[allow(unsafe_code)]
pub fn relax() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint without effect on registers, flags or memory.
    unsafe {
        core::arch::asm!("yield", options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::hint::spin_loop();
}

/// Mutual exclusion by spinning. The hypervisor runs with interrupts masked, so holders are never
/// interrupted.
pub type Mutex<T> = SpinMutex<T, Relax>;

/// Access to what a [`Mutex`] protects.
pub type MutexGuard<'a, T> = SpinMutexGuard<'a, T, Relax>;
