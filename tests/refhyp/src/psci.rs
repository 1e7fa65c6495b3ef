// SPDX-License-Identifier: Apache-2.0
//! PSCI (Arm DEN0022) as guests see it: version, which functions there are, result codes.

use arm_psci::{ErrorCode, FunctionId};

/// PSCI 1.1.
pub const VERSION: u64 = 1 << 16 | 1;

/// A result code as a register.
pub const fn error(code: ErrorCode) -> u64 {
    // CAST: sign extension of a small negative number.
    code as i32 as i64 as u64
}

/// Whether a guest may call a function.
pub const fn offered(function: FunctionId) -> bool {
    matches!(
        function,
        FunctionId::PsciVersion
            | FunctionId::PsciFeatures
            | FunctionId::CpuOn32
            | FunctionId::CpuOn64
            | FunctionId::CpuOff
            | FunctionId::CpuSuspend32
            | FunctionId::CpuSuspend64
            | FunctionId::AffinityInfo32
            | FunctionId::AffinityInfo64
            | FunctionId::MigrateInfoType
            | FunctionId::SystemOff
            | FunctionId::SystemReset
            | FunctionId::SystemReset232
            | FunctionId::SystemReset264
    )
}

/// The answer to PSCI_FEATURES about a function.
pub fn features(about: u64) -> u64 {
    // CAST: function ids are 32 bits wide.
    let about = about as u32;
    let known =
        about == gzvm_abi::guest::SMCCC_VERSION || FunctionId::try_from(about).is_ok_and(offered);
    if known {
        0
    } else {
        error(ErrorCode::NotSupported)
    }
}

/// Whether a function id is PSCI's: owner 4, the first 32 functions of either width.
pub const fn is_psci(function: u32) -> bool {
    matches!(function, 0x8400_0000..=0x8400_001f | 0xc400_0000..=0xc400_001f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_tell_what_is_offered() {
        assert_eq!(features(0x8400_0000), 0);
        assert_eq!(features(0xc400_0003), 0);
        assert_eq!(features(0x8000_0000), 0);
        assert_eq!(features(0xc400_000e), u64::MAX); // SYSTEM_SUSPEND
        assert_eq!(features(0x1234), u64::MAX);
        assert_eq!(error(ErrorCode::AlreadyOn), (-4i64) as u64);
        assert!(is_psci(0x8400_0008) && !is_psci(0x8400_0050) && !is_psci(0xc600_0002));
    }
}
