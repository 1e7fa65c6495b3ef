// SPDX-License-Identifier: Apache-2.0
//! Notices that the parent is gone.
//!
//! virtmgr gives the second serial port a pipe whose other end it holds as long as it lives. So a
//! pipe without a reader there means that nobody is left who wants this VM; a death signal from the
//! kernel would come too early, when the thread that spawned this process ends.

use crate::event::VmEvent;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::stat::{fstat, SFlag};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::Sender;
use std::thread;

/// Watches `output` if it is a pipe.
pub fn watch(output: &File, events: Sender<VmEvent>) -> io::Result<()> {
    if !is_pipe(output)? {
        return Ok(());
    }
    let output = output.try_clone()?;
    thread::Builder::new().name("orphan".into()).spawn(move || {
        wait_for_no_reader(&output);
        // Nobody listens any more when the VM is ending anyway.
        let _ = events.send(VmEvent::ParentGone);
    })?;
    Ok(())
}

fn is_pipe(file: &File) -> io::Result<bool> {
    let mode = SFlag::from_bits_truncate(fstat(file.as_raw_fd())?.st_mode);
    Ok(mode & SFlag::S_IFMT == SFlag::S_IFIFO)
}

fn wait_for_no_reader(pipe: &File) {
    loop {
        // No event is asked for: errors are reported always.
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => return,
            Err(e) => {
                log::warn!("cannot tell whether the parent lives: {e}");
                // Without an answer the VM goes on; it can still be ended by a signal.
                thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{channel, RecvTimeoutError};
    use std::time::Duration;

    #[test]
    fn a_closed_reader_is_noticed() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (sender, receiver) = channel();
        watch(&File::from(writer), sender).unwrap();
        let early = receiver.recv_timeout(Duration::from_millis(50));
        assert_eq!(early, Err(RecvTimeoutError::Timeout));
        drop(reader);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(VmEvent::ParentGone));
    }

    #[test]
    fn files_are_not_watched() {
        let (sender, receiver) = channel();
        watch(&tempfile::tempfile().unwrap(), sender).unwrap();
        assert!(receiver.recv().is_err(), "nobody holds the sender");
    }
}
