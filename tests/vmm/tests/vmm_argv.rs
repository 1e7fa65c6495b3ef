// SPDX-License-Identifier: Apache-2.0
//! Command lines as Android's virtmgr emits them for crosvm: each boots, and the guest has what the
//! command line says.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm_vmm::disk::composite::gpt::{Partition, PartitionedDisk};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::Guest;
use gzvm_vmm_test::vmm::{pipe, Setup};
use gzvm_vmm_test::{host, tests, GUESTS};
use nix::sys::socket::{
    bind, connect, listen, recv, send, socket, AddressFamily, Backlog, MsgFlags, SockFlag,
    SockType, UnixAddr,
};
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const RAW: &str = include_str!("../../../avf-backend/vmm/tests/argv/raw.args");
const RAW_PROTECTED: &str = include_str!("../../../avf-backend/vmm/tests/argv/raw-protected.args");
const MICRODROID: &str =
    include_str!("../../../avf-backend/vmm/tests/argv/microdroid-protected.args");

/// A VM that virtmgr would start, and its ends here.
struct Started {
    guest: Guest,
    socket: PathBuf,
    /// Without this reader the VMM would end.
    _failure: File,
}

/// Starts a fixture; `more` hands over what only that one has.
fn start(fixture: &str, more: impl FnOnce(&mut Setup) -> Result<()>) -> Result<Started> {
    let args: Vec<&str> = fixture.lines().filter(|line| !line.starts_with('#')).collect();
    let mut setup = Setup::with(&args);
    let (output, theirs) = pipe()?;
    let (input, mine) = pipe()?;
    let (failure, port) = pipe()?;
    let socket = PathBuf::from("/tmp/vmm_argv.sock");
    setup.file_as(20, File::open(format!("{GUESTS}/Image"))?);
    setup.file_as(21, File::open(format!("{GUESTS}/linux-initramfs.cpio.gz"))?);
    setup.file_as(22, theirs).file_as(23, input).file_as(24, port);
    setup.file_as(25, File::create("/tmp/vmm_argv.log")?).file_as(26, control(&socket)?);
    more(&mut setup)?;
    let guest = Guest::ready(setup.start()?, Console::new(output, Some(mine)))?;
    Ok(Started { guest, socket, _failure: failure })
}

/// A listening socket, as virtmgr hands one over.
fn control(path: &Path) -> Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(4)?)?;
    Ok(listener)
}

/// One command to a VMM, as virtmgr gives it.
fn ask(path: &Path, request: &str) -> Result<String> {
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)?;
    send(client.as_raw_fd(), request.as_bytes(), MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(String::from_utf8(answer[..len].to_vec())?)
}

/// Hands over a disk of partitions as descriptor `list`, its parts from `first` on; answers the
/// files of the partitions.
fn composite(
    setup: &mut Setup,
    (list, first): (RawFd, RawFd),
    partitions: &[(&str, u64, bool)],
) -> Result<Vec<PathBuf>> {
    let inherited = |fd: RawFd| PathBuf::from(format!("/proc/self/fd/{fd}"));
    let (mut entries, mut files) = (Vec::new(), Vec::new());
    for (fd, &(label, size, writable)) in (first..).zip(partitions) {
        let path = PathBuf::from(format!("/tmp/vmm_argv-{list}-{label}"));
        std::io::copy(&mut File::open("/dev/urandom")?.take(size), &mut File::create(&path)?)?;
        // What is for reading is so because the list says it, not because of its descriptor.
        setup.file_as(fd, OpenOptions::new().read(true).write(true).open(&path)?);
        let (label, guid) = (label.to_owned(), Uuid::new_v4());
        entries.push(Partition { label, path: inherited(fd), size, writable, guid });
        files.push(path);
    }
    let disk = PartitionedDisk::new(&entries, Uuid::new_v4()).context("a disk")?;
    let [start, end] = [40, 41].map(|offset| first + offset);
    let parts = [
        (start, disk.start.clone()),
        (end, disk.end.clone()),
        (list, disk.list(&inherited(start), &inherited(end))),
    ];
    for (fd, contents) in parts {
        let path = format!("/tmp/vmm_argv-{list}-{fd}");
        fs::write(&path, contents)?;
        setup.file_as(fd, OpenOptions::new().read(true).write(true).open(path)?);
    }
    Ok(files)
}

