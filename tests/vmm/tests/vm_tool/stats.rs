// SPDX-License-Identifier: Apache-2.0
//! `vm stats`: its numbers against those that the kernel keeps elsewhere.

use crate::{payload, vm, vm_fails, Payload, NOBODY};
use anyhow::{ensure, Context, Result};
use gzvm_vmm::layout::MIB;
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::host::{field, settles};
use gzvm_vmm_test::vmm::pipe;
use gzvm_vmm_test::PATIENCE;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};
use std::time::Instant;

const TRACING: &str = "/sys/kernel/tracing";
/// The driver's trace event of exits.
const EVENT: &str = "events/geniezone/mtk_vcpu_exit/enable";
const MEMORY_MIB: u64 = 24;
const POOL_MIB: u64 = 8;

/// The only VM's statistics.
fn stats(vm_name: &str) -> Result<Value> {
    let text = vm(&format!("stats --json {vm_name}"))?;
    let mut vms: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(vms.len() == 1, "{text}");
    vms.pop().context("no VM")
}

/// Exits by reason, of all vCPUs.
fn exits(vm: &Value) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for vcpu in vm["vcpus"].as_array().into_iter().flatten() {
        for (reason, count) in vcpu["exits"].as_object().into_iter().flatten() {
            *all.entry(reason.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    all
}

/// Has the kernel record exits, until the end of the value.
struct Trace;

impl Trace {
    fn start() -> Result<Self> {
        fs::write(format!("{TRACING}/trace"), "").context("tracing")?;
        fs::write(format!("{TRACING}/{EVENT}"), "1").context("tracing")?;
        Ok(Self)
    }

    /// Exits by reason, as statistics name them.
    fn exits(&self) -> Result<BTreeMap<String, u64>> {
        let text = fs::read_to_string(format!("{TRACING}/trace")).context("tracing")?;
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let Some((_, rest)) = line.split_once("exit_reason=") else { continue };
            let reason = rest.split('(').next().unwrap_or_default().to_lowercase();
            *all.entry(reason).or_default() += 1;
        }
        Ok(all)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Tests that follow do not look at it.
        let _ = fs::write(format!("{TRACING}/{EVENT}"), "0");
    }
}

/// A protected VM that is asleep.
fn sleeper(name: &str, cid: u32) -> Result<Payload> {
    let more = format!("--protected-vm-without-firmware --swiotlb {POOL_MIB} --mem {MEMORY_MIB}");
    payload(name, cid, "idle", &more, "idle: ")
}

pub fn statistics_agree_with_the_kernels_own() -> Result<()> {
    let trace = Trace::start()?;
    let started = Instant::now();
    let sleeper = sleeper("agree", 4501)?;
    // The guest may still be on its way to sleep.
    settles("exits as traced", || {
        let counted = exits(&stats("agree")?);
        Ok(counted.contains_key("idle") && counted == trace.exits()?)
    })
    .with_context(|| {
        format!("{:?}, traced {:?}", exits(&stats("agree").unwrap_or_default()), trace.exits())
    })?;
    let vm = stats("4501")?;
    let elapsed = started.elapsed();
    ensure!(vm["protected"] == true && vm["name"] == "agree" && vm["cid"] == 4501, "{vm}");
    let number = |name: &str| vm[name].as_u64().with_context(|| format!("no {name}: {vm}"));
    let pinned = field(&format!("/proc/{}/status", sleeper.vmm.pid()), "VmPin")? * 1024;
    ensure!(number("pinned")? == pinned && pinned > 0, "{pinned} bytes are charged: {vm}");
    ensure!(number("memory")? == MEMORY_MIB * MIB, "{vm}");
    ensure!(number("saved")? == MEMORY_MIB * MIB - pinned, "{vm}");
    // The pool, as far as it was used, and nothing else.
    ensure!(number("shared")? <= POOL_MIB * MIB, "{vm}");
    ensure!(number("hypervisor")? > 0, "{vm}");
    let vcpu = &vm["vcpus"][0];
    let run_ns = vcpu["run_ns"].as_u64().unwrap_or(0);
    ensure!(run_ns > 0 && u128::from(run_ns) <= elapsed.as_nanos(), "in {elapsed:?}: {vm}");
    ensure!(vcpu["faults"].as_u64() > Some(0), "{vm}");
    Ok(())
}

pub fn statistics_of_no_vm() -> Result<()> {
    ensure!(vm("stats")? == "No VM runs.\n");
    ensure!(vm("stats --json")? == "[]\n");
    let error = vm_fails("stats nobody", 0)?;
    ensure!(error.contains("no VM with CID or name nobody"), "{error}");
    Ok(())
}

pub fn statistics_are_roots() -> Result<()> {
    let error = vm_fails("stats", NOBODY)?;
    ensure!(error.contains("unknown (no permission)"), "{error}");
    Ok(())
}

/// A running `vm stats --watch`, killed with the value.
struct Watcher(Child);

impl Watcher {
    fn start(args: &[&str]) -> Result<(Self, Console)> {
        let (output, writer) = pipe()?;
        let mut vm = Command::new("vm");
        vm.args(["stats", "--watch=1"]).args(args).stdout(writer);
        let child = vm.spawn().context("vm")?;
        Ok((Self(child), Console::new(output, None)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn watching_ends_with_the_vm() -> Result<()> {
    let sleeper = sleeper("watched", 4502)?;
    let (mut watcher, mut lines) = Watcher::start(&["watched"])?;
    lines.expect("VM watched with CID 4502", PATIENCE)?;
    lines.expect(" %, ", PATIENCE)?;
    sleeper.vmm.signal(Signal::SIGKILL)?;
    sleeper.vmm.wait()?;
    settles("the end of vm stats", || Ok(watcher.0.try_wait()?.is_some()))?;
    ensure!(watcher.0.wait()?.success());
    Ok(())
}

pub fn watched_numbers_grow() -> Result<()> {
    let busy = payload("busy", 4503, "spin", "--mem 16", "spin: ")?;
    let (_watcher, mut lines) = Watcher::start(&["--json"])?;
    let mut run_ns = || -> Result<u64> {
        let line = lines.expect("busy", PATIENCE)?;
        let vms: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        vms[0]["vcpus"][0]["run_ns"].as_u64().with_context(|| line.clone())
    };
    let (first, second) = (run_ns()?, run_ns()?);
    ensure!(second > first, "{first} ns, then {second} ns");
    busy.vmm.signal(Signal::SIGKILL)?;
    busy.vmm.wait().map(drop)
}
