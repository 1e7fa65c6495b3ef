// SPDX-License-Identifier: Apache-2.0
//! What boots: packed kernels, flat binaries, as many vCPUs as there may be, disks of partitions.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm::abi::ext;
use gzvm::Gzvm;
use gzvm_vmm::fdt::tree::Node;
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{Setup, Vmm};
use gzvm_vmm_test::{host, overlay, tests, GUESTS, PATIENCE};
use lz4_flex::frame::FrameEncoder;
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Starts the payload's checks from this file.
fn hello(mut setup: Setup, payload: &str) -> Result<(Vmm, Console)> {
    let console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(payload)?;
    setup.args("--mem 16 --params mode=hello").arg(&kernel);
    Ok((setup.start()?, console))
}

fn payload() -> String {
    format!("{GUESTS}/payload.bin")
}

fn kernel_packed_with_lz4() -> Result<()> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(&fs::read(payload())?)?;
    fs::write("/tmp/payload.lz4", encoder.finish()?)?;
    let (vmm, mut console) = hello(Setup::new()?, "/tmp/payload.lz4")?;
    console.expect("payload: 6 checks, 0 failed", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

/// A program that powers off if X0 is the address of a device tree, and resets if it is not.
const BIOS: [u32; 10] = [
    0xb940_0001, // ldr w1, [x0]
    0x5281_ba02, // mov w2, #0x0dd0
    0x72bd_bfc2, // movk w2, #0xedfe, lsl 16
    0x6b02_003f, // cmp w1, w2
    0x52b0_8000, // mov w0, #0x84000000
    0x7280_0100, // movk w0, #8 (SYSTEM_OFF)
    0x5400_0040, // b.eq +8
    0x1100_0400, // add w0, w0, #1 (SYSTEM_RESET)
    0xd400_0002, // hvc #0
    0x1400_0000, // b .
];

fn flat_binary_gets_the_device_tree() -> Result<()> {
    fs::write("/tmp/bios", BIOS.map(u32::to_le_bytes).as_flattened())?;
    let mut setup = Setup::new()?;
    let bios = setup.open("/tmp/bios")?;
    setup.args("--mem 16 --bios").arg(&bios);
    setup.start()?.wait()?.check(0, "")
}

/// As many vCPUs as the hypervisor allows, and not one more.
fn all_vcpus_start() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--cpus 17");
    let (vmm, _console) = hello(setup, &payload())?;
    let refused = vmm.wait()?;
    refused.check(1, "17 vCPUs: the hypervisor allows ")?;
    // Strict mode says nothing, and eight is what is assumed then.
    let most = if refused.said.contains("allows 16") { "16" } else { "8" };
    let mut setup = Setup::new()?;
    setup.args("--cpus").arg(most);
    let (vmm, mut console) = hello(setup, &payload())?;
    console.expect("check: other CPUs: ok", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

/// Linux in a VM with as many vCPUs; the tests' kernel can use eight.
fn linux_starts_with_all_vcpus() -> Result<()> {
    let extensions = Gzvm::open()?.check_extension(ext::DISCOVER)?.unwrap_or(0);
    let most = if extensions & ext::LIMITS != 0 { 16 } else { 8 };
    let mut setup = Setup::new()?;
    setup.args(&format!("--protected-vm-without-firmware --swiotlb 16 --mem 256 --cpus {most}"));
    let mut guest = Guest::boot(setup, COMMANDS)?;
    let cpus = guest.run("cat /sys/devices/system/cpu/online; ls /proc/device-tree/cpus")?;
    ensure!(cpus.starts_with("0-7\n") && cpus.matches("cpu@").count() == most, "CPUs: {cpus}");
    guest.end("busybox poweroff -f")?.check(0, "")
}

/// Whoever assigns addresses to PCI devices finds them there: Linux does where the tree does not tell
/// it to leave them, and one of the disks wants to be at a multiple of 1 MiB.
fn devices_are_where_linux_puts_them() -> Result<()> {
    let disk = PathBuf::from("/tmp/vmm_boot.disk");
    io::copy(&mut File::open("/dev/urandom")?.take(1 << 20), &mut File::create(&disk)?)?;
    let mut setup = Setup::new()?;
    setup.args("--protected-vm-without-firmware --swiotlb 16 --mem 144 --cid 4322");
    let mut hvc0 = setup.console("hardware=virtio-console,num=1")?;
    setup.disk(&disk, false)?;
    let assign = |root: &mut Node| _ = root.child("chosen").set_cells("linux,pci-probe-only", &[0]);
    let overlay = setup.file(overlay::overlay(assign)?);
    setup.arg("--device-tree-overlay").arg(&overlay);
    let mut guest =
        Guest::boot(setup, &format!("{COMMANDS} pci=resource_alignment=20@pci:1af4:1042"))?;
    let bars = guest.run("cd /sys/bus/pci/devices; head -qn 1 */resource")?;
    let bars: Vec<&str> = bars.lines().filter_map(|line| line.split(' ').next()).collect();
    println!("BARs: {}", bars.join(" "));
    // Slot 2: behind the console, which was first in the window.
    ensure!(bars.get(2).is_some_and(|bar| bar.ends_with("00000")), "{bars:?}");
    ensure!(bars.get(2) != Some(&"0x000000002c008000"), "the disk was not moved");
    let sum = host::first_word(&guest.run("md5sum /dev/vda")?)?;
    ensure!(sum == host::md5(&disk)?, "{sum} is not the disk's checksum");
    guest.run("dd if=/dev/hwrng bs=64 count=1 | wc -c | grep -q 64; echo moved >/dev/hvc0")?;
    hvc0.expect("moved", PATIENCE)?;
    guest.run("test -e /sys/bus/pci/drivers/pvpanic-pci/0000*")?;
    guest.end("exit 1")?.check(34, "the guest panicked")
}

/// A sparse image of three blocks, and what is in it: a block of its own, one of nothing, and one
/// that repeats a word.
fn sparse_image() -> (Vec<u8>, Vec<u8>) {
    const BLOCK: u32 = 4096;
    let own: Vec<u8> = (0..BLOCK).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut image = 0xed26_ff3a_u32.to_le_bytes().to_vec();
    image.extend([1_u16, 0, 28, 12].map(u16::to_le_bytes).as_flattened());
    image.extend([BLOCK, 3, 3, 0].map(u32::to_le_bytes).as_flattened());
    let chunks: [(u32, &[u8]); 3] = [(0xcac1, &own), (0xcac3, b""), (0xcac2, b"word")];
    for (kind, data) in chunks {
        let size = 12 + u32::try_from(data.len()).unwrap_or(0);
        image.extend([kind, 1, size].map(u32::to_le_bytes).as_flattened());
        image.extend(data);
    }
    (image, [own, vec![0; 4096], b"word".repeat(1024)].concat())
}

/// The guest sees what a sparse image stands for; where the host is full, a write is an I/O error that
/// the guest and the VMM survive.
fn sparse_images_and_full_hosts() -> Result<()> {
    let (image, contents) = sparse_image();
    fs::write("/tmp/vmm_boot.sparse", image)?;
    fs::write("/tmp/vmm_boot.plain", contents)?;
    fs::create_dir_all("/tmp/full")?;
    let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp/full"];
    ensure!(Command::new("mount").args(mount).status()?.success(), "mount");
    let disk = PathBuf::from("/tmp/full/disk");
    File::create(&disk)?.set_len(4 << 20)?;
    let mut setup = Setup::new()?;
    setup.args("--mem 128");
    setup.disk(Path::new("/tmp/vmm_boot.sparse"), false)?.disk(&disk, true)?;
    let mut guest = Guest::boot(setup, COMMANDS)?;
    let sum = host::first_word(&guest.run("md5sum /dev/vda")?)?;
    ensure!(
        sum == host::md5(Path::new("/tmp/vmm_boot.plain"))?,
        "{sum} is another disk's checksum"
    );
    let write = "dd if=/dev/urandom of=/dev/vdb bs=1M count=2 conv=fsync";
    let (status, text) = guest.try_run(write)?;
    ensure!(status != 0, "2 MiB on a file system of 1 MiB: {text}");
    guest.run("dd if=/dev/vdb of=/dev/null bs=512 count=8")?;
    let ended = guest.end("busybox poweroff -f")?;
    ensure!(Command::new("umount").arg("/tmp/full").status()?.success(), "umount");
    ended.check(0, "disk1: No space left on device")
}

/// A property that AVF hands to Microdroid; its name is longer than device trees should have.
fn long_names_reach_linux() -> Result<()> {
    const LONG: &str = "vendor_hashtree_descriptor_root_digest";
    for args in ["--mem 128", "--protected-vm-without-firmware --swiotlb 16 --mem 144"] {
        let mut setup = Setup::new()?;
        setup.args(args);
        let long = |root: &mut Node| _ = root.child("avf").set_strings(LONG, &["digest"]);
        let overlay = setup.file(overlay::overlay(long)?);
        setup.arg("--device-tree-overlay").arg(&overlay);
        let mut guest = Guest::boot(setup, COMMANDS)?;
        let digest = guest.run(&format!("cat /proc/device-tree/avf/{LONG}"))?;
        ensure!(digest.trim_end_matches('\0') == "digest", "{args}: {digest:?}");
        guest.end("busybox poweroff -f")?.check(0, "")?;
    }
    Ok(())
}

/// As users say it: a configuration with partitions, which `vm run` makes a composite disk of.
fn vm_run_makes_a_disk_of_partitions() -> Result<()> {
    let (mut partitions, mut sums) = (Vec::new(), Vec::new());
    for (label, size, writable) in [("first", 64 << 10, false), ("second", 1 << 20, true)] {
        let path = PathBuf::from(format!("/tmp/vmm_boot.{label}"));
        io::copy(&mut File::open("/dev/urandom")?.take(size), &mut File::create(&path)?)?;
        sums.push(format!("guest: partition {label} has checksum {}", host::md5(&path)?));
        partitions.push(json!({"label": label, "path": path, "writable": writable}));
    }
    let config = json!({
        "kernel": format!("{GUESTS}/Image"),
        "initrd": format!("{GUESTS}/linux-initramfs.cpio.gz"),
        "params": "console=ttyS0 loglevel=4",
        "disks": [{"partitions": partitions, "writable": true}],
        "protected": false,
        "memory_mib": 128,
        "console_input_device": "ttyS0",
        "platform_version": "~1.0",
    });
    fs::write("/tmp/vmm_boot.json", config.to_string())?;
    let mut vm = Command::new("vm");
    let output = vm.args(["run", "/tmp/vmm_boot.json"]).stdin(Stdio::null()).output();
    let output = output.context("vm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for part in sums.iter().map(String::as_str).chain(["VM ended: Shutdown"]) {
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(text.contains(part), "no \"{part}\": {text}{why}");
    }
    Ok(())
}

fn main() {
    tests![
        kernel_packed_with_lz4,
        flat_binary_gets_the_device_tree,
        all_vcpus_start,
        linux_starts_with_all_vcpus,
        devices_are_where_linux_puts_them,
        sparse_images_and_full_hosts,
        long_names_reach_linux,
        vm_run_makes_a_disk_of_partitions,
    ]
}
