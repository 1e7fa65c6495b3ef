// SPDX-License-Identifier: Apache-2.0
//! `vm run --exit-status`: the VM's end as an exit status. AVF's own tool always ends with 0.

/// By the name that is printed. Where gzvm_vmm and crosvm have a number, it is theirs.
const STATUSES: &[(&str, u8)] = &[
    ("Shutdown", 0),
    ("Reboot", 32),
    ("Crash", 33),
    ("Unknown", 34),
    ("WatchdogReboot", 36),
    ("Hangup", 37),
    ("Killed", 38),
    ("InfrastructureError", 39),
    ("VirtualizationServiceDied", 40),
    ("PvmFirmwarePublicKeyMismatch", 41),
    ("PvmFirmwareInstanceImageChanged", 42),
    ("MicrodroidFailedToConnectToVirtualizationService", 43),
    ("MicrodroidPayloadHasChanged", 44),
    ("MicrodroidPayloadVerificationFailed", 45),
    ("MicrodroidInvalidPayloadConfig", 46),
    ("MicrodroidUnknownRuntimeError", 47),
];
/// An end that has no name.
const OTHER: u8 = 34;

/// The exit status for an end of this name. A VM that could not be started is an error anyway.
pub fn status(end: &str) -> u8 {
    STATUSES.iter().find(|(name, _)| *name == end).map_or(OTHER, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_end_has_its_own_status() {
        let statuses: BTreeSet<_> = STATUSES.iter().map(|(_, status)| status).collect();
        assert_eq!(statuses.len(), STATUSES.len());
        // Errors of the tool and of its command line, and what a shell says of signals.
        assert!(!statuses.contains(&1) && !statuses.contains(&2));
        assert!(statuses.iter().all(|status| **status < 126));
        assert_eq!((status("Shutdown"), status("Crash"), status("new")), (0, 33, 34));
    }
}
