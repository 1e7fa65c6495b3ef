// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between guest and hypervisor, with the call that it went wrong in.

use crate::Uid;
use core::fmt;
use gzvm_abi::guest;

/// An error of a hypervisor call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The hypervisor refused a call.
    Refused {
        /// Function id of the call.
        function: u32,
        /// What it answered.
        status: Status,
    },
    /// The hypervisor is not GenieZone.
    NotGenieZone(
        /// The UID that it answered.
        Uid,
    ),
    /// A granule is not a power of two of at least 4 KiB.
    BadGranule {
        /// Function id of the call.
        function: u32,
        /// What it answered, in bytes.
        granule: u64,
    },
    /// A range does not consist of whole granules, or does not fit in the address space.
    BadRange {
        /// First address.
        base: u64,
        /// Size in bytes.
        size: u64,
        /// The granule it must consist of, in bytes.
        granule: u64,
    },
    /// A standard interface has a version that is too old, or the wrong major version.
    BadVersion {
        /// Function id of the call.
        function: u32,
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Refused { function, status } => {
                write!(f, "the hypervisor refused {} ({function:#010x}): {status}", name(function))
            }
            Self::NotGenieZone(uid) => {
                write!(f, "the hypervisor's UID is {uid}, not GenieZone's {}", Uid::GENIEZONE)
            }
            Self::BadGranule { function, granule } => {
                write!(f, "{} answered a granule of {granule} bytes", name(function))
            }
            Self::BadRange { base, size, granule } => {
                let message = "does not consist of granules of";
                write!(f, "the range {base:#x}+{size:#x} {message} {granule:#x} bytes")
            }
            Self::BadVersion { function, major, minor } => {
                write!(f, "{} answered version {major}.{minor}, which will not do", name(function))
            }
        }
    }
}

impl core::error::Error for Error {}

/// What a call answered in x0 when it did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(
    /// The value, sign-extended.
    pub i64,
);

impl Status {
    /// The call is not supported, or not for this VM.
    pub const NOT_SUPPORTED: Self = Self(guest::NOT_SUPPORTED);
    /// The call is not needed in this VM.
    pub const NOT_REQUIRED: Self = Self(guest::NOT_REQUIRED);
    /// An argument is wrong.
    pub const INVALID_PARAMETER: Self = Self(guest::INVALID_PARAMETER);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NOT_SUPPORTED => f.write_str("not supported (-1)"),
            Self::NOT_REQUIRED => f.write_str("not required (-2)"),
            Self::INVALID_PARAMETER => f.write_str("invalid parameter (-3)"),
            Self(other) => write!(f, "status {other}"),
        }
    }
}

/// The name of a guest call.
fn name(function: u32) -> &'static str {
    match function {
        guest::SMCCC_VERSION => "SMCCC_VERSION",
        guest::VENDOR_HYP_UID => "UID",
        guest::VENDOR_FEATURES => "FEATURES",
        guest::PTP => "PTP",
        guest::MEMINFO => "MEMINFO",
        guest::MEM_SHARE => "MEM_SHARE",
        guest::MEM_UNSHARE => "MEM_UNSHARE",
        guest::MMIO_GUARD_INFO => "MMIO_GUARD_INFO",
        guest::MMIO_GUARD_ENROLL => "MMIO_GUARD_ENROLL",
        guest::MMIO_GUARD_MAP => "MMIO_GUARD_MAP",
        guest::MMIO_GUARD_UNMAP => "MMIO_GUARD_UNMAP",
        guest::MEM_RELINQUISH => "MEM_RELINQUISH",
        crate::trng::TRNG_VERSION => "TRNG_VERSION",
        crate::trng::TRNG_FEATURES => "TRNG_FEATURES",
        crate::trng::TRNG_RND64 => "TRNG_RND64",
        _ => "a call",
    }
}
