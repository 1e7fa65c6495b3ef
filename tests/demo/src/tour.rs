// SPDX-License-Identifier: Apache-2.0
//! The demo from the first heading to the summary.

use crate::claims::{attempted, observed, Claims, Observed};
use crate::host::{self, KernelLog};
use crate::screen::Screen;
use crate::vm::{Ended, Vm};
use crate::vmm::Vmm;
use crate::{dump, isolation, Tools};
use anyhow::{ensure, Context, Result};
use std::fs;
use std::time::Duration;

/// How long anything may take that does not depend on the guest's speed alone. A machine under load
/// that only emulates another is slow; what hangs is found all the same.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How AVF's tool ends its report on a VM that turned itself off.
pub const SHUTDOWN: &str = "VM ended: Shutdown";

/// How a Linux guest's first message on the console begins.
const FIRST_MESSAGE: &str = "[    0.000000] ";

/// Runs the demo; returns whether all its claims held.
pub fn run(tools: &Tools) -> bool {
    let screen = Screen::new();
    let mut claims = Claims::new(screen);
    let mut log = KernelLog::open();

    screen.heading("1. The host: Linux at EL1, a hypervisor at EL2");
    host_claims(&mut claims, &mut log);

    screen.heading("2. A protected Linux VM");
    let result = linux(&claims, tools);
    claims.record("protected-linux", "a protected Linux VM ran from boot to power-off", result);

    screen.heading("3. A protected bare-metal VM");
    let result = payload(&claims, tools);
    claims.record("protected-payload", "a protected bare-metal VM ran its checks", result);

    screen.heading("4. Isolation: what the host's administrator gets of a guest's secret");
    isolation::show(&mut claims, tools);
    let healthy = attempted(healthy(&mut log));
    claims.record("host-healthy", "the host's kernel reports no defect of its own", healthy);

    screen.heading("5. Summary");
    screen.note("Not isolated: DMA. This machine has no IOMMU, so a device that the host programs");
    screen.note("could still read and write a protected VM's memory.");
    claims.summarize()
}

/// What is below and around the host's kernel.
fn host_claims(claims: &mut Claims, log: &mut KernelLog) {
    let el1 = attempted(log.find("All CPU(s) started at EL1"));
    claims.record("host-at-el1", "the host's Linux runs at EL1, by its own log", el1);

    let node = attempted(host::device_tree_node("mediatek,geniezone"));
    claims.record("hypervisor-announced", "a hypervisor announces itself as GenieZone", node);

    let driver = attempted(log.find("gzvm: GenieZone"));
    let device = fs::exists("/dev/gzvm").unwrap_or(false);
    let driver = driver.and_then(|said| observed(device, said, "there is no /dev/gzvm"));
    claims.record("driver-found-geniezone", "gzvm.ko found it and offers /dev/gzvm", driver);
}

/// That the kernel has not reported a defect.
fn healthy(log: &mut KernelLog) -> Result<String> {
    let defects = log.defects()?;
    ensure!(defects.is_empty(), "{}", defects.join("; "));
    Ok(format!("{} messages", log.messages()?.len()))
}

/// A Linux guest from boot to power-off.
fn linux(claims: &Claims, tools: &Tools) -> Observed {
    boot(claims, tools, "linux-protected.json", |vm| {
        // The guest runs from here: its first page is one that the kernel has begun in.
        vm.expect(FIRST_MESSAGE, PATIENCE)?;
        let access = dump::load_by_user(&Vmm::find(vm.pid())?, 0)?;
        ensure!(dump::is_bus_error(access), "its memory is open to the host: {access}");
        let cid = host::listed(&tools.vm, vm.pid())?;
        vm.expect("guest: user space reached", PATIENCE)?;
        let seconds = vm.age().as_secs_f32();
        let uid = vm.expect("guest: hypervisor ", PATIENCE)?;
        ensure!(uid.ends_with("(GenieZone)"), "the guest sees the hypervisor {uid}");
        let protected = vm.expect("guest: protected ", PATIENCE)?;
        ensure!(protected == "yes", "the guest sees: protected {protected}");
        let memory = vm.expect("guest: memory ", PATIENCE)?;
        let cpus = vm.expect("guest: cpus ", PATIENCE)?;
        let sum = vm.expect("guest: checksum ", PATIENCE)?;
        ensure!(sum.contains("agree"), "the guest's memory does not hold what was written: {sum}");
        Ok(format!(
            "user space after {seconds:.1} s; its memory is closed to the host; vm list has it \
             with CID {cid}; it sees: protected, {memory}, cpus {cpus}"
        ))
    })
}

/// The payload's checks.
fn payload(claims: &Claims, tools: &Tools) -> Observed {
    boot(claims, tools, "payload-protected.json", |vm| {
        let protected = vm.expect("payload: protected ", PATIENCE)?;
        ensure!(protected == "yes", "the payload sees: protected {protected}");
        loop {
            let said = vm.expect("payload: ", PATIENCE)?;
            if said.ends_with(" failed") {
                ensure!(said.ends_with(" 0 failed"), "the payload says: {said}");
                return Ok(format!("it sees: protected, {said}"));
            }
        }
    })
}

/// Runs a VM, watches it with `watch`, and checks that it ended by turning itself off.
fn boot(
    claims: &Claims,
    tools: &Tools,
    config: &str,
    watch: impl FnOnce(&mut Vm) -> Result<String>,
) -> Observed {
    let run = || {
        let mut vm = Vm::start(claims.screen(), &tools.vm, &tools.guests.join(config))?;
        let seen = watch(&mut vm)?;
        shut_down(&vm.finish(PATIENCE)?)?;
        Ok(format!("{seen}; {SHUTDOWN}"))
    };
    attempted(run())
}

/// Checks that a VM turned itself off and that the tool says so.
pub fn shut_down(ended: &Ended) -> Result<()> {
    let last = ended.lines.iter().rev().find(|line| line.starts_with("VM ended:"));
    let last = last.context("the tool did not say how the VM ended")?;
    ensure!(last == SHUTDOWN, "the tool says \"{last}\", not \"{SHUTDOWN}\"");
    ensure!(ended.status.success(), "the tool ended with {}", ended.status);
    Ok(())
}
