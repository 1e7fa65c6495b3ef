// SPDX-License-Identifier: Apache-2.0
//! Eventfds.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// An eventfd that does not block.
pub struct Event(File);

impl Event {
    /// A new one, with count 0.
    pub fn new() -> Self {
        // SAFETY: the answer is a new descriptor of ours.
        Self(unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            assert!(fd >= 0, "eventfd: {}", io::Error::last_os_error());
            File::from_raw_fd(fd)
        })
    }

    /// Its descriptor.
    pub fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Adds 1.
    pub fn signal(&self) {
        (&self.0).write_all(&1u64.to_ne_bytes()).expect("write to an eventfd");
    }

    /// Takes the count, 0 if it was not signalled.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match (&self.0).read_exact(&mut count) {
            Ok(()) => u64::from_ne_bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("read from an eventfd: {error}"),
        }
    }

    /// Waits until it is signalled and takes the count; 0 after the time limit.
    pub fn wait(&self, limit: Duration) -> u64 {
        let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).expect("time limit");
        // SAFETY: one live structure.
        unsafe { libc::poll(&mut poll, 1, limit) };
        self.take()
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}
