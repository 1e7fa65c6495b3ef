// SPDX-License-Identifier: Apache-2.0
//! What a terminal sends to all processes at once ends the client, and with that this process: in
//! order, so that nothing of its VMs stays behind.

use nix::sys::signal::{SigSet, Signal};

/// Has this thread, and those that it starts, not notice. VMMs inherit that. Ours waits for such
/// signals and ends by itself, and any other ends with this process.
pub fn outlive_the_terminal() {
    let signals = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
    // If it cannot be, the next virtmgr sweeps up.
    let _ = signals.into_iter().collect::<SigSet>().thread_block();
}
