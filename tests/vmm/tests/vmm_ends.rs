// SPDX-License-Identifier: Apache-2.0
//! How a VM ends, and what the VMM's exit status says: each row of the table in docs/vmm.md.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm::abi::ext;
use gzvm::Gzvm;
use gzvm_vmm::layout::{MIB, RAM_BASE};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{Setup, Vmm};
use gzvm_vmm_test::{tests, GUESTS, PATIENCE};
use nix::sys::signal::Signal;
use std::thread;
use std::time::Duration;

/// The payload with this command line.
fn payload(mut setup: Setup, params: &str) -> Result<(Vmm, Console)> {
    let console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(&format!("{GUESTS}/payload.bin"))?;
    setup.args("--mem 16").arg("--params").arg(params).arg(&kernel);
    Ok((setup.start()?, console))
}

fn power_off_is_success() -> Result<()> {
    let (vmm, mut console) = payload(Setup::new()?, "mode=hello")?;
    console.expect("payload: done", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

fn what_cannot_start_is_start_failed() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--mem 16 /no/such/kernel");
    setup.start()?.wait()?.check(1, "/no/such/kernel")?;
    let mut setup = Setup::new()?;
    setup.args("--mem 1000000").arg(&format!("{GUESTS}/payload.bin"));
    setup.start()?.wait()?.check(1, "the VM needs 1000000 MiB")
}

fn reset_is_reboot() -> Result<()> {
    let (vmm, _console) = payload(Setup::new()?, "mode=panic")?;
    vmm.wait()?.check(32, "")?;
    // Without --extended-status, as crosvm says it.
    let (vmm, _console) = payload(Setup::with(&["run"]), "mode=panic")?;
    vmm.wait()?.check(0, "")
}

/// A guest whose devices' rings are private: the VMM says so instead of hanging. It finds out by
/// asking the driver, or where that cannot tell, by a SIGBUS.
fn guest_without_restricted_dma_is_a_crash() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--protected-vm-without-firmware --swiotlb 0 --mem 128");
    let console = setup.console("hardware=serial,num=1")?;
    let initrd = setup.open(&format!("{GUESTS}/linux-initramfs.cpio.gz"))?;
    let kernel = setup.open(&format!("{GUESTS}/Image"))?;
    setup.arg("--initrd").arg(&initrd).arg("--params").arg(COMMANDS).arg(&kernel);
    let ended = setup.start()?.wait()?;
    drop(console);
    ended.check(33, "is private: the guest lacks restricted DMA for this device")?;
    let (_, address) =
        ended.said.split_once("rng queue 0: guest address 0x").context("no queue")?;
    let address = address.split_whitespace().next().context("no address")?;
    let address = u64::from_str_radix(address, 16)?;
    ensure!((RAM_BASE..RAM_BASE + 128 * MIB).contains(&address), "{address:#x} is no memory");
    // Which way it was: the transport says this only where it asked.
    let extensions = Gzvm::open()?.check_extension(ext::DISCOVER)?.unwrap_or(0);
    let asked = ended.said.contains("a queue is not shared with the host");
    ensure!(asked == (extensions & ext::RANGE_STATE != 0), "the driver was asked: {asked}");
    Ok(())
}

fn reported_panic_is_unknown() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--mem 128");
    let guest = Guest::boot(setup, COMMANDS)?;
    // Ends init.
    guest.end("exit 1")?.check(34, "the guest panicked")
}

fn panic_that_nobody_reports_is_reboot() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--mem 128");
    let params = format!("{COMMANDS} initcall_blacklist=pvpanic_pci_driver_init");
    let guest = Guest::boot(setup, &params)?;
    guest.end("exit 1")?.check(32, "")
}

fn bad_arguments_are_unknown() -> Result<()> {
    Setup::with(&["run", "--frobnicate", "k"]).start()?.wait()?.check(35, "--frobnicate")?;
    Setup::with(&["run", "--gpu=x", "k"]).start()?.wait()?.check(35, "--gpu is not supported")
}

fn stalled_vcpu_is_watchdog_reboot() -> Result<()> {
    let (vmm, mut console) = payload(Setup::new()?, "mode=stall")?;
    console.expect("stall: ", PATIENCE)?;
    vmm.wait()?.check(36, "vCPU 0 is stuck")
}

/// A VM that its host does not run is not stuck.
fn stopped_vmm_is_no_stall() -> Result<()> {
    let (mut vmm, mut console) = payload(Setup::new()?, "mode=watched")?;
    console.expect("watched: 1", PATIENCE)?;
    vmm.signal(Signal::SIGSTOP)?;
    // Four times the budget.
    thread::sleep(Duration::from_secs(4));
    vmm.signal(Signal::SIGCONT)?;
    // The guest goes on, for longer than the budget.
    for round in ["20", "40"] {
        console.expect(&format!("watched: {round}"), PATIENCE)?;
    }
    ensure!(vmm.runs(), "it has ended: {}", vmm.said());
    vmm.signal(Signal::SIGTERM)?;
    vmm.wait()?.check(-(Signal::SIGTERM as i32), "")
}

fn vmm_without_parent_ends() -> Result<()> {
    let (mut vmm, mut console) = payload(Setup::new()?, "mode=idle")?;
    console.expect("idle: ", PATIENCE)?;
    vmm.abandon();
    vmm.wait()?.check(0, "nobody reads the failure port any more")
}

fn main() {
    tests![
        power_off_is_success,
        what_cannot_start_is_start_failed,
        reset_is_reboot,
        guest_without_restricted_dma_is_a_crash,
        reported_panic_is_unknown,
        panic_that_nobody_reports_is_reboot,
        bad_arguments_are_unknown,
        stalled_vcpu_is_watchdog_reboot,
        stopped_vmm_is_no_stall,
        vmm_without_parent_ends,
    ]
}
