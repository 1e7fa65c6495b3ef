// SPDX-License-Identifier: GPL-2.0

//! The driver's trace events (`c/gzvm_trace.h`).

use super::ffi;

/// A hypercall begins.
pub(crate) fn hypcall_enter(id: u32) {
    ffi::gzvm_kx_trace_hypcall_enter(id as usize);
}

/// A hypercall is over; `invalid` if the hypervisor does not know it.
pub(crate) fn hypcall_leave(id: u32, invalid: bool) {
    ffi::gzvm_kx_trace_hypcall_leave(id as usize, usize::from(invalid));
}

/// A vCPU left the guest.
pub(crate) fn vcpu_exit(reason: u64) {
    ffi::gzvm_kx_trace_vcpu_exit(reason as usize);
}
