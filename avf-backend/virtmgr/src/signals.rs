// SPDX-License-Identifier: Apache-2.0
//! What a terminal sends to all processes at once ends the client, and with that this process: in
//! order, so that nothing of its VMs stays behind.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

fn terminals() -> SigSet {
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP].into_iter().collect()
}

/// Has this thread, and those that it starts, not notice.
pub fn outlive_the_terminal() {
    // If it cannot be, the next virtmgr sweeps up.
    let _ = terminals().thread_block();
}

/// Starts a process that notices.
pub fn unblocked<T>(spawn: impl FnOnce() -> T) -> T {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
    let spawned = spawn();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    spawned
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::thread;

    #[test]
    fn only_this_process_outlives_the_terminal() {
        // Of a thread of its own: it is the test program's too.
        let test = || {
            outlive_the_terminal();
            let blocked = || {
                let status = Command::new("grep").args(["SigBlk", "/proc/self/status"]).output();
                String::from_utf8(status.unwrap().stdout).unwrap()
            };
            // Bits 0, 1 and 2: signals 1 to 3.
            assert_eq!(blocked(), "SigBlk:\t0000000000000007\n");
            assert_eq!(unblocked(blocked), "SigBlk:\t0000000000000000\n");
            assert!(SigSet::thread_get_mask().unwrap().contains(Signal::SIGINT));
        };
        thread::spawn(test).join().unwrap();
    }
}
