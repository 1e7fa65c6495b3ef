// SPDX-License-Identifier: Apache-2.0
//! Ctrl-C and its relatives: end every process group that the harness started, then unwind.
//!
//! The harness's children run in process groups of their own, so that a whole build tree can be
//! ended by one signal and nothing else is ever hit.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process_group, Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Time for children to end after a polite signal, and for the harness to tidy up after them.
const GRACE: Duration = Duration::from_secs(5);
/// The shell's exit status for a program that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    // A panic elsewhere leaves the list itself intact.
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread that waits for signals.
///
/// # Errors
///
/// When the handlers cannot be installed.
pub fn install() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install signal handlers")?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                // Asked twice: no more waiting.
                end_all(Signal::KILL);
                exit(EXIT_INTERRUPTED);
            }
            eprintln!("\ninterrupted, stopping");
            end_all(Signal::TERM);
            thread::spawn(|| {
                thread::sleep(GRACE);
                end_all(Signal::KILL);
                thread::sleep(GRACE);
                exit(EXIT_INTERRUPTED);
            });
        }
    });
    Ok(())
}

fn end_all(signal: Signal) {
    for group in groups().iter() {
        // The group may have ended by itself meanwhile.
        let _ = kill_process_group(*group, signal);
    }
}

/// An error once the user has asked to stop.
///
/// # Errors
///
/// "interrupted", which makes the callers unwind and tidy up.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// The exit status for a run that failed: 130 when the user stopped it.
pub fn exit_status() -> u8 {
    if INTERRUPTED.load(Ordering::SeqCst) {
        130
    } else {
        1
    }
}

/// Puts the group whose leader is the running child `pid` under this module's care.
pub fn register(pid: Pid) {
    groups().push(pid);
    // A signal that came between the start of the child and this line missed it.
    if INTERRUPTED.load(Ordering::SeqCst) {
        let _ = kill_process_group(pid, Signal::TERM);
    }
}

/// Forgets a group. To be called before its leader is reaped: from then on the number may belong
/// to somebody else.
pub fn unregister(pid: Pid) {
    groups().retain(|group| *group != pid);
}
