// SPDX-License-Identifier: Apache-2.0
//! Why a VM ended.

use avf_aidl::aidl::virtualizationcommon::DeathReason::DeathReason;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The words that a guest may say before a `|`.
const REPORTED: &[(&str, DeathReason)] = &[
    ("HANGUP", DeathReason::HANGUP),
    (
        "MICRODROID_FAILED_TO_CONNECT_TO_VIRTUALIZATION_SERVICE",
        DeathReason::MICRODROID_FAILED_TO_CONNECT_TO_VIRTUALIZATION_SERVICE,
    ),
    ("MICRODROID_INVALID_PAYLOAD_CONFIG", DeathReason::MICRODROID_INVALID_PAYLOAD_CONFIG),
    ("MICRODROID_PAYLOAD_HAS_CHANGED", DeathReason::MICRODROID_PAYLOAD_HAS_CHANGED),
    ("MICRODROID_PAYLOAD_VERIFICATION_FAILED", DeathReason::MICRODROID_PAYLOAD_VERIFICATION_FAILED),
    ("MICRODROID_UNKNOWN_RUNTIME_ERROR", DeathReason::MICRODROID_UNKNOWN_RUNTIME_ERROR),
    ("PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED", DeathReason::PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED),
    ("PVM_FIRMWARE_PUBLIC_KEY_MISMATCH", DeathReason::PVM_FIRMWARE_PUBLIC_KEY_MISMATCH),
];

/// From the VMM's end and what the guest wrote to its failure port, which decides first.
pub fn reason(status: ExitStatus, failure: &str) -> DeathReason {
    let word = failure.split('|').next().unwrap_or_default();
    if let Some(&(_, reason)) = REPORTED.iter().find(|(reported, _)| *reported == word) {
        return reason;
    }
    if status.signal().is_some() {
        return DeathReason::KILLED;
    }
    match status.code() {
        Some(0) => DeathReason::SHUTDOWN,
        Some(1) => DeathReason::START_FAILED,
        Some(32) => DeathReason::REBOOT,
        Some(33) => DeathReason::CRASH,
        Some(36) => DeathReason::WATCHDOG_REBOOT,
        _ => DeathReason::UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(raw: i32, failure: &str) -> DeathReason {
        reason(ExitStatus::from_raw(raw), failure)
    }

    #[test]
    fn exit_status() {
        for (code, expected) in [
            (0, DeathReason::SHUTDOWN),
            (1, DeathReason::START_FAILED),
            (32, DeathReason::REBOOT),
            (33, DeathReason::CRASH),
            (34, DeathReason::UNKNOWN),
            (35, DeathReason::UNKNOWN),
            (36, DeathReason::WATCHDOG_REBOOT),
        ] {
            assert_eq!(of(code << 8, ""), expected);
        }
        assert_eq!(of(9, ""), DeathReason::KILLED);
    }

    #[test]
    fn what_the_guest_says_decides_first() {
        assert_eq!(of(32 << 8, "HANGUP|after 30 s"), DeathReason::HANGUP);
        let key = "PVM_FIRMWARE_PUBLIC_KEY_MISMATCH";
        assert_eq!(of(9, key), DeathReason::PVM_FIRMWARE_PUBLIC_KEY_MISMATCH);
        assert_eq!(of(32 << 8, "PVM_FIRMWARE_INVALID_BCC|x"), DeathReason::REBOOT);
    }
}
