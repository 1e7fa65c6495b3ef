// SPDX-License-Identifier: Apache-2.0
//! Why a VM ended, as AVF's client library calls it.

use avf_aidl::aidl::virtualizationcommon::DeathReason::DeathReason;

/// AVF's names. Its own client has none for the last one.
const NAMES: &[(DeathReason, &str)] = &[
    (DeathReason::INFRASTRUCTURE_ERROR, "InfrastructureError"),
    (DeathReason::KILLED, "Killed"),
    (DeathReason::UNKNOWN, "Unknown"),
    (DeathReason::SHUTDOWN, "Shutdown"),
    (DeathReason::START_FAILED, "StartFailed"),
    (DeathReason::REBOOT, "Reboot"),
    (DeathReason::CRASH, "Crash"),
    (DeathReason::PVM_FIRMWARE_PUBLIC_KEY_MISMATCH, "PvmFirmwarePublicKeyMismatch"),
    (DeathReason::PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED, "PvmFirmwareInstanceImageChanged"),
    (
        DeathReason::MICRODROID_FAILED_TO_CONNECT_TO_VIRTUALIZATION_SERVICE,
        "MicrodroidFailedToConnectToVirtualizationService",
    ),
    (DeathReason::MICRODROID_PAYLOAD_HAS_CHANGED, "MicrodroidPayloadHasChanged"),
    (DeathReason::MICRODROID_PAYLOAD_VERIFICATION_FAILED, "MicrodroidPayloadVerificationFailed"),
    (DeathReason::MICRODROID_INVALID_PAYLOAD_CONFIG, "MicrodroidInvalidPayloadConfig"),
    (DeathReason::MICRODROID_UNKNOWN_RUNTIME_ERROR, "MicrodroidUnknownRuntimeError"),
    (DeathReason::HANGUP, "Hangup"),
    (DeathReason::WATCHDOG_REBOOT, "WatchdogReboot"),
];

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The service said so; with the VMM's last error, if it had one.
    Died(DeathReason, Option<String>),
    /// The service itself is gone, and the VM with it.
    ServiceDied,
}

impl End {
    /// The name that is printed.
    pub fn name(&self) -> String {
        match self {
            Self::ServiceDied => "VirtualizationServiceDied".into(),
            Self::Died(reason, _) => match NAMES.iter().find(|(number, _)| number == reason) {
                Some((_, name)) => (*name).into(),
                None => format!("Unrecognised({reason:?})"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name() {
        for reason in DeathReason::enum_values() {
            let name = End::Died(reason, None).name();
            assert!(!name.starts_with("Unrecognised"), "{name}");
        }
        let unknown = End::Died(DeathReason(99), None).name();
        assert_eq!(unknown, "Unrecognised(DeathReason(99))");
        assert_eq!(End::ServiceDied.name(), "VirtualizationServiceDied");
    }
}
