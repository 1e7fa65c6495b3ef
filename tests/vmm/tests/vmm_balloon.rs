// SPDX-License-Identifier: Apache-2.0
//! The balloon: memory that a guest does not use becomes the host's, and the guest's again when it
//! uses it; nothing is taken where nobody can tell whose it is.

#![forbid(unsafe_code)]

use anyhow::{ensure, Result};
use gzvm::abi::{cap, ext};
use gzvm::Gzvm;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::Setup;
use gzvm_vmm_test::{control, host, tests, GUESTS, PATIENCE};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const PAGE: u64 = 4096;
/// Memory of the guests, and of that what the tests have go to and fro.
const MEMORY: u64 = 192;
const MOVED: u64 = 48;
/// What else the host may do with its memory meanwhile, in MiB.
const NOISE: u64 = 8;
const SOCKET: &str = "/tmp/balloon.sock";

/// Whether the driver can tell what it holds.
fn is_told() -> Result<bool> {
    Ok(Gzvm::open()?.check_extension(ext::DISCOVER)?.unwrap_or(0) & ext::RANGE_STATE != 0)
}

/// Whether unprotected guests lose what their owner loses.
fn is_followed() -> Result<bool> {
    Ok(is_told()? && Gzvm::open()?.check_extension(cap::SYNC_MMU)? == Some(1))
}

/// A guest with a disk of random data, and the data's checksum. Its second disk is empty, and as
/// large as its memory.
fn boot(args: &str) -> Result<(Guest, String)> {
    let disk = PathBuf::from("/tmp/balloon.disk");
    let mut random = File::open("/dev/urandom")?.take(MOVED * MIB);
    std::io::copy(&mut random, &mut File::create(&disk)?)?;
    let sum = host::md5(&disk)?;
    let empty = PathBuf::from("/tmp/balloon.empty");
    File::create(&empty)?.set_len(MEMORY * MIB)?;
    let mut setup = Setup::new()?;
    setup.args(&format!("--mem {MEMORY} --cpus 2 --socket {SOCKET} {args}"));
    setup.disk(&disk, false)?.disk(&empty, false)?;
    let mut guest = Guest::boot(setup, COMMANDS)?;
    // Else a file there may have half of the memory.
    guest.run("busybox mount -o remount,size=100% /tmp")?;
    Ok((guest, sum))
}

/// What the host has: free memory, memory in files without a disk, and pinned pages, in MiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    free: i64,
    shared: i64,
    pinned: i64,
}

fn memory() -> Result<Memory> {
    // Give back what caches keep.
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    let mib = |kib: u64| (kib / KIB).cast_signed();
    let pinned = host::pinned()? * PAGE.cast_signed() / MIB.cast_signed();
    let shared = host::field("/proc/meminfo", "Shmem")?;
    Ok(Memory { free: mib(host::free()?), shared: mib(shared), pinned })
}

/// Waits until the host has got so many MiB since `before`, by all three measures; fewer than 0 are
/// lost.
fn host_gets(mib: i64, before: Memory) -> Result<()> {
    let mut now = before;
    let settled = host::settles("memory", || {
        now = memory()?;
        let got = [now.free - before.free, before.shared - now.shared, before.pinned - now.pinned];
        Ok(got.into_iter().all(|got| (got - mib).abs() <= NOISE.cast_signed()))
    });
    println!("{mib} MiB for the host: {before:?}, then {now:?}");
    settled.map_err(|e| e.context(format!("{mib} MiB: {before:?}, then {now:?}")))
}

/// Has the guest use all memory that it has, and free it again. What it reads of a disk it keeps for
/// as long as nobody needs the memory: that much always fits, however much its kernel has taken.
fn touch(guest: &mut Guest) -> Result<()> {
    guest.run("dd if=/dev/vdb of=/dev/null bs=1M && echo 1 > /proc/sys/vm/drop_caches")?;
    Ok(())
}

/// Has the guest read its disk into memory, and compares.
fn refill(guest: &mut Guest, sum: &str) -> Result<()> {
    guest.run("dd if=/dev/vda of=/tmp/copy bs=1M")?;
    let found = host::first_word(&guest.run("md5sum /tmp/copy")?)?;
    ensure!(found == sum, "the guest read {found}, the disk has {sum}");
    Ok(())
}

fn inflated_memory_is_the_hosts_until_it_is_used_again() -> Result<()> {
    if !is_followed()? {
        return no_balloon("");
    }
    let (mut guest, sum) = boot("")?;
    touch(&mut guest)?;
    let before = memory()?;
    control::adjust_balloon(Path::new(SOCKET), MOVED * MIB)?;
    host_gets(MOVED.cast_signed(), before)?;
    let (actual, stats) = control::balloon_stats(Path::new(SOCKET))?;
    ensure!(actual == MOVED * MIB, "the balloon has {actual} bytes");
    let total = stats["total_memory"].as_u64().unwrap_or(0);
    ensure!(total > (MEMORY / 2) * MIB && total < MEMORY * MIB, "the statistics are {stats}");
    let small = memory()?;
    control::adjust_balloon(Path::new(SOCKET), 0)?;
    refill(&mut guest, &sum)?;
    host_gets(-MOVED.cast_signed(), small)?;
    guest.end("busybox poweroff -f")?.check(0, "")
}

