// SPDX-License-Identifier: Apache-2.0
//! Signals that interrupt threads in RUN.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

extern "C" fn ignore(_: libc::c_int) {}

/// Installs a handler that does nothing for the tests' signal, with these flags of sigaction.
pub fn handle(flags: libc::c_int) {
    // SAFETY: the structure is valid when zeroed and then filled; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
}

/// A thread that can be signalled.
#[derive(Clone, Copy)]
pub struct Target(libc::pthread_t);

// SAFETY: pthread ids are made to be used from other threads.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The current thread, which must outlive the value's use.
    pub fn this() -> Self {
        // SAFETY: has no requirements.
        Self(unsafe { libc::pthread_self() })
    }

    /// Sends the thread the tests' signal.
    pub fn signal(self) {
        // SAFETY: the thread lives, by the contract of `this`.
        unsafe { libc::pthread_kill(self.0, libc::SIGUSR1) };
    }

    /// Sends the signal after a while.
    pub fn signal_after(self, delay: Duration) {
        std::thread::sleep(delay);
        self.signal();
    }
}

/// Runs `f` while another thread sends this one signals as fast as it can.
pub fn storm(f: impl FnOnce()) {
    handle(libc::SA_RESTART);
    let done = AtomicBool::new(false);
    let target = Target::this();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                target.signal_after(Duration::from_micros(200));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `background` in a thread that calls RUN until a signal ends it, and `f` in this one.
/// `background` is signalled until it is over once `f` is.
pub fn with_background(background: impl FnOnce() + Send, f: impl FnOnce()) {
    handle(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            sender.send(Target::this()).expect("the other end waits");
            background();
        });
        let target = receiver.recv().expect("the thread says who it is");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        while !thread.is_finished() {
            target.signal_after(Duration::from_millis(5));
        }
        assert!(thread.join().is_ok(), "the thread in the background failed");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}
