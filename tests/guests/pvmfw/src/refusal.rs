// SPDX-License-Identifier: Apache-2.0
//! Why the firmware does not start a payload.

use core::fmt;
use dtoolkit::error::FdtMutError;
use gzvm_dtcheck::Fault;
use gzvm_guest::Error;

/// Why the payload is not started.
#[derive(Debug)]
pub enum Refusal {
    /// The hypervisor refused a call.
    Call(Error),
    /// The device tree will not do.
    Tree(Fault),
    /// The device tree could not be changed.
    Patch(FdtMutError),
    /// Registers and device tree name different payloads.
    Payload {
        /// x1 and x2: first address and size.
        registers: (u64, u64),
        /// What the device tree says.
        tree: (u64, u64),
    },
    /// A page that was shared and taken back has other contents.
    Shared,
    /// There is no virtio device in the first slot of the PCI bus.
    NoDevice(u32),
}

impl Refusal {
    /// What the firmware prints on the failure port; virtmgr reads it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tree(_) | Self::Patch(_) => "PVM_FIRMWARE_INVALID_FDT",
            Self::Payload { .. } => "PVM_FIRMWARE_INVALID_PAYLOAD",
            Self::Call(_) | Self::Shared | Self::NoDevice(_) => "PVM_FIRMWARE_INTERNAL_ERROR",
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Tree(fault)
    }
}

impl From<FdtMutError> for Refusal {
    fn from(error: FdtMutError) -> Self {
        Self::Patch(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Tree(fault) => write!(f, "device tree: {fault}"),
            Self::Patch(error) => write!(f, "device tree: cannot be changed: {error}"),
            Self::Payload { registers: (start, size), tree: (from, bytes) } => write!(
                f,
                "the payload is at {start:#x}+{size:#x} by the registers, at {from:#x}+{bytes:#x} \
                 by the device tree"
            ),
            Self::Shared => f.write_str("a page that was shared has other contents now"),
            Self::NoDevice(word) => {
                write!(f, "slot 1 of the PCI bus answers {word:#x}, not a virtio device")
            }
        }
    }
}

impl core::error::Error for Refusal {}
