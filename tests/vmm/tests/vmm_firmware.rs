// SPDX-License-Identifier: Apache-2.0
//! Protected VMs that start with firmware: the stand-in for AVF's walks its calls, checks the device
//! tree, and starts the payload, or says why not.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node as _, Property as _};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{Setup, Vmm};
use gzvm_vmm_test::{overlay, tests, GUESTS, PATIENCE};
use std::fs::{self, File};
use std::process::Command;

/// A VM with firmware from a file.
fn with_firmware() -> Result<Setup> {
    let mut setup = Setup::new()?;
    let firmware = setup.open(&format!("{GUESTS}/pvmfw.bin"))?;
    setup.arg("--protected-vm-with-firmware").arg(&firmware);
    Ok(setup)
}

fn payload(setup: Setup) -> Result<(Vmm, Console)> {
    payload_in(setup, &format!("{GUESTS}/payload.bin"))
}

fn payload_in(mut setup: Setup, file: &str) -> Result<(Vmm, Console)> {
    let console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(file)?;
    setup.args("--mem 24 --swiotlb 8 --cpus 2 --params mode=hello").arg(&kernel);
    Ok((setup.start()?, console))
}

/// An overlay that sets a property of `/avf/untrusted`.
fn overlay(name: &str) -> Result<File> {
    overlay::overlay(|root| _ = root.child("avf").child("untrusted").set_cells(name, &[9]))
}

fn firmware_checks_and_starts_the_payload() -> Result<()> {
    starts_the_payload(with_firmware()?)
}

/// The hypervisor has it, and places it where the VMM says.
fn hypervisors_firmware_does_the_same() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.arg("--protected-vm");
    starts_the_payload(setup)
}

fn starts_the_payload(setup: Setup) -> Result<()> {
    let (vmm, mut console) = payload(setup)?;
    for line in [
        "pvmfw: stand-in",
        "pvmfw: protected yes",
        "pvmfw: memory 0x80000000..0x81800000",
        "pvmfw: 2 CPUs, ",
        "pvmfw: restricted DMA 0x81000000..0x81800000",
        "pvmfw: a page shared and taken back",
        "pvmfw: PCI slot 1 is 1af4:",
        "pvmfw: device tree: seeds replaced",
        "pvmfw: starting the payload at 0x80000000 on 2 CPUs",
        "payload: protected yes",
        "payload: exception level 1",
        "check: other CPUs: ok",
        "0 failed",
        "payload: done",
    ] {
        console.expect(line, PATIENCE)?;
    }
    let ended = vmm.wait()?;
    ensure!(ended.failure.is_empty(), "failure port: {}", ended.failure);
    ended.check(0, "")
}

/// Firmware looks for the signature at the end of what it is told is the payload: that is the file,
/// whether it is shorter than what the payload occupies or, as a signature may make it, longer.
fn firmware_is_told_the_size_of_the_payloads_file() -> Result<()> {
    let mut bytes = fs::read(format!("{GUESTS}/payload.bin"))?;
    kernel_size_is_the_files(&bytes)?;
    bytes.resize(bytes.len() + (4 << 20), 0);
    kernel_size_is_the_files(&bytes)
}

fn kernel_size_is_the_files(bytes: &[u8]) -> Result<()> {
    let (payload, dump) = ("/tmp/vmm_firmware.payload", "/tmp/vmm_firmware.dtb");
    fs::write(payload, bytes)?;
    let mut setup = with_firmware()?;
    let tree = setup.file(File::create(dump)?);
    setup.arg("--dump-device-tree-blob").arg(&tree);
    let (vmm, mut console) = payload_in(setup, payload)?;
    console.expect("pvmfw: starting the payload", PATIENCE)?;
    vmm.wait()?.check(0, "")?;
    let tree = fs::read(dump)?;
    let tree = Fdt::new(&tree).context("the device tree")?;
    let size = tree.find_node("/config").and_then(|node| node.property("kernel-size"));
    let size = size.context("no kernel-size")?.value().to_owned();
    let expected = u32::try_from(bytes.len())?.to_be_bytes();
    ensure!(size == expected, "kernel-size is {size:?}, the file has {} bytes", bytes.len());
    Ok(())
}

