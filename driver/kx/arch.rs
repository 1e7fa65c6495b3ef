// SPDX-License-Identifier: GPL-2.0

//! Facts about the CPU.

use super::ffi;

/// Does this kernel run at EL2, so that nobody is below it?
pub(crate) fn at_el2() -> bool {
    ffi::gzvm_kx_at_el2()
}

/// Frequency of the architected counter in Hz (CNTFRQ_EL0).
pub(crate) fn counter_hz() -> u32 {
    ffi::gzvm_kx_counter_hz()
}
