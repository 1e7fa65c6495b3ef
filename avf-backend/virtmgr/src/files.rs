// SPDX-License-Identifier: Apache-2.0
//! Files for the VMM: their numbers are the same there.

use anyhow::{Context, Result};
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// What the VMM inherits.
#[derive(Debug, Default)]
pub struct Files(Vec<OwnedFd>);

impl Files {
    /// Hands a file over; the answer is its number.
    pub fn keep(&mut self, fd: OwnedFd) -> RawFd {
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }

    /// Hands over a copy of a descriptor.
    pub fn copy(&mut self, fd: &impl AsFd) -> Result<RawFd> {
        let copy = fd.as_fd().try_clone_to_owned().context("cannot copy a descriptor")?;
        Ok(self.keep(copy))
    }

    /// Hands over a file without a name.
    pub fn contents(&mut self, name: &str, contents: &[u8]) -> Result<RawFd> {
        let make = || -> Result<File> {
            let name = CString::new(name)?;
            let mut file = File::from(memfd_create(&name, MemFdCreateFlag::MFD_CLOEXEC)?);
            file.write_all(contents)?;
            file.rewind()?;
            Ok(file)
        };
        Ok(self.keep(make().with_context(|| format!("cannot make {name}"))?.into()))
    }

    /// All of them.
    pub fn into_inner(self) -> Vec<OwnedFd> {
        self.0
    }
}

/// What the VMM calls an inherited file.
pub fn path(fd: RawFd) -> PathBuf {
    format!("/proc/self/fd/{fd}").into()
}