/// The payload is Linux, which does not know the MMIO guard. What an overlay says arrives there.
fn firmware_starts_linux() -> Result<()> {
    let mut setup = with_firmware()?;
    let overlay = setup.file(overlay("instance-id")?);
    setup.arg("--device-tree-overlay").arg(&overlay);
    setup.args("--mem 144 --swiotlb 16 --cpus 2");
    let mut guest = Guest::boot(setup, &format!("{COMMANDS} pvmfw.keep-mmio"))?;
    guest.run("test -e /proc/device-tree/chosen/avf,strict-boot")?;
    let id =
        guest.run("hexdump -v -e '1/1 \"%02x\"' /proc/device-tree/avf/untrusted/instance-id")?;
    ensure!(id == "00000009", "the overlay's property is {id}");
    let protected = guest.run("cat /sys/kernel/gzvm_guest/protected")?;
    ensure!(protected == "yes", "protected: {protected}");
    let devices = guest.run("ls /sys/bus/virtio/devices")?;
    ensure!(devices.contains("virtio0"), "devices: {devices}");
    guest.end("poweroff -f")?.check(0, "")
}

fn firmware_refuses_a_bad_tree() -> Result<()> {
    let mut setup = with_firmware()?;
    let overlay = setup.file(overlay("phandle")?);
    setup.arg("--device-tree-overlay").arg(&overlay);
    let (vmm, mut console) = payload(setup)?;
    console
        .expect("pvmfw: refused: device tree: /avf/untrusted has the property phandle", PATIENCE)?;
    let ended = vmm.wait()?;
    ensure!(ended.failure == "PVM_FIRMWARE_INVALID_FDT|", "failure port: {}", ended.failure);
    ended.check(32, "AVF's firmware would refuse the device tree")
}

/// The same overlay with another property passes: it is the property that is refused.
fn firmware_accepts_what_is_harmless() -> Result<()> {
    let mut setup = with_firmware()?;
    let overlay = setup.file(overlay("instance-id")?);
    setup.arg("--device-tree-overlay").arg(&overlay);
    let (vmm, mut console) = payload(setup)?;
    console.expect("pvmfw: starting the payload", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

/// What the hypervisor's firmware would refuse without a word is refused by name.
fn vmm_refuses_what_the_hypervisors_firmware_would() -> Result<()> {
    let mut setup = Setup::new()?;
    let overlay = setup.file(overlay("phandle")?);
    setup.arg("--protected-vm").arg("--device-tree-overlay").arg(&overlay);
    let (vmm, _console) = payload(setup)?;
    vmm.wait()?.check(1, "/avf/untrusted has the property phandle")
}

/// As users start it: nothing is said about firmware, so it is the hypervisor's.
fn vm_run_starts_with_firmware() -> Result<()> {
    let props = "/tmp/vmm_firmware.props";
    fs::write(props, "")?;
    let config = format!("{GUESTS}/payload-protected.json");
    let output = Command::new("vm").args(["run", &config]).env("GZVM_PROPS", props).output();
    let output = output.context("vm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["pvmfw: starting the payload", "payload: done", "VM ended: Shutdown"] {
        ensure!(text.contains(part), "no \"{part}\": {text}");
    }
    Ok(())
}

fn main() {
    tests![
        firmware_checks_and_starts_the_payload,
        hypervisors_firmware_does_the_same,
        vmm_refuses_what_the_hypervisors_firmware_would,
        firmware_is_told_the_size_of_the_payloads_file,
        firmware_starts_linux,
        firmware_refuses_a_bad_tree,
        firmware_accepts_what_is_harmless,
        vm_run_starts_with_firmware,
    ]
}
