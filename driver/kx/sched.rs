// SPDX-License-Identifier: GPL-2.0

//! The scheduler: giving way, fatal signals, and guest time.

use super::ffi;

/// Lets others run if they have to.
pub(crate) fn cond_resched() {
    ffi::gzvm_kx_cond_resched();
}

/// Is the current thread about to die?
pub(crate) fn fatal_signal_pending() -> bool {
    ffi::gzvm_kx_fatal_signal_pending()
}

/// Runs `f`, which enters a guest: the time counts as the current thread's guest time.
pub(crate) fn in_guest<R>(f: impl FnOnce() -> R) -> R {
    ffi::gzvm_kx_guest_enter();
    let result = f();
    ffi::gzvm_kx_guest_exit();
    result
}
