// SPDX-License-Identifier: GPL-2.0

//! Wall clock and architected counter, read at the same instant.
//!
//! C header: `include/linux/timekeeping.h`.

use super::ffi;
use kernel::bindings;

/// One instant.
pub(crate) struct Snapshot {
    /// Nanoseconds since 1970.
    pub(crate) wall_ns: u64,
    /// The architected counter.
    pub(crate) cycles: u64,
}

/// Takes a snapshot; `None` if the kernel's clock does not run on the architected counter.
pub(crate) fn snapshot() -> Option<Snapshot> {
    let mut raw = bindings::system_time_snapshot::default();
    // SAFETY: The pointer is to a live structure of the type that the function fills.
    unsafe { bindings::ktime_get_snapshot_id(bindings::CLOCK_REALTIME as _, &mut raw) };
    let usable = raw.valid != 0 && ffi::gzvm_kx_is_arch_counter(raw.cs_id as _);
    let wall_ns = u64::try_from(raw.systime).ok()?;
    usable.then_some(Snapshot { wall_ns, cycles: raw.cycles })
}
