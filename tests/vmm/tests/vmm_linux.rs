// SPDX-License-Identifier: Apache-2.0
//! One protected Linux guest with 4 vCPUs, two disks, vsock, three consoles and rng: each test looks
//! at one of them, the last one ends the guest.

#![forbid(unsafe_code)]

use anyhow::{bail, ensure, Context, Result};
use gzvm_vmm_test::console::{count, Console};
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::stream::{exchange, exchange_all, End};
use gzvm_vmm_test::vmm::{pipe, Setup};
use gzvm_vmm_test::{host, tests, PATIENCE};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY};

const MIB: usize = 1 << 20;
const CID: u32 = 4321;
/// Bytes of each disk.
const DISK: usize = 8 * MIB;
/// 16 MiB each way, in so many streams.
const STREAMS: usize = 4;
const STREAM: usize = 16 * MIB / STREAMS;
/// A thousand buffers: Linux sends 16 bytes at a time.
const FLOOD: usize = 16 * 1024;

/// The guest, and what it is connected to.
struct World {
    guest: Guest,
    disk: PathBuf,
    constant: PathBuf,
    hvc0: Console,
    hvc1: Console,
    hvc2: File,
    pinned_before: i64,
}

static WORLD: Mutex<Option<World>> = Mutex::new(None);

/// The shared guest, booted by the first test that needs it.
fn world() -> Result<WorldGuard> {
    let mut guard = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        *guard = Some(World::boot()?);
    }
    Ok(WorldGuard(guard))
}

