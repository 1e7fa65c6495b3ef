// SPDX-License-Identifier: Apache-2.0
//! The clock of a protected Linux guest: real-time clock, host's clock as a PTP device, and the
//! offset that `vm clock` says, before and after the host's clock is set.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{pipe, Setup};
use gzvm_vmm_test::{host, tests, PATIENCE};
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, clock_settime, ClockId};
use std::ops::RangeInclusive;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const CID: &str = "4400";
const SECOND: i64 = 1_000_000_000;
/// How far the host's clock is set.
const STEP: i64 = 10;
/// What an offset of a step may be off by: whatever the clocks were apart before.
const APART: i64 = STEP / 2 * SECOND;

static GUEST: Mutex<Option<Guest>> = Mutex::new(None);

/// Does something with the shared guest, which the first test boots.
fn guest() -> Result<MutexGuard<'static, Option<Guest>>> {
    let mut guard = GUEST.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        let mut setup = Setup::new()?;
        setup
            .args("--protected-vm-without-firmware --swiotlb 16 --mem 144 --cpus 2 --cid")
            .arg(CID)
            .args("--clock-resync off");
        *guard = Some(Guest::boot(setup, COMMANDS)?);
    }
    Ok(guard)
}

fn in_guest(command: &str) -> Result<String> {
    guest()?.as_mut().context("no guest")?.run(command)
}

/// Seconds since 1970, on the host.
fn host_seconds() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

/// Sets the host's clock forward, or back.
fn step_host(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    let later = TimeSpec::new(now.tv_sec() + seconds, now.tv_nsec());
    Ok(clock_settime(ClockId::CLOCK_REALTIME, later)?)
}

/// Offset and bound, in nanoseconds, that a line of `vm clock` says.
fn parse(line: &str) -> Result<(i64, i64)> {
    let words = line.split_once("guest - host = ").context("no offset");
    let words: Vec<_> = words.with_context(|| line.to_owned())?.1.split(' ').collect();
    let (["ns", "+-"], Some(offset), Some(bound)) = (&words[1..3], words.first(), words.get(3))
    else {
        anyhow::bail!("not understood: {line}");
    };
    Ok((offset.parse()?, bound.parse()?))
}

/// Whether a line says that the guest's clock was set forward by about so many seconds.
fn stepped(line: &str, seconds: i64) -> Result<()> {
    let words = line.split_once("stepped by ").and_then(|(_, rest)| rest.split_once(" ns"));
    let ns: i64 = words.with_context(|| line.to_owned())?.0.parse()?;
    ensure!((ns - seconds * SECOND).abs() <= APART, "{line}");
    within(parse(line)?)
}

/// Runs `vm clock` and reads its line, which it also shows.
fn vm_clock(args: &[&str]) -> Result<(i64, i64)> {
    let output = Command::new("vm").arg("clock").args(args).arg(CID).output().context("vm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", text.trim_end());
    parse(&text)
}

fn within((offset, bound): (i64, i64)) -> Result<()> {
    ensure!(offset.abs() <= bound, "the offset is {offset} ns, its bound {bound} ns");
    // A bound that bounds nothing proves nothing.
    ensure!(bound < SECOND, "a bound of {bound} ns");
    Ok(())
}

fn real_time_clock_is_the_hosts() -> Result<()> {
    in_guest("true")?;
    let before = host_seconds()?;
    let name = in_guest("cat /sys/class/rtc/rtc0/name")?;
    ensure!(name.contains("pl030"), "the RTC is {name}");
    let rtc: i64 = in_guest("cat /sys/class/rtc/rtc0/since_epoch")?.parse()?;
    let range: RangeInclusive<i64> = before..=host_seconds()?;
    ensure!(range.contains(&rtc), "{rtc} is not in {range:?}");
    Ok(())
}

fn hosts_clock_is_a_ptp_device() -> Result<()> {
    let name = in_guest("cat /sys/class/ptp/ptp0/clock_name; ls /dev/ptp0")?;
    ensure!(name == "GenieZone host\n/dev/ptp0", "{name}");
    Ok(())
}

