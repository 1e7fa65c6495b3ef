// SPDX-License-Identifier: Apache-2.0
//! What a guest sees and gets: said line by line, and checked.

use crate::machine::Machine;
use crate::{say, Platform};
use core::fmt;
use guest_bare::page::Page;
use gzvm_guest::{Counter, Error, Features, GenieZone, Trng, Uid};

/// Says what the machine is.
pub fn banner<P: Platform>(platform: &mut P, machine: &Machine<'_>, exception_level: u8) {
    let hypervisor = platform.hypervisor();
    let uid = Uid::query(&hypervisor);
    let verdict = if uid == Uid::GENIEZONE { "GenieZone" } else { "NOT GenieZone" };
    say!(platform, "payload: hypervisor {uid} ({verdict})");
    let protected = Protected(features(platform));
    say!(platform, "payload: protected {protected}");
    let memory = &machine.memory;
    let mib = (memory.end - memory.start) >> 20;
    say!(platform, "payload: memory {mib} MiB at {:#x}", memory.start);
    say!(platform, "payload: cpus {}", machine.cpus.ids().len());
    say!(platform, "payload: exception level {exception_level}");
    let (now, frequency) = (platform.counter(), platform.counter_frequency());
    say!(platform, "payload: counter {now} at {frequency} Hz");
}

/// Whether the VM is protected, as far as the hypervisor says.
struct Protected(Option<Features>);

impl fmt::Display for Protected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Some(features) if features.memory_sharing() => "yes",
            Some(_) => "no",
            None => "unknown (the hypervisor has no features bitmap)",
        })
    }
}

/// The hypervisor's features, if it is GenieZone and says them.
fn features<P: Platform>(platform: &P) -> Option<Features> {
    GenieZone::detect(platform.hypervisor()).ok()?.features().ok()?
}

/// How a check ended.
enum Outcome {
    Ok,
    /// Not to be had in this VM.
    Skipped(&'static str),
    Failed(&'static str),
    Refused(Error),
}

impl From<Result<Outcome, Error>> for Outcome {
    fn from(result: Result<Outcome, Error>) -> Self {
        result.unwrap_or_else(Self::Refused)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::Refused(error) => write!(f, "FAILED: {error}"),
        }
    }
}

/// Runs all checks, with `page` to play with. Returns how many failed.
pub fn run<P: Platform>(platform: &mut P, machine: &Machine<'_>, page: &'static Page) -> usize {
    let outcomes = [
        ("random numbers", check_trng(platform).into()),
        ("MMIO guard", check_mmio_guard(platform).into()),
        ("share and unshare a page", check_share(platform, page).into()),
        ("the host's clock", check_clock(platform).into()),
        ("timer interrupt", check_timer(platform)),
        ("other CPUs", check_cpus(platform, machine)),
    ];
    let mut failed = 0;
    for (name, outcome) in &outcomes {
        say!(platform, "check: {name}: {outcome}");
        failed += usize::from(matches!(outcome, Outcome::Failed(_) | Outcome::Refused(_)));
    }
    say!(platform, "payload: {} checks, {failed} failed", outcomes.len());
    failed
}

/// Two draws of random numbers differ, and neither is zero.
fn check_trng<P: Platform>(platform: &P) -> Result<Outcome, Error> {
    let trng = Trng::new(platform.hypervisor())?;
    let mut draws = [[0; 32]; 2];
    for draw in &mut draws {
        trng.fill(draw)?;
    }
    Ok(if draws[0] == draws[1] || draws.contains(&[0; 32]) {
        Outcome::Failed("the same numbers twice, or zeros")
    } else {
        Outcome::Ok
    })
}

/// A page can be guarded in and out again.
fn check_mmio_guard<P: Platform>(platform: &P) -> Result<Outcome, Error> {
    /// Where crosvm's PCI window starts: no RAM, and no device here.
    const PAGE: u64 = 0x2c00_0000;
    let geniezone = GenieZone::detect(platform.hypervisor())?;
    let guard = geniezone.enroll_mmio_guard()?;
    guard.map(PAGE, guard.granule())?.unmap()?;
    Ok(Outcome::Ok)
}

/// A page can be shared and taken back, and the guest's contents stay through both.
fn check_share<P: Platform>(platform: &P, page: &'static Page) -> Result<Outcome, Error> {
    let geniezone = GenieZone::detect(platform.hypervisor())?;
    if !geniezone.features()?.is_some_and(Features::memory_sharing) {
        return Ok(Outcome::Skipped("all memory is the host's already"));
    }
    let mut count = 0;
    page.fill(|| {
        count += 1;
        Ok::<_, Error>(count)
    })?;
    let before = page.hash();
    let range = page.share(&geniezone)?;
    let while_shared = page.hash();
    range.unshare()?;
    Ok(if (while_shared, page.hash()) == (before, before) {
        Outcome::Ok
    } else {
        Outcome::Failed("the page's contents changed")
    })
}

/// The host's clock and a counter that fits the guest's own.
fn check_clock<P: Platform>(platform: &P) -> Result<Outcome, Error> {
    let geniezone = GenieZone::detect(platform.hypervisor())?;
    if !geniezone.features()?.is_some_and(Features::clock) {
        return Ok(Outcome::Skipped("the hypervisor does not offer it"));
    }
    let before = platform.counter();
    let sample = geniezone.clock(Counter::Virtual)?;
    let after = platform.counter();
    Ok(if !(before..=after).contains(&sample.cycles) {
        Outcome::Failed("its counter value lies outside of the call")
    } else if sample.wall_ns == 0 {
        Outcome::Failed("it is 1970")
    } else {
        Outcome::Ok
    })
}

/// The virtual timer wakes the guest, not before its time.
fn check_timer<P: Platform>(platform: &mut P) -> Outcome {
    const MILLISECONDS: u64 = 10;
    let before = platform.counter();
    if !platform.sleep(MILLISECONDS) {
        return Outcome::Failed("the interrupt did not come");
    }
    let ticks = platform.counter().wrapping_sub(before);
    if ticks * 1000 < MILLISECONDS * platform.counter_frequency() {
        return Outcome::Failed("the interrupt came too early");
    }
    Outcome::Ok
}

/// All other CPUs start.
fn check_cpus<P: Platform>(platform: &mut P, machine: &Machine<'_>) -> Outcome {
    let others = machine.cpus.ids().len() - 1;
    if others == 0 {
        return Outcome::Skipped("there is only one");
    }
    if platform.start_cpus() == others {
        Outcome::Ok
    } else {
        Outcome::Failed("not all of them came up")
    }
}
