// SPDX-License-Identifier: Apache-2.0
//! The device node.

use crate::error::{Error, Result};
use crate::ioctl;
use crate::vm::Vm;
use gzvm_abi::ext;
use gzvm_abi::uapi::{self, DEVICE_PATH};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// An open `/dev/gzvm`.
#[derive(Debug)]
pub struct Gzvm {
    file: File,
}

impl Gzvm {
    /// Opens `/dev/gzvm`.
    pub fn open() -> Result<Self> {
        Self::open_at(Path::new(DEVICE_PATH))
    }

    /// Opens the device node at `path`.
    pub fn open_at(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| Error::new("open", e.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(Self { file })
    }

    /// The value of a capability (`abi::cap`), or `None` where driver and hypervisor do not have
    /// it.
    pub fn check_extension(&self, cap: u64) -> Result<Option<u64>> {
        check_extension(self.file.as_fd(), cap)
    }

    /// How many vCPUs a VM may have, as far as driver and hypervisor say.
    pub fn max_vcpus(&self) -> Result<u32> {
        let limits = self.check_extension(ext::QUERY_LIMITS)?;
        // CAST: the field has 16 bits.
        Ok(limits.map_or(uapi::DEFAULT_MAX_VCPUS, |limits| limits as u32 & 0xffff))
    }

    /// Creates a VM, without memory, vCPUs or interrupt controller.
    pub fn create_vm(&self) -> Result<Vm> {
        // The VM type: no other value than 0 is known.
        let fd = ioctl::call_value(self.file.as_fd(), &ioctl::CREATE_VM, 0)?;
        // SAFETY: CREATE_VM returned `fd`, new and owned by nobody else.
        Ok(Vm::new(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// CHECK_EXTENSION, which device and VM share.
pub(crate) fn check_extension(fd: BorrowedFd<'_>, cap: u64) -> Result<Option<u64>> {
    let mut value = cap;
    match ioctl::call(fd, &ioctl::CHECK_EXTENSION, &mut value) {
        Ok(_) => Ok(Some(value)),
        Err(e) if matches!(e.errno(), libc::EOPNOTSUPP | libc::EINVAL) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_is_enoent() {
        let error = Gzvm::open_at(Path::new("/nonexistent/gzvm")).unwrap_err();
        assert_eq!((error.call(), error.errno()), ("open", libc::ENOENT));
    }

    #[test]
    fn another_file_refuses_the_ioctls() {
        let other = Gzvm::open_at(Path::new("/dev/null")).unwrap();
        let error = other.create_vm().unwrap_err();
        assert_eq!((error.call(), error.errno()), ("GZVM_CREATE_VM", libc::ENOTTY));
        assert_eq!(other.check_extension(0xa5).unwrap_err().errno(), libc::ENOTTY);
    }
}
