// SPDX-License-Identifier: Apache-2.0
//! VMs beside each other, and what the tool says of them meanwhile.

use crate::chain::inventory::Before;
use crate::chain::run::{linux, payload, vm, VmRun};
use crate::chain::services::{or_log, services};
use anyhow::{ensure, Context, Result};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::PATIENCE;
use nix::pty::openpty;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// When something is typed again that may have been lost.
const AGAIN: Duration = Duration::from_secs(3);

/// One VM's lines in `vm list`.
pub fn listed(list: &str, cid: u32) -> Option<String> {
    let rest = list.split_once(&format!("cid: {cid},"))?.1;
    Some(rest.split_once('}')?.0.to_owned())
}

/// The only VM of this name that `vm stats` shows.
fn stats(name: &str) -> Result<Value> {
    let text = vm(&format!("stats --json {name}"))?;
    let mut vms: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(vms.len() == 1, "{text}");
    vms.pop().context("no VM")
}

pub fn protected_linux_and_a_second_vm() -> Result<()> {
    let services = services()?;
    let services = services.as_ref().context("no services")?;
    let before = Before::take(services)?;
    let linux = linux(true)?;
    let payload = payload("idle", false)?;
    let started = VmRun::ready(
        &[&linux, "--name", "first", "--cpu-topology", "cpu_count=2"],
        "guest: commands",
    );
    let (mut first, cid) = or_log(started)?;
    let (second, other) = or_log(VmRun::ready(&[&payload, "--name", "second"], "idle: "))?;
    ensure!(cid != other && [cid, other].iter().all(|cid| (2048..65_536).contains(cid)));
    first.send("grep -c ^processor /proc/cpuinfo; cat /sys/kernel/gzvm_guest/protected")?;
    first.expect("2")?;
    first.expect("yes")?;

    let list = vm("list")?;
    for (cid, vm) in [(cid, &first), (other, &second)] {
        let info = listed(&list, cid).with_context(|| list.clone())?;
        let dir = format!("/run/gzvm/{cid}");
        let parts = [
            format!("temporaryDirectory: \"{dir}\","),
            "requesterUid: 0,".to_owned(),
            format!("requesterPid: {},", vm.pid()),
            "hostConsoleName: None,".to_owned(),
        ];
        ensure!(parts.iter().all(|part| info.contains(part)), "{info}");
        let meta = fs::metadata(&dir).with_context(|| dir.clone())?;
        ensure!((meta.mode() & 0o7777, meta.uid()) == (0o700, 0), "{dir}: {:o}", meta.mode());
        let line = fs::read(format!("/proc/{}/cmdline", vm.vmm().context("no VMM")?))?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        ensure!(line.contains(&format!(" --cid {cid} ")), "{line}");
    }

    let info = vm("info")?;
    for line in [
        "Both protected and non-protected VMs are supported.",
        "/dev/gzvm exists.",
        "Assignable devices: []",
        "Available OS list: []",
        "Debug policy: DebugPolicy {",
    ] {
        ensure!(info.contains(line), "no {line}: {info}");
    }
    // Its exit status is the answer.
    vm("check --protected")?;
    let (one, two) = (stats("first")?, stats("second")?);
    ensure!(one["protected"] == true && two["protected"] == false, "{one} {two}");
    ensure!(one["cid"] == cid && two["cid"] == other, "{one} {two}");
    for vm in [&one, &two] {
        // The driver's number, and the service's.
        let number = |name: &str| vm[name].as_u64().with_context(|| format!("no {name}: {vm}"));
        ensure!((1..=number("resident")?).contains(&number("pinned")?), "{vm}");
        number("guest_ns")?;
    }
    ensure!(one["guest_ns"].as_u64() > Some(0), "{one}");
    let clock = vm(&format!("clock {cid}"))?;
    ensure!(clock.contains("guest - host = "), "{clock}");

    ensure!(vm(&format!("stop {other}"))?.contains("VM second"));
    second.ends("Killed")?;
    ensure!(listed(&vm("list")?, other).is_none(), "it has ended");
    first.send("poweroff -f")?;
    first.ends("Shutdown")?;
    before.is_back(services)
}

pub fn a_console_of_its_own() -> Result<()> {
    let services = services()?;
    let before = Before::take(services.as_ref().context("no services")?)?;
    let (mut vm_run, cid) = or_log(VmRun::ready(&[&linux(false)?, "--pty"], "guest: commands"))?;
    let info = listed(&vm("list")?, cid).context("it is not listed")?;
    ensure!(info.contains("hostConsoleName: Some("), "{info}");
    // `vm console` wants a terminal, which shows what the guest's shows.
    let ours = openpty(None, None).context("openpty")?;
    let theirs = || -> Result<Stdio> { Ok(Stdio::from(ours.slave.try_clone()?)) };
    let mut console = Command::new("vm");
    console.args(["console", &cid.to_string()]).stdin(theirs()?).stdout(theirs()?);
    let mut console = console.stderr(theirs()?).spawn().context("vm console")?;
    let output = File::from(ours.master.try_clone()?);
    let mut screen = Console::new(output, Some(File::from(ours.master)));
    // What is typed before it shows anything is lost.
    let deadline = Instant::now() + PATIENCE;
    let mut shown = Ok(String::new());
    while Instant::now() < deadline {
        screen.send("echo $((6 * 7)) is it")?;
        shown = screen.expect("42 is it", AGAIN);
        if shown.is_ok() {
            break;
        }
    }
    console.kill()?;
    console.wait()?;
    shown?;
    vm_run.expect("42 is it")?;
    vm(&format!("stop {cid}"))?;
    vm_run.ends("Killed")?;
    before.is_back(services.as_ref().context("no services")?)
}
