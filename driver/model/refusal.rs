// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Why something is refused: an errno for the caller and a sentence for the log.

use crate::abi::hvc;

/// An errno, by its Linux number (include/uapi/asm-generic/errno-base.h and errno.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    /// No such thing.
    NoEnt = 2,
    /// The hypervisor answered nonsense, or the caller is not the VM's owner.
    Io = 5,
    /// Try again.
    Again = 11,
    /// Out of memory, or over the locked-memory limit.
    NoMem = 12,
    /// A bad address.
    Fault = 14,
    /// In use.
    Busy = 16,
    /// Exists already.
    Exist = 17,
    /// An argument is wrong.
    Inval = 22,
    /// No room left.
    NoSpc = 28,
    /// Not supported by this hypervisor.
    OpNotSupp = 95,
    /// The machine goes down.
    ShutDown = 108,
}

impl Errno {
    /// The positive errno number.
    pub const fn code(self) -> i32 {
        // CAST: a fieldless enum's discriminant.
        self as i32
    }
}

/// A refusal: what the caller gets, and what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the caller gets.
    pub errno: Errno,
    /// What the log says: cause, and remedy where there is one.
    pub why: &'static str,
}

impl Refusal {
    /// A refusal for the reason given.
    pub const fn new(errno: Errno, why: &'static str) -> Self {
        Self { errno, why }
    }
}

/// Result of a decision.
pub type Result<T> = core::result::Result<T, Refusal>;

/// Shorthand for a refusal with -EINVAL.
pub(crate) const fn invalid(why: &'static str) -> Refusal {
    Refusal::new(Errno::Inval, why)
}

/// The outcome of a hypercall from its x0, of which 32 bits count. Positive values and unknown
/// codes are errors too.
pub fn check_status(x0: u64) -> core::result::Result<(), i32> {
    // CAST: truncation is the ABI: the status is a signed 32-bit value.
    match x0 as u32 as i32 {
        hvc::NO_ERROR => Ok(()),
        status => Err(status),
    }
}

/// The errno of a hypercall status other than success.
pub const fn status_errno(status: i32) -> Errno {
    match status {
        hvc::ERR_NO_MEMORY => Errno::NoMem,
        hvc::ERR_NOT_SUPPORTED | hvc::ERR_NOT_IMPLEMENTED => Errno::OpNotSupp,
        hvc::ERR_BUSY => Errno::Again,
        hvc::ERR_FAULT => Errno::Fault,
        _ => Errno::Inval,
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_refusal))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn status_uses_the_low_32_bits() {
        assert_eq!(check_status(0xffff_ffff_0000_0000), Ok(()));
        assert_eq!(check_status(0xffff_ffdf), Err(hvc::ERR_BUSY));
        assert_eq!(check_status(u64::MAX), Err(-1));
        assert_eq!(check_status(1), Err(1));
    }

    #[test]
    fn unknown_codes_are_invalid() {
        assert_eq!(status_errno(7), Errno::Inval);
        assert_eq!(status_errno(i32::MIN), Errno::Inval);
        assert_eq!(status_errno(hvc::ERR_NO_MEMORY).code(), 12);
        assert_eq!(status_errno(hvc::ERR_NOT_IMPLEMENTED).code(), 95);
    }
}