fn offset_has_a_bound() -> Result<()> {
    in_guest("true")?;
    // The guest's clock was set by the real-time clock's whole seconds.
    let (offset, bound) = vm_clock(&[])?;
    ensure!(offset.abs() <= APART && bound < SECOND, "{offset} ns +- {bound} ns");
    within(vm_clock(&["--resync"])?)
}

fn offset_follows_a_step_of_the_host_until_a_resync() -> Result<()> {
    in_guest("true")?;
    within(vm_clock(&["--resync"])?)?;
    step_host(STEP)?;
    let stepped = vm_clock(&[]);
    let resynced = vm_clock(&["--resync"]);
    let later = vm_clock(&[]);
    step_host(-STEP)?;
    let (offset, bound) = stepped?;
    let off = (offset + STEP * SECOND).abs();
    // Setting the host's clock takes a moment, which is lost.
    ensure!(off <= APART && bound < SECOND, "without resync: {offset} ns +- {bound} ns");
    within(resynced?)?;
    within(later?)
}

/// A running `vm clock --watch` whose first line was read.
struct Watcher {
    process: Child,
    lines: Console,
}

impl Watcher {
    fn start() -> Result<Self> {
        let (output, writer) = pipe()?;
        let mut vm = Command::new("vm");
        vm.args(["clock", "--watch", CID]).stdout(writer);
        let process = vm.spawn().context("vm")?;
        let mut watcher = Self { process, lines: Console::new(output, None) };
        within(parse(&watcher.line()?)?)?;
        Ok(watcher)
    }

    fn line(&mut self) -> Result<String> {
        let line = self.lines.expect("guest - host", PATIENCE)?;
        println!("{line}");
        Ok(line)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn watcher_follows_steps_of_the_host() -> Result<()> {
    in_guest("true")?;
    let mut watcher = Watcher::start()?;
    step_host(STEP)?;
    let line = watcher.line();
    let after = vm_clock(&[]);
    step_host(-STEP)?;
    stepped(&line?, STEP)?;
    within(after?)?;
    stepped(&watcher.line()?, -STEP)
}

/// Without being told to: nobody asks but the VMM.
fn vmm_follows_steps_of_the_host() -> Result<()> {
    let other = "4401";
    let mut setup = Setup::new()?;
    setup.args("--protected-vm-without-firmware --swiotlb 16 --mem 144 --cid").arg(other);
    let mut guest = Guest::boot(setup, COMMANDS)?;
    step_host(STEP)?;
    let told = host::settles("the guest's clock", || {
        Ok(guest.vmm.said().contains("the host's clock was set; the guest's by"))
    });
    let (before, seen, after) = (host_seconds()?, guest.run("date +%s"), host_seconds()?);
    step_host(-STEP)?;
    told.with_context(|| guest.vmm.said())?;
    let seen: i64 = seen?.parse()?;
    // Not the time of before, nor of a real-time clock that was read at the start.
    let expected = before - STEP / 2..=after + STEP / 2;
    ensure!(expected.contains(&seen), "the guest has {seen}, the host {before} to {after}");
    guest.end("poweroff -f")?.check(0, "")
}

fn guest_without_agent_is_unknown() -> Result<()> {
    in_guest("$bb killall gzvm-clock-agent")?;
    let output = Command::new("vm").args(["clock", CID]).output().context("vm")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && text.contains("unknown: nobody answers"), "{text}");
    let resync = Command::new("vm").args(["clock", "--resync", CID]).output().context("vm")?;
    ensure!(!resync.status.success(), "a resync of nothing succeeds");
    let guest = guest()?.take().context("no guest")?;
    guest.end("poweroff -f")?.check(0, "")
}

fn main() {
    tests![
        real_time_clock_is_the_hosts,
        hosts_clock_is_a_ptp_device,
        offset_has_a_bound,
        offset_follows_a_step_of_the_host_until_a_resync,
        watcher_follows_steps_of_the_host,
        vmm_follows_steps_of_the_host,
        guest_without_agent_is_unknown,
    ]
}
