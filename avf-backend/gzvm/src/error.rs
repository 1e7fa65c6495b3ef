// SPDX-License-Identifier: Apache-2.0
//! Errors: which ioctl failed, why, and what to do about it.

use std::fmt;
use std::io;

/// Result of an operation on a handle.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed ioctl, or a failed open of the device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    call: &'static str,
    errno: i32,
}

impl Error {
    /// That `call` failed with `errno`.
    pub fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno }
    }

    /// The error that the last libc call of this thread left behind.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::new(call, io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Name of the call that failed, as `GZVM_CREATE_VM`, or `open`.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The errno it failed with.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What the caller, or the person in front of it, can do.
    pub fn remedy(&self) -> Option<&'static str> {
        // The driver's errnos: gzvm-abi specification 4.2, with the hypervisor's status codes
        // mapped as in 2.2.
        Some(match (self.call, self.errno) {
            (_, libc::EIO) => "the VM belongs to another process: use it where it was created",
            ("open", libc::EACCES | libc::EPERM) => {
                "no permission: run as a user who may open the device node"
            }
            ("GZVM_CREATE_VM", libc::ENOMEM) => {
                "the hypervisor has no memory for another VM: end one, or give the hypervisor more"
            }
            ("GZVM_CREATE_VM" | "GZVM_CREATE_VCPU", libc::EMFILE | libc::ENFILE) => {
                "out of file descriptors: raise the limit (ulimit -n)"
            }
            ("GZVM_CREATE_VCPU", libc::EINVAL) => "the VM has no room for this vCPU: use fewer",
            ("GZVM_CREATE_VCPU", libc::EEXIST) => "the VM has this vCPU already",
            ("GZVM_SET_USER_MEMORY_REGION", libc::ENOMEM) | ("GZVM_RUN", libc::ENOMEM) => {
                "not enough memory, or more than may be locked: free some, give the VM less, or \
                 raise the limit (ulimit -l)"
            }
            ("GZVM_SET_USER_MEMORY_REGION", libc::EINVAL) => {
                "the region does not suit the driver: page alignment, overlap, or number of slots"
            }
            ("GZVM_ENABLE_CAP", libc::EINVAL | libc::EOPNOTSUPP) => {
                "the hypervisor does not offer this to this VM, or no longer"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed: {}", self.call, io::Error::from_raw_os_error(self.errno))?;
        match self.remedy() {
            Some(remedy) => write!(f, ": {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_call_cause_and_remedy() {
        let text = Error::new("GZVM_CREATE_VM", libc::ENOMEM).to_string();
        assert!(text.starts_with("GZVM_CREATE_VM failed: "), "{text}");
        assert!(text.contains("os error 12"), "{text}");
        assert!(text.contains("end one"), "{text}");
    }

    #[test]
    fn display_without_remedy_ends_with_the_cause() {
        let text = Error::new("GZVM_IRQ_LINE", libc::EFAULT).to_string();
        assert!(text.ends_with("(os error 14)"), "{text}");
    }
}
