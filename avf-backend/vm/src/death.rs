// SPDX-License-Identifier: Apache-2.0
//! Why a VM ended, as AVF's client library calls it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeathReason {
    /// The VMM was killed.
    Killed,
    /// Nobody knows.
    Unknown,
    /// The guest powered off.
    Shutdown,
    /// The VM could not be started.
    StartFailed,
    /// The guest asked for a reset.
    Reboot,
    /// Hypervisor, driver or VMM failed.
    Crash,
    /// The stall detector fired. AVF's own client has no name for it.
    WatchdogReboot,
    /// What the guest said itself, through its failure port.
    Reported(&'static str),
}

/// The words that a guest may say before a `|`, with AVF's names for them.
const REPORTED: &[(&str, &str)] = &[
    ("HANGUP", "Hangup"),
    (
        "MICRODROID_FAILED_TO_CONNECT_TO_VIRTUALIZATION_SERVICE",
        "MicrodroidFailedToConnectToVirtualizationService",
    ),
    ("MICRODROID_INVALID_PAYLOAD_CONFIG", "MicrodroidInvalidPayloadConfig"),
    ("MICRODROID_PAYLOAD_HAS_CHANGED", "MicrodroidPayloadHasChanged"),
    ("MICRODROID_PAYLOAD_VERIFICATION_FAILED", "MicrodroidPayloadVerificationFailed"),
    ("MICRODROID_UNKNOWN_RUNTIME_ERROR", "MicrodroidUnknownRuntimeError"),
    ("PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED", "PvmFirmwareInstanceImageChanged"),
    ("PVM_FIRMWARE_PUBLIC_KEY_MISMATCH", "PvmFirmwarePublicKeyMismatch"),
];

impl DeathReason {
    /// From the VMM's end and what the guest wrote to its failure port, which decides first.
    pub fn new(status: ExitStatus, failure: &str) -> Self {
        let word = failure.split('|').next().unwrap_or_default();
        if let Some((_, name)) = REPORTED.iter().find(|(reported, _)| *reported == word) {
            return Self::Reported(name);
        }
        if status.signal().is_some() {
            return Self::Killed;
        }
        match status.code() {
            Some(0) => Self::Shutdown,
            Some(1) => Self::StartFailed,
            Some(32) => Self::Reboot,
            Some(33) => Self::Crash,
            Some(36) => Self::WatchdogReboot,
            _ => Self::Unknown,
        }
    }

    /// The name that is printed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Killed => "Killed",
            Self::Unknown => "Unknown",
            Self::Shutdown => "Shutdown",
            Self::StartFailed => "StartFailed",
            Self::Reboot => "Reboot",
            Self::Crash => "Crash",
            Self::WatchdogReboot => "WatchdogReboot",
            Self::Reported(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(raw: i32, failure: &str) -> &'static str {
        DeathReason::new(ExitStatus::from_raw(raw), failure).name()
    }

    #[test]
    fn exit_status() {
        for (code, name) in [
            (0, "Shutdown"),
            (1, "StartFailed"),
            (32, "Reboot"),
            (33, "Crash"),
            (34, "Unknown"),
            (35, "Unknown"),
            (36, "WatchdogReboot"),
        ] {
            assert_eq!(reason(code << 8, ""), name);
        }
        assert_eq!(reason(9, ""), "Killed");
    }

    #[test]
    fn what_the_guest_says_decides_first() {
        assert_eq!(reason(32 << 8, "HANGUP|after 30 s"), "Hangup");
        assert_eq!(reason(9, "PVM_FIRMWARE_PUBLIC_KEY_MISMATCH"), "PvmFirmwarePublicKeyMismatch");
        assert_eq!(reason(32 << 8, "PVM_FIRMWARE_INVALID_BCC|x"), "Reboot");
    }
}
