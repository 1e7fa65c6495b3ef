// SPDX-License-Identifier: Apache-2.0
//! How a VM ends, and what the VMM's exit status says: each row of the table in docs/vmm.md.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm::abi::ext;
use gzvm::Gzvm;
use gzvm_vmm::layout::{MIB, RAM_BASE};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{pipe, Setup, Vmm};
use gzvm_vmm_test::{control, tests, GUESTS, PATIENCE};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
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

/// Files that are not what they should be, and descriptors that are not there.
fn what_is_handed_over_is_looked_at() -> Result<()> {
    let payload = format!("{GUESTS}/payload.bin");
    let dir = "/tmp/vmm_ends";
    fs::create_dir_all(dir)?;
    let file = |name: &str, contents: &[u8]| -> Result<String> {
        let path = format!("{dir}/{name}");
        fs::write(&path, contents)?;
        Ok(path)
    };
    let whole = fs::read(&payload)?;
    let (cut, empty) = (file("cut", &whole[..40])?, file("empty", b"")?);
    let (text, qcow2) = (file("text", b"precious")?, file("qcow2", b"QFI\xfb\0\0\0\x03")?);
    let mut foreign = b"composite_disk\x1d".to_vec();
    // Version 2, a component of 4 KiB that is /etc/passwd, read only.
    foreign.extend(b"\x08\x02\x12\x0d\x0a\x0b/etc/passwd\x18\x80\x20");
    let foreign = file("foreign", &foreign)?;
    let long = format!("{dir}/{}", "x".repeat(200));
    for (args, said) in [
        (cut, "not an arm64 kernel Image"),
        (empty.clone(), "empty: empty"),
        (format!("--initrd {empty} {payload}"), "initrd /tmp/vmm_ends/empty: empty"),
        (format!("--initrd {dir} {payload}"), "not a regular file"),
        (format!("--mem 16 --initrd {payload} --bios {payload}"), "--bios"),
        ("/proc/self/fd/99".into(), "no such descriptor was handed to this process"),
        // Its own: the device, or whatever has that number there.
        ("--block path=/proc/self/fd/3 /proc/self/fd/3".into(), "no such descriptor was handed"),
        (format!("--serial type=file,path=/proc/self/fd/99,num=1 {payload}"), "output of ttyS0"),
        (
            format!("--serial type=file,path={dir},num=1 {payload}"),
            "output of ttyS0: Is a directory",
        ),
        (format!("--block path={dir} {payload}"), "disk /tmp/vmm_ends: "),
        (format!("--block path=/dev/null {payload}"), "neither a file nor a block device"),
        (format!("--block path={qcow2} {payload}"), "qemu-img convert -O raw"),
        (
            format!("--block path={foreign},ro=true {payload}"),
            "/etc/passwd: only files that were handed",
        ),
        (format!("--dump-device-tree-blob {dir}/no/tree {payload}"), "/tmp/vmm_ends/no/tree"),
        (format!("--device-tree-overlay {text} {payload}"), "not a device tree blob"),
        (format!("--socket {long} {payload}"), "a socket's name has 107 bytes at most"),
        (format!("--socket {text} {payload}"), "there is a file already"),
        (format!("--cid 2 {payload}"), "vsock context id 2 is not a guest's"),
        (format!("--swiotlb 64 --protected-vm-without-firmware --mem 64 {payload}"), "--mem"),
        (
            format!("--protected-vm-with-firmware {dir}/none {payload}"),
            "firmware /tmp/vmm_ends/none",
        ),
    ] {
        let mut setup = Setup::new()?;
        setup.args(&args);
        let ended = setup.start()?.wait()?;
        let status = if said == "--bios" { 35 } else { 1 };
        ended.check(status, said).with_context(|| args.clone())?;
    }
    ensure!(fs::read(&text)? == b"precious", "a file was taken for a socket");
    let mut setup = Setup::new()?;
    let disk = setup.file(fs::File::open(&text)?);
    setup.arg("--block").arg(&format!("path={disk},ro=false")).arg(&payload);
    setup.start()?.wait()?.check(1, "disk /tmp/vmm_ends/text: the inherited descriptor is not open")
}

/// Two VMs cannot have one context id or one socket; the first goes on.
fn two_vms_do_not_get_in_each_others_way() -> Result<()> {
    const SOCKET: &str = "/tmp/vmm_ends.sock";
    let idle = |more: &str| {
        let mut setup = Setup::new()?;
        setup.args(more);
        payload(setup, "mode=idle")
    };
    let (mut vmm, mut console) = idle(&format!("--cid 4323 --socket {SOCKET}"))?;
    console.expect("idle: ", PATIENCE)?;
    let (second, _console) = idle("--cid 4323")?;
    second.wait()?.check(1, "vsock context id 4323 is another VM's")?;
    let (second, _console) = idle(&format!("--cid 4324 --socket {SOCKET}"))?;
    second.wait()?.check(1, "control socket /tmp/vmm_ends.sock: another VM uses it")?;
    let (other, mut others_console) = idle("--cid 4324")?;
    others_console.expect("idle: ", PATIENCE)?;
    ensure!(vmm.runs(), "the first VM has ended: {}", vmm.said());
    ensure!(control::ask(Path::new(SOCKET), &json!("Exit"))? == "Ok");
    vmm.wait()?.check(0, "ended through the control socket")?;
    other.signal(Signal::SIGTERM)?;
    other.wait()?.check(-(Signal::SIGTERM as i32), "")
}

/// Standard input, output and error closed: nothing that is opened takes their place.
fn closed_standard_streams_are_no_obstacle() -> Result<()> {
    let payload = format!("{GUESTS}/payload.bin");
    let console = "/tmp/vmm_ends.console";
    let line = format!(
        "exec gzvm_vmm --extended-status run --mem 16 --params mode=hello \
         --serial type=file,path={console},input=/dev/null,num=1 \
         --serial type=stdout,stdin,num=3 {payload} <&- >&- 2>&-"
    );
    let status = Command::new("sh").args(["-c", &line]).status()?;
    ensure!(status.code() == Some(0), "status {status}");
    let text = fs::read_to_string(console)?;
    ensure!(text.contains("payload: 6 checks, 0 failed"), "{text}");
    Ok(())
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
    Setup::with(&["run", "--gpu=x", "k"]).start()?.wait()?.check(35, "--gpu is not supported")?;
    // Nobody reads why.
    let (reader, writer) = pipe()?;
    drop(reader);
    let status = Command::new("gzvm_vmm").args(["run", "--gpu=x", "k"]).stderr(writer).status()?;
    ensure!(status.code() == Some(35), "status {status}");
    Ok(())
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
        what_is_handed_over_is_looked_at,
        two_vms_do_not_get_in_each_others_way,
        closed_standard_streams_are_no_obstacle,
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
