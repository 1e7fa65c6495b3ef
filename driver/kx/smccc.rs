// SPDX-License-Identifier: GPL-2.0

//! Hypercalls by the SMC Calling Convention.
//!
//! C header: `include/linux/arm-smccc.h`.

use kernel::bindings;

/// Calls the hypervisor: x0 to x7 in, x0 to x3 out.
///
/// The hypervisor may use memory that an argument names; whoever passes a physical address owns
/// that memory for as long as the hypervisor may use it.
pub(crate) fn hvc(args: [u64; 8]) -> [u64; 4] {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = args.map(|arg| arg as usize);
    let mut result = bindings::arm_smccc_res::default();
    // SAFETY: The function saves what the convention lets the callee change; `result` is live; the
    // quirk may be null.
    unsafe {
        bindings::__arm_smccc_hvc(
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            &mut result,
            core::ptr::null_mut(),
        )
    };
    [result.a0, result.a1, result.a2, result.a3].map(|value| value as u64)
}
