// SPDX-License-Identifier: Apache-2.0
//! The thread of a device: started when the driver is ready, stopped at reset, when it gives the
//! device's state back.

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// A running device thread.
#[derive(Debug)]
pub struct Worker<T> {
    stop: Arc<EventFd>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Worker<T> {
    /// Runs `work` on `state` in a thread. It ends soon after [`wait`] says so.
    pub fn spawn(
        name: &str,
        mut state: T,
        work: impl FnOnce(&mut T, &EventFd) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(event()?);
        let signal = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            work(&mut state, &signal);
            state
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread and returns its state; `None` if it panicked.
    pub fn stop(self) -> Option<T> {
        if let Err(e) = self.stop.write(1) {
            log::warn!("stopping a device: {e}");
        }
        self.thread.join().ok()
    }
}

/// An eventfd for signals between threads and the driver.
pub fn event() -> io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)
}

/// Waits until one of `fds` can be read, or `stop` is signalled: `None` then. The answer says for
/// each of `fds` whether it can be read, or failed.
pub fn wait<const N: usize>(stop: &EventFd, fds: [Option<BorrowedFd<'_>>; N]) -> Option<[bool; N]> {
    let mut polled = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    polled.extend(fds.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => continue,
            Err(e) => {
                log::error!("a device stops: poll: {e}");
                return None;
            }
        }
    }
    let mut ready = polled.iter().map(|fd| fd.any().unwrap_or(true));
    if ready.next() == Some(true) {
        return None;
    }
    Some(fds.map(|fd| fd.is_some() && ready.next() == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_thread_gives_its_state_back() {
        let kick = event().unwrap();
        kick.write(1).unwrap();
        let worker = Worker::spawn("test", 0, move |count: &mut u32, stop| {
            while let Some([kicked]) = wait(stop, [Some(kick.as_fd())]) {
                assert!(kicked);
                kick.read().unwrap();
                *count += 1;
            }
        })
        .unwrap();
        while !worker.thread.is_finished() && worker.stop.as_fd().try_clone_to_owned().is_err() {}
        let count = worker.stop().unwrap();
        assert!(count <= 1);
    }

    #[test]
    fn readiness_is_told_per_descriptor() {
        let (stop, a, b) = (event().unwrap(), event().unwrap(), event().unwrap());
        b.write(1).unwrap();
        assert_eq!(
            wait(&stop, [Some(a.as_fd()), None, Some(b.as_fd())]),
            Some([false, false, true])
        );
        stop.write(1).unwrap();
        assert_eq!(wait(&stop, [Some(b.as_fd())]), None);
    }
}
