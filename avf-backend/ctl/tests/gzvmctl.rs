// SPDX-License-Identifier: Apache-2.0
//! `gzvmctl` as a process, with shells in the VMMs' place.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};

/// A process that looks like a VMM and runs `script`, which says when it is ready.
struct FakeVmm(Child);

impl FakeVmm {
    fn new(name: &str, cid: u32, script: &str) -> Self {
        use std::io::Read;
        let mut shell = Command::new("sh");
        shell.arg0("gzvm_vmm").args(["-c", &format!("{script}; echo; read forever"), "run"]);
        shell.args(["--name", &format!("crosvm_{name}"), "--cid", &cid.to_string()]);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }

    /// The signal that ended it.
    fn signal(&mut self) -> Option<i32> {
        self.0.wait().unwrap().signal()
    }
}

impl Drop for FakeVmm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gzvmctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gzvmctl")).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A name that no other test and no other process has.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[test]
fn a_vmm_is_asked_to_end() {
    let name = unique("asked");
    let mut vmm = FakeVmm::new(&name, 70_001, ":");
    let pid = vmm.0.id();
    let output = gzvmctl(&["stop", &name]);
    let expected = format!("Stopped VM {name} with CID 70001 (process {pid}).\n");
    assert_eq!((out(&output), err(&output)), (expected, String::new()));
    assert_eq!(vmm.signal(), Some(15));
    assert_eq!(gzvmctl(&["stop", &name]).status.code(), Some(1), "it has ended");
}

#[test]
fn a_vmm_that_does_not_end_is_killed() {
    let mut vmm = FakeVmm::new(&unique("deaf"), 70_002, "trap '' TERM");
    let output = gzvmctl(&["stop", "--timeout", "0", "70002"]);
    assert!(out(&output).starts_with("Killed VM deaf-"), "{}{}", out(&output), err(&output));
    assert_eq!(vmm.signal(), Some(9));
}

#[test]
fn a_name_of_two_is_refused() {
    let name = unique("twins");
    let mut vmms = [70_003, 70_004].map(|cid| FakeVmm::new(&name, cid, ":"));
    let output = gzvmctl(&["stop", &name]);
    let error = err(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("CID 70003") && error.contains("CID 70004"), "{error}");
    assert!(vmms.iter_mut().all(|vmm| vmm.0.try_wait().unwrap().is_none()), "one has ended");
}

#[test]
fn it_has_what_vm_has_and_no_more() {
    let help = out(&gzvmctl(&["--help"]));
    for subcommand in ["check", "stats", "clock", "stop"] {
        assert!(help.contains(&format!("\n  {subcommand} ")), "{help}");
    }
    assert_eq!(gzvmctl(&["run", "x.json"]).status.code(), Some(2));
}
