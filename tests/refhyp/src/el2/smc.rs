// SPDX-License-Identifier: Apache-2.0
//! The firmware below: calls to it, and which of the host's calls are passed on.

use super::{boot, cpu};
use arm_psci::FunctionId;
use core::arch::asm;

/// PSCI SYSTEM_RESET.
pub const SYSTEM_RESET: u64 = FunctionId::SystemReset as u64;
/// PSCI SYSTEM_OFF.
#[cfg(feature = "test-hooks")]
pub const SYSTEM_OFF: u64 = FunctionId::SystemOff as u64;

const NOT_SUPPORTED: u64 = -1i64 as u64;
const INVALID_PARAMETERS: u64 = -2i64 as u64;

/// Calls the firmware.
pub fn call(arguments: [u64; 4]) -> [u64; 4] {
    let [mut x0, mut x1, mut x2, mut x3] = arguments;
    // SAFETY: SMCCC: only x0 to x17 change. PSCI does not touch memory; CPU_ON and CPU_SUSPEND are
    // only called with the entry point in `boot.rs`.
    unsafe {
        asm!(
            "smc #0",
            inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
            out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _, out("x15") _,
            out("x16") _, out("x17") _,
            options(nostack)
        );
    }
    [x0, x1, x2, x3]
}

/// Answers an SMC of the host: what starts CPUs goes through the hypervisor, what asks or ends is
/// passed on, and nothing else exists.
pub fn relay(arguments: [u64; 4]) -> [u64; 4] {
    let [id, x1, x2, x3] = arguments;
    let refuse = |code| [code, 0, 0, 0];
    // The function id is 32 bits wide, whatever the upper half of the register holds.
    let Ok(function) = FunctionId::try_from(id as u32) else { return refuse(NOT_SUPPORTED) };
    match function {
        FunctionId::CpuOn32 | FunctionId::CpuOn64 => match cpu::find(x1) {
            Some(target) => call([id, x1, boot::secondary_entry(), cpu::prepare(target, x2, x3)]),
            None => refuse(INVALID_PARAMETERS),
        },
        FunctionId::CpuSuspend32 | FunctionId::CpuSuspend64 => {
            let context = cpu::prepare(cpu::current(), x2, x3);
            call([id, x1, boot::secondary_entry(), context])
        }
        FunctionId::PsciVersion
        | FunctionId::PsciFeatures
        | FunctionId::CpuOff
        | FunctionId::AffinityInfo32
        | FunctionId::AffinityInfo64
        | FunctionId::MigrateInfoType
        | FunctionId::SystemOff
        | FunctionId::SystemReset
        | FunctionId::SystemReset232
        | FunctionId::SystemReset264 => call(arguments),
        _ => refuse(NOT_SUPPORTED),
    }
}
