// SPDX-License-Identifier: Apache-2.0
//! The exit status of the process: crosvm's, because virtmgr turns it into a death reason.

use std::process::ExitCode;

/// How a VM, or the attempt to start one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// The guest powered off, or somebody asked for the end (virtmgr: SHUTDOWN).
    Success,
    /// The VM could not be started (START_FAILED).
    StartFailed,
    /// The guest asked for a reset; a panic ends so too, where nothing reports it (REBOOT).
    Reset,
    /// The hypervisor, the driver or the VMM failed while the VM ran (CRASH).
    Crash,
    /// The guest reported a panic (UNKNOWN).
    GuestPanic,
    /// The command line is wrong (UNKNOWN).
    InvalidArgs,
    /// The stall detector fired (WATCHDOG_REBOOT).
    WatchdogReset,
}

impl ExitStatus {
    /// The number that the parent sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::StartFailed => 1,
            Self::Reset => 32,
            Self::Crash => 33,
            Self::GuestPanic => 34,
            Self::InvalidArgs => 35,
            Self::WatchdogReset => 36,
        }
    }

    /// Without `--extended-status` crosvm reports the ways in which a VM can end as success.
    pub fn without_extension(self) -> Self {
        match self {
            Self::Reset | Self::GuestPanic | Self::WatchdogReset => Self::Success,
            other => other,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}