struct WorldGuard(MutexGuard<'static, Option<World>>);

impl WorldGuard {
    fn get(&mut self) -> Result<&mut World> {
        self.0.as_mut().context("the guest is gone")
    }
}

impl World {
    fn boot() -> Result<Self> {
        let pinned_before = host::pinned()?;
        let dir = Path::new("/tmp/vmm_linux");
        fs::create_dir_all(dir)?;
        let (disk, constant) = (dir.join("disk"), dir.join("constant"));
        for path in [&disk, &constant] {
            let mut random = File::open("/dev/urandom")?.take(DISK as u64);
            std::io::copy(&mut random, &mut File::create(path)?)?;
        }
        let mut setup = Setup::new()?;
        setup.args("--protected-vm-without-firmware --swiotlb 16 --mem 160 --cpus 4");
        setup.arg("--cid").arg(&CID.to_string());
        let hvc0 = setup.console("hardware=virtio-console,num=1")?;
        let hvc1 = setup.console("hardware=virtio-console,num=2")?;
        let (hvc2, output) = pipe()?;
        let output = setup.file(output);
        setup.arg(&format!("--serial=type=file,path={output},hardware=virtio-console,num=3"));
        setup.disk(&disk, true)?.disk(&constant, false)?;
        let guest = Guest::boot(setup, COMMANDS)?;
        Ok(Self { guest, disk, constant, hvc0, hvc1, hvc2, pinned_before })
    }
}

fn is_protected_and_has_four_cpus() -> Result<()> {
    let mut world = world()?;
    let guest = &mut world.get()?.guest;
    let protected = guest.run("cat /sys/kernel/gzvm_guest/protected")?;
    ensure!(protected == "yes", "protected: {protected}");
    let cpus = guest.run("grep -c ^processor /proc/cpuinfo")?;
    ensure!(cpus == "4", "{cpus} processors");
    Ok(())
}

fn disk_is_read_with_the_hosts_checksum() -> Result<()> {
    let mut world = world()?;
    let world = world.get()?;
    let sum = host::first_word(&world.guest.run("md5sum /dev/vda")?)?;
    let expected = host::md5(&world.disk)?;
    ensure!(sum == expected, "{sum}, not {expected}");
    Ok(())
}

fn disk_is_written_with_the_guests_checksum() -> Result<()> {
    let mut world = world()?;
    let world = world.get()?;
    let guest = &mut world.guest;
    guest.run("dd if=/dev/urandom of=/tmp/x bs=1M count=3")?;
    guest.run("dd if=/tmp/x of=/dev/vda bs=1M seek=4 conv=fsync")?;
    let sum = host::first_word(&guest.run("md5sum /tmp/x; rm /tmp/x")?)?;
    let mut written = vec![0; 3 * MIB];
    File::open(&world.disk)?.read_exact_at(&mut written, 4 * MIB as u64)?;
    let copy = world.disk.with_extension("part");
    fs::write(&copy, written)?;
    let expected = host::md5(&copy)?;
    ensure!(sum == expected, "{sum}, not {expected}");
    Ok(())
}

fn read_only_disk_stays_as_it_is() -> Result<()> {
    let mut world = world()?;
    let world = world.get()?;
    let before = host::md5(&world.constant)?;
    let read = host::first_word(&world.guest.run("md5sum /dev/vdb")?)?;
    ensure!(read == before, "{read}, not {before}");
    let write = "dd if=/dev/zero of=/dev/vdb bs=4096 count=1 conv=fsync";
    let (status, text) = world.guest.try_run(write)?;
    ensure!(status != 0, "the write succeeded: {text}");
    ensure!(host::md5(&world.constant)? == before, "the disk has changed");
    Ok(())
}

/// What the guest discards takes no room on the host, and nothing beside it is lost.
fn discarded_blocks_take_no_room() -> Result<()> {
    let mut world = world()?;
    let world = world.get()?;
    let before = (fs::read(&world.disk)?, fs::metadata(&world.disk)?.blocks());
    world.guest.run("blkdiscard -o 1048576 -l 2097152 /dev/vda")?;
    let (mut expected, blocks) = before;
    expected[MIB..3 * MIB].fill(0);
    ensure!(fs::read(&world.disk)? == expected, "the disk is not what it should be");
    let now = fs::metadata(&world.disk)?.blocks();
    // The file is in memory, which has pages of 4 KiB and may have larger ones.
    ensure!(now == blocks - 2 * MIB as u64 / 512, "{now} blocks are left of {blocks}");
    let zeros = world.guest.run("cat /sys/block/vda/queue/write_zeroes_max_bytes")?;
    ensure!(zeros == "33554432", "write_zeroes_max_bytes: {zeros}");
    let (status, text) = world.guest.try_run("blkdiscard /dev/vdb")?;
    ensure!(status != 0, "a read-only disk was discarded: {text}");
    Ok(())
}

fn random_numbers_come_from_the_device() -> Result<()> {
    let mut world = world()?;
    let guest = &mut world.get()?.guest;
    let source = guest.run("cat /sys/class/misc/hw_random/rng_current")?;
    ensure!(source.starts_with("virtio_rng"), "the source is {source}");
    let draws = [(); 2].map(|()| guest.run("dd if=/dev/hwrng bs=32 count=1 2>/dev/null | md5sum"));
    let [first, second] = draws;
    ensure!(first? != second?, "the same numbers twice");
    Ok(())
}

fn consoles_work_both_ways() -> Result<()> {
    let mut world = world()?;
    let world = world.get()?;
    for (name, console) in [("hvc0", &mut world.hvc0), ("hvc1", &mut world.hvc1)] {
        world.guest.run(&format!("echo from {name} >/dev/{name}"))?;
        console.expect(&format!("from {name}"), PATIENCE)?;
        world.guest.start(&format!("read -r x </dev/{name}; echo \"got $x\""))?;
        console.send(&format!("to {name}"))?;
        let (status, text) = world.guest.finish()?;
        ensure!((status, &*text) == (0, &*format!("got to {name}")), "status {status}: {text}");
    }
    Ok(())
}

/// Nothing of a flood is lost. (A reader that stops would stop the guest's CPU too: Linux waits for
/// a virtio console with interrupts off.)
fn flooded_console_loses_nothing() -> Result<()> {
    let mut world = world()?;
    let World { guest, hvc2, .. } = world.get()?;
    guest.start(&format!("yes 0123456789abcde | head -c {FLOOD} >/dev/hvc2"))?;
    // The terminal sends a carriage return before each of the lines' ends.
    let expected = FLOOD + FLOOD / 16;
    let counted = count(&*hvc2, expected)?;
    ensure!(counted == expected, "{counted} bytes came, not {expected}");
    let (status, text) = guest.finish()?;
    ensure!(status == 0, "status {status}: {text}");
    Ok(())
}

fn vsock_carries_16_mib_each_way_in_4_streams() -> Result<()> {
    let mut world = world()?;
    let guest = &mut world.get()?.guest;
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, 0)?;
    let port = listener.local_addr()?.port();
    guest.start(&format!("vsock-peer connect {port} {STREAMS} {STREAM}"))?;
    let accept = |_| listener.accept().map(|(stream, _)| stream);
    let streams: std::io::Result<Vec<_>> = (0..STREAMS).map(accept).collect();
    exchange_all(streams?, End::Acceptor, STREAM)?;
    let (status, text) = guest.finish()?;
    ensure!(status == 0, "the guest's end: {text}");
    Ok(())
}

