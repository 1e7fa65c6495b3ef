// SPDX-License-Identifier: Apache-2.0
//! Signals: SIGINT and SIGTERM end the VM in order; a real-time signal takes vCPU threads out of
//! the guest.

use crate::event::VmEvent;
use nix::libc::{c_int, c_void, siginfo_t};
use nix::sys::signal::{raise, SigSet, Signal};
use std::fs;
use std::io;
use std::sync::mpsc::Sender;
use std::thread;
use vmm_sys_util::signal::{register_signal_handler, SIGRTMIN};

/// Signals that ask this process to end, but for those that its starter had ignored (`nohup`).
fn ending() -> SigSet {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // Bit n - 1 is signal n.
        if ignored >> (signal as u32 - 1) & 1 == 0 {
            set.add(signal);
        }
    }
    set
}

/// The set of ignored signals in a process's status.
fn ignored(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

/// Turns signals that ask for the end into events. Comes before any other thread is started, since
/// threads inherit which signals are blocked.
pub fn watch(events: Sender<VmEvent>) -> io::Result<()> {
    let set = ending();
    set.thread_block()?;
    // Reading a terminal from the background is an error then, instead of stopping this process.
    let mut background = SigSet::empty();
    background.add(Signal::SIGTTIN);
    background.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = set.wait() {
            if events.send(VmEvent::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Ends this process by `signal`, so that the parent sees what ended it. Returns only if that
/// failed.
pub fn die_of(signal: Signal) {
    // The default action, which ends the process, was never changed; it was only held back.
    let _ = ending().thread_unblock();
    let _ = raise(signal);
}

/// The signal that takes a vCPU thread out of the guest.
pub fn kick_signal() -> c_int {
    SIGRTMIN()
}

/// Makes [`kick_signal`] interrupt system calls and do nothing else.
pub fn prepare_kicks() -> io::Result<()> {
    extern "C" fn nothing(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}
    register_signal_handler(kick_signal(), nothing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(ignored("SigBlk:\t00\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }
}
