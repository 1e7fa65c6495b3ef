// SPDX-License-Identifier: Apache-2.0
//! The subcommands that `vm` and `gzvmctl` share, on a machine with `/dev/gzvm`: check, stats, stop.

#![forbid(unsafe_code)]

mod check;
mod stats;
mod stop;

use anyhow::{ensure, Context, Result};
use check::*;
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::vmm::{Setup, Vmm};
use gzvm_vmm_test::{tests, GUESTS, PATIENCE};
use stats::*;
use std::process::Command;
use stop::*;

/// Somebody who may do nothing special.
const NOBODY: u32 = 1000;

/// A VM of the payload, which is where its console says `ready`.
struct Payload {
    vmm: Vmm,
    // Its other end belongs to the guest.
    _console: Console,
}

/// Starts the payload as AVF would name it.
fn payload(name: &str, cid: u32, mode: &str, more: &str, ready: &str) -> Result<Payload> {
    let mut setup = Setup::new()?;
    setup.args(&format!("--name crosvm_{name} --cid {cid} {more}"));
    let mut console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(&format!("{GUESTS}/payload.bin"))?;
    setup.arg("--params").arg(&format!("mode={mode}")).arg(&kernel);
    let vmm = setup.start()?;
    console.expect(ready, PATIENCE)?;
    Ok(Payload { vmm, _console: console })
}

/// Runs a command of `vm`; what it printed on standard output.
fn vm(args: &str) -> Result<String> {
    let output = Command::new("vm").args(args.split_whitespace()).output().context("vm")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "vm {args}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command of `vm` that must fail, as this user; its one line of error.
fn vm_fails(args: &str, uid: u32) -> Result<String> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("vm");
    let output = command.args(args.split_whitespace()).uid(uid).gid(uid).output().context("vm")?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "vm {args}: {}: {error}", output.status);
    ensure!(error.starts_with("Error: ") && error.lines().count() == 1, "vm {args}: {error}");
    Ok(error)
}

fn main() {
    tests![
        machine_has_everything,
        limits_are_the_hypervisors,
        gzvmctl_says_the_same,
        memory_that_the_host_lacks,
        module_that_is_not_loaded,
        another_user_gets_what_is_known,
        limit_on_locked_memory_counts_to_the_byte,
        statistics_agree_with_the_kernels_own,
        statistics_of_no_vm,
        statistics_are_roots,
        watching_ends_with_the_vm,
        watched_numbers_grow,
        stopped_by_name,
        what_does_not_stop_is_killed,
        what_cannot_be_stopped_is_named,
    ]
}