fn vsock_is_reached_from_the_host() -> Result<()> {
    let mut world = world()?;
    let guest = &mut world.get()?.guest;
    guest.start(&format!("vsock-peer listen 1000 {MIB}"))?;
    let mut connected = None;
    host::settles("a connection to the guest", || {
        connected = VsockStream::connect_with_cid_port(CID, 1000).ok();
        Ok(connected.is_some())
    })?;
    let Some(stream) = connected else { bail!("no connection") };
    exchange((&stream, &stream), End::Connector, 0, MIB)?;
    let (status, text) = guest.finish()?;
    ensure!(status == 0, "the guest's end: {text}");
    Ok(())
}

/// Killed with all devices at work: nothing stays pinned, and the next VM starts.
fn nothing_is_left_of_a_killed_vmm() -> Result<()> {
    let mut guard = world()?;
    let mut world = guard.0.take().context("the guest is gone")?;
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, 0)?;
    let port = listener.local_addr()?.port();
    world.guest.start(&format!("vsock-peer connect {port} {STREAMS} {}", 64 * MIB))?;
    let streams = (0..STREAMS).map(|_| listener.accept()).collect::<Result<Vec<_>, _>>()?;
    let mut byte = [0];
    (&streams[0].0).read_exact(&mut byte)?;
    let before = world.pinned_before;
    let left = || -> Result<i64> { Ok(host::pinned()? - before) };
    ensure!(left()? > 4 * host::PINNED_SLACK, "the guest's memory would not be noticed");
    world.guest.vmm.signal(Signal::SIGKILL)?;
    let pid = world.guest.vmm.pid();
    world.guest.vmm.wait()?.check(-(Signal::SIGKILL as i32), "")?;
    ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "the process is still there");
    host::settles("all pages are given back", || Ok(left()?.abs() <= host::PINNED_SLACK))?;
    // The context id is free again, too.
    let mut setup = Setup::new()?;
    setup.args("--protected-vm-without-firmware --swiotlb 16 --mem 160 --cpus 4");
    setup.arg("--cid").arg(&CID.to_string());
    let guest = Guest::boot(setup, COMMANDS)?;
    guest.end("busybox poweroff -f")?.check(0, "")
}

fn main() {
    tests![
        is_protected_and_has_four_cpus,
        disk_is_read_with_the_hosts_checksum,
        disk_is_written_with_the_guests_checksum,
        read_only_disk_stays_as_it_is,
        discarded_blocks_take_no_room,
        random_numbers_come_from_the_device,
        consoles_work_both_ways,
        flooded_console_loses_nothing,
        vsock_carries_16_mib_each_way_in_4_streams,
        vsock_is_reached_from_the_host,
        nothing_is_left_of_a_killed_vmm,
    ]
}
