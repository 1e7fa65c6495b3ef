// SPDX-License-Identifier: GPL-2.0

//! Messages that a user or a guest can cause, at most 20 in five seconds.

use super::ffi;

/// May another message be printed now?
pub(crate) fn may_log() -> bool {
    ffi::gzvm_kx_may_log()
}

/// `pr_info!`, rate-limited: for what a caller did wrong.
macro_rules! info_limited {
    ($($arg:tt)*) => {
        if $crate::kx::ratelimit::may_log() {
            kernel::pr_info!($($arg)*);
        }
    };
}
pub(crate) use info_limited;

/// `pr_warn!`, rate-limited: for what the hypervisor did wrong.
macro_rules! warn_limited {
    ($($arg:tt)*) => {
        if $crate::kx::ratelimit::may_log() {
            kernel::pr_warn!($($arg)*);
        }
    };
}
pub(crate) use warn_limited;