fn reported_free_memory_is_the_hosts_until_it_is_used_again() -> Result<()> {
    if !is_followed()? {
        return no_balloon("--balloon-page-reporting");
    }
    let (mut guest, sum) = boot("--balloon-page-reporting")?;
    guest.run(&format!("dd if=/dev/zero of=/tmp/all bs=1M count={MOVED}"))?;
    let full = memory()?;
    // The guest tells of blocks of 2 MiB after some seconds: not of the rest.
    guest.run("rm /tmp/all")?;
    host::settles("free memory", || {
        Ok(memory()?.free - full.free >= (MOVED - 2 * NOISE).cast_signed())
    })?;
    println!("of {MOVED} MiB that were freed: {full:?}, then {:?}", memory()?);
    refill(&mut guest, &sum)?;
    guest.end("busybox poweroff -f")?.check(0, "")
}

/// Where the driver cannot take pages from a guest, an unprotected VM has no balloon.
fn no_balloon(args: &str) -> Result<()> {
    let (mut guest, sum) = boot(args)?;
    touch(&mut guest)?;
    let before = memory()?;
    let why = control::refused_balloon(Path::new(SOCKET), MOVED * MIB)?;
    ensure!(why.contains("the hypervisor cannot take pages from a guest"), "{why}");
    let devices = guest.run("ls /sys/bus/virtio/drivers/virtio_balloon")?;
    ensure!(!devices.contains("virtio"), "there is a balloon: {devices}");
    host_gets(0, before)?;
    refill(&mut guest, &sum)?;
    guest.end("busybox poweroff -f")?.check(0, "")
}

/// Mainline Linux cannot use its balloon in a protected VM. That is said, and nothing hangs.
fn mainline_in_a_protected_vm_is_told_to_be_unsupported() -> Result<()> {
    let (mut guest, sum) =
        boot("--protected-vm-without-firmware --swiotlb 16 --balloon-page-reporting")?;
    touch(&mut guest)?;
    let before = memory()?;
    let why = control::refused_balloon(Path::new(SOCKET), MOVED * MIB)?;
    ensure!(why.contains("is not supported"), "{why}");
    host_gets(0, before)?;
    refill(&mut guest, &sum)?;
    let ended = guest.end("busybox poweroff -f")?;
    ended.check(0, "its balloon is not supported")?;
    let told = ended.said.matches("its balloon is not supported").count();
    ensure!(told == 1, "told {told} times:\n{}", ended.said);
    Ok(())
}

/// A guest that knows GenieZone gives its pages back before it tells the balloon. They are taken out
/// of the VM's memory where the driver says that it let go of them, and stay where nobody can tell.
fn what_a_protected_guest_relinquishes_is_the_hosts() -> Result<()> {
    const GIVEN: u64 = 16;
    let disk = PathBuf::from("/tmp/balloon.small");
    let mut random = File::open("/dev/urandom")?.take(GIVEN * MIB);
    std::io::copy(&mut random, &mut File::create(&disk)?)?;
    let mut setup = Setup::new()?;
    let mut console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(&format!("{GUESTS}/virtio.bin"))?;
    setup.disk(&disk, false)?;
    setup.args("--protected-vm-without-firmware --swiotlb 2 --mem 66 --params mode=balloon");
    setup.args(&format!("--socket {SOCKET}")).arg(&kernel);
    let mut vmm = setup.start()?;
    console.expect("pages are full", PATIENCE).map_err(|e| e.context(vmm.said()))?;
    let before = memory()?;
    control::adjust_balloon(Path::new(SOCKET), GIVEN * MIB)?;
    console.expect(&format!("{} pages given", GIVEN * MIB / PAGE), PATIENCE)?;
    // The driver unpins what the guest gives back, with all hypervisors.
    let punched = if is_told()? { GIVEN } else { 0 };
    let within = |got: i64, wanted: u64| (got - wanted.cast_signed()).abs() <= NOISE.cast_signed();
    host::settles("memory", || {
        let now = memory()?;
        Ok(within(now.free - before.free, punched)
            && within(before.shared - now.shared, punched)
            && within(before.pinned - now.pinned, GIVEN))
    })
    .map_err(|e| e.context(format!("{before:?}, then {:?}", memory())))?;
    println!("{GIVEN} MiB relinquished: {before:?}, then {:?}", memory()?);
    control::adjust_balloon(Path::new(SOCKET), 0)?;
    let sum = console.expect("balloon: sha256 ", PATIENCE)?;
    let expected = host::sha256(&disk)?;
    ensure!(sum.contains(&expected), "{sum}, not {expected}");
    console.expect("balloon: 0 words of what was kept have changed", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

/// `--no-balloon` is as crosvm has it.
fn balloon_can_be_left_out() -> Result<()> {
    let (mut guest, _) = boot("--no-balloon")?;
    let why = control::refused_balloon(Path::new(SOCKET), MIB)?;
    ensure!(why.contains("--no-balloon"), "{why}");
    let devices = guest.run("ls /sys/bus/virtio/drivers/virtio_balloon")?;
    ensure!(!devices.contains("virtio"), "there is a balloon: {devices}");
    guest.end("busybox poweroff -f")?.check(0, "")
}

fn main() {
    tests![
        inflated_memory_is_the_hosts_until_it_is_used_again,
        reported_free_memory_is_the_hosts_until_it_is_used_again,
        mainline_in_a_protected_vm_is_told_to_be_unsupported,
        what_a_protected_guest_relinquishes_is_the_hosts,
        balloon_can_be_left_out,
    ]
}
