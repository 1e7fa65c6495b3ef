// SPDX-License-Identifier: Apache-2.0
//! `stop`: ends a VM by ending its VMM.

use crate::cli::StopArgs;
use crate::output;
use crate::vmms::{self, Vmm};
use anyhow::{bail, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a VMM that was killed may take: its memory is given back first.
const KILLED: Duration = Duration::from_secs(60);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Does what the command line asks for.
pub fn stop(args: &StopArgs) -> Result<()> {
    let proc = Path::new("/proc");
    let vmm = vmms::find(vmms::all(proc), &args.vm)?;
    let patience = Duration::from_secs(args.timeout);
    let label = vmm.label();
    if signalled(&vmm, Signal::SIGTERM, proc, patience)? {
        output::print(&format!("Stopped {label}.\n"))?;
    } else if signalled(&vmm, Signal::SIGKILL, proc, KILLED)? {
        let text = format!("Killed {label}: it did not stop within {} s.\n", args.timeout);
        output::print(&text)?;
    } else {
        bail!("{label} does not end, although it was killed: see the kernel's log (dmesg)");
    }
    Ok(())
}

/// Sends a signal and says whether the process ended in time.
fn signalled(vmm: &Vmm, signal: Signal, proc: &Path, patience: Duration) -> Result<bool> {
    if !vmm.runs(proc) {
        return Ok(true);
    }
    match kill(Pid::from_raw(vmm.pid), signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(true),
        Err(Errno::EPERM) => {
            bail!("{} is another user's: stop it as that user or as root", vmm.label())
        }
        Err(e) => bail!("{} cannot be stopped: {e}", vmm.label()),
    }
    let deadline = Instant::now() + patience;
    while vmm.runs(proc) {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(INTERVAL);
    }
    Ok(true)
}
