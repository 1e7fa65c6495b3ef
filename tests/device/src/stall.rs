// SPDX-License-Identifier: Apache-2.0
//! Memory whose pages nobody provides for a while: whoever touches it waits (userfaultfd).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use crate::mapping::Mapping;
use crate::sys;

/// Numbers of include/uapi/linux/userfaultfd.h.
const API: u64 = 0xaa;
const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u32 = 0x8010_aa01;
const REGISTER_MODE_MISSING: u64 = 1;
/// Bytes of a message.
const MESSAGE: usize = 32;

/// A range of memory whose missing pages stay missing until the drop.
pub struct Stall {
    events: File,
    range: [u64; 2],
}

impl Stall {
    /// Holds back the pages of a part of a mapping that are not there yet; `None` if this machine does
    /// not let us.
    pub fn new(mapping: &Mapping, offset: u64, size: u64) -> Option<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: takes flags only.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor for us.
        let events = unsafe { File::from_raw_fd(fd) };
        // Version, features, answer.
        sys::ioctl(&events, UFFDIO_API, &mut [API, 0, 0]).expect("UFFDIO_API");
        let range = [mapping.address() + offset, size];
        // Range, mode, answer.
        let mut register = [range[0], range[1], REGISTER_MODE_MISSING, 0];
        sys::ioctl(&events, UFFDIO_REGISTER, &mut register).expect("UFFDIO_REGISTER");
        Some(Self { events, range })
    }

    /// Waits until somebody waits for a page; `false` after the time limit.
    pub fn wait(&self, limit: Duration) -> bool {
        let fd = self.events.as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).expect("time limit");
        // SAFETY: one live structure.
        unsafe { libc::poll(&mut poll, 1, limit) };
        (&self.events).read(&mut [0; MESSAGE]).is_ok_and(|read| read == MESSAGE)
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        // Whoever waits goes on and gets ordinary pages.
        let _ = sys::ioctl(&self.events, UFFDIO_UNREGISTER, &mut self.range);
    }
}
