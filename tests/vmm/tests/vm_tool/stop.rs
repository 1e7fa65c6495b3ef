// SPDX-License-Identifier: Apache-2.0
//! `vm stop`.

use crate::{payload, vm, vm_fails, Payload, NOBODY};
use anyhow::{ensure, Result};
use nix::sys::signal::Signal;

fn sleeper(name: &str, cid: u32) -> Result<Payload> {
    payload(name, cid, "idle", "--mem 16", "idle: ")
}

pub fn stopped_by_name() -> Result<()> {
    let (one, mut other) = (sleeper("one", 4510)?, sleeper("other", 4511)?);
    let said = vm("stop one")?;
    ensure!(said.starts_with("Stopped VM one with CID 4510 (process "), "{said}");
    ensure!(other.vmm.runs(), "the other VM has ended");
    one.vmm.wait()?.check(-(Signal::SIGTERM as i32), "")?;
    ensure!(vm("stop 4511")?.starts_with("Stopped VM other"));
    other.vmm.wait()?.check(-(Signal::SIGTERM as i32), "")?;
    ensure!(vm("stats")? == "No VM runs.\n");
    Ok(())
}

/// A VMM that was stopped by a debugger, or hangs, does not answer a SIGTERM.
pub fn what_does_not_stop_is_killed() -> Result<()> {
    let stuck = sleeper("stuck", 4512)?;
    stuck.vmm.signal(Signal::SIGSTOP)?;
    let said = vm("stop --timeout 1 4512")?;
    ensure!(said.starts_with("Killed VM stuck with CID 4512"), "{said}");
    stuck.vmm.wait()?.check(-(Signal::SIGKILL as i32), "")
}

pub fn what_cannot_be_stopped_is_named() -> Result<()> {
    ensure!(vm_fails("stop 1", 0)?.contains("none runs that this user can see"));
    let (mut one, mut two) = (sleeper("same", 4513)?, sleeper("same", 4514)?);
    let error = vm_fails("stop nobody", 0)?;
    ensure!(error.contains("CID 4513") && error.contains("CID 4514"), "{error}");
    let error = vm_fails("stop same", 0)?;
    ensure!(error.contains("not the name of one VM only"), "{error}");
    let error = vm_fails("stop 4513", NOBODY)?;
    ensure!(error.contains("VM same with CID 4513") && error.contains("another user's"), "{error}");
    ensure!(one.vmm.runs() && two.vmm.runs(), "one has ended");
    Ok(())
}