fn same_sum(guest: &mut Guest, device: &str, file: &Path) -> Result<()> {
    let sum = host::first_word(&guest.run(&format!("md5sum {device}"))?)?;
    ensure!(sum == host::md5(file)?, "{device} is not {}", file.display());
    Ok(())
}

fn raw_vm_boots_and_is_suspended() -> Result<()> {
    let mut vm = start(RAW, |_| Ok(()))?;
    let cpus = vm.guest.run("grep -c ^processor /proc/cpuinfo")?;
    ensure!(cpus == "2", "{cpus} processors");
    ensure!(ask(&vm.socket, "\"SuspendVcpus\"")? == "\"Ok\"");
    // What is sent meanwhile waits.
    vm.guest.start("echo resumed")?;
    ensure!(ask(&vm.socket, "\"ResumeVcpus\"")? == "\"Ok\"");
    let (status, text) = vm.guest.finish()?;
    ensure!((status, &*text) == (0, "resumed"), "status {status}: {text}");
    vm.guest.run("echo to the log >/dev/hvc2")?;
    vm.guest.end("busybox reboot -f")?.check(32, "")?;
    let log = fs::read_to_string("/tmp/vmm_argv.log")?;
    ensure!(log.contains("to the log"), "the log says: {log}");
    Ok(())
}

fn raw_protected_vm_boots_with_partitions() -> Result<()> {
    let mut files = Vec::new();
    let mut vm = start(RAW_PROTECTED, |setup| {
        setup.file_as(27, File::create("/tmp/vmm_argv.dtb")?);
        let partitions = [("constant", MIB + 512, false), ("scratch", MIB, true)];
        files = composite(setup, (28, 100), &partitions)?;
        Ok(())
    })?;
    let names = vm.guest.run("cat /sys/block/vda/vda*/uevent | grep PARTNAME")?;
    ensure!(names == "PARTNAME=constant\nPARTNAME=scratch", "partitions: {names}");
    same_sum(&mut vm.guest, "/dev/vda2", &files[1])?;
    // The first file ends inside of a block; the guest sees zeros behind.
    fs::OpenOptions::new().write(true).open(&files[0])?.set_len(MIB + 4096)?;
    same_sum(&mut vm.guest, "/dev/vda1", &files[0])?;
    vm.guest.run("dd if=/dev/urandom of=/dev/vda2 bs=64k count=4 seek=2 conv=fsync")?;
    same_sum(&mut vm.guest, "/dev/vda2", &files[1])?;
    let constant = host::md5(&files[0])?;
    let (status, _) = vm.guest.try_run("dd if=/dev/zero of=/dev/vda1 bs=4k count=1 conv=fsync")?;
    ensure!(status != 0, "a read-only partition was written");
    ensure!(host::md5(&files[0])? == constant, "a read-only partition has changed");
    let tree = fs::read("/tmp/vmm_argv.dtb")?;
    ensure!(tree.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]), "no copy of the device tree");
    vm.guest.end("busybox poweroff -f")?.check(0, "")
}

fn microdroid_shaped_vm_boots() -> Result<()> {
    let mut files = Vec::new();
    let mut vm = start(MICRODROID, |setup| {
        files = composite(setup, (28, 100), &[("super", 2 * MIB, false), ("vbmeta", 8192, false)])?;
        files.extend(composite(setup, (29, 200), &[("microdroid-apk", MIB, true)])?);
        Ok(())
    })?;
    let protected = vm.guest.run("cat /sys/kernel/gzvm_guest/protected")?;
    ensure!(protected == "yes", "protected: {protected}");
    let cpus = vm.guest.run("grep -c ^processor /proc/cpuinfo")?;
    let expected = std::thread::available_parallelism()?.to_string();
    ensure!(cpus == expected, "{cpus} processors, the host has {expected}");
    for (device, file) in ["/dev/vda1", "/dev/vda2", "/dev/vdb1"].iter().zip(&files) {
        same_sum(&mut vm.guest, device, file)?;
    }
    vm.guest.end("busybox poweroff -f")?.check(0, "")
}

fn main() {
    tests![
        raw_vm_boots_and_is_suspended,
        raw_protected_vm_boots_with_partitions,
        microdroid_shaped_vm_boots,
    ]
}
