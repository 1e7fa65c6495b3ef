// SPDX-License-Identifier: Apache-2.0
//! Many VMs one after the other, and many that are killed at any moment, from any end of the chain.
//! With `GZVM_FULL` set, storms have their full length.

#![forbid(unsafe_code)]

#[path = "../chain/mod.rs"]
mod chain;

use anyhow::{ensure, Context, Result};
use chain::inventory::Before;
use chain::run::{kill_now, payload, vm, VmRun};
use chain::services::{self, or_log, services, Services};
use gzvm_device_test::random::Random;
use gzvm_vmm_test::suite::{goes_on, is_full};
use gzvm_vmm_test::tests;
use std::env;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Starts and stops in a row.
const STARTS: u32 = 50;
/// Kills: a sample, and a storm.
const KILLS: (u32, u32) = (12, 240);
/// Kills between two looks at what is left.
const ROUND: u32 = 12;

fn starts_and_stops() -> Result<()> {
    let services = services()?;
    let services = services.as_ref().context("no services")?;
    let before = Before::take(services)?;
    let (hello, idle) = (payload("hello", true)?, payload("idle", false)?);
    for start in 0..STARTS {
        // Every other one ends by itself.
        let done = if start % 2 == 0 {
            VmRun::start(&[&hello], 0).and_then(|vm| vm.ends("Shutdown"))
        } else {
            VmRun::ready(&[&idle], "idle: ").and_then(|(vm_run, cid)| {
                vm(&format!("stop {cid}"))?;
                vm_run.ends("Killed")
            })
        };
        or_log(done).with_context(|| format!("start {start}"))?;
        goes_on();
    }
    before.is_back(services)
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Tool,
    Virtmgr,
    Vmm,
    Service,
}

const VICTIMS: [Victim; 4] = [Victim::Tool, Victim::Virtmgr, Victim::Vmm, Victim::Service];

fn kills() -> Result<()> {
    let mut services = services()?;
    let services = services.as_mut().context("no services")?;
    let before = Before::take(services)?;
    let seed = seed()?;
    // The harness keeps it with the test's output.
    println!("kills: seed {seed}");
    let mut random = Random::new(seed);
    let typical = typical_start()?;
    let count = if is_full() { KILLS.1 } else { KILLS.0 };
    for number in 1..=count {
        // CAST: there are four, and two.
        let victim = VICTIMS[random.below(4) as usize];
        let payload = payload("idle", random.below(2) == 1)?;
        let after = typical * u32::try_from(random.below(130))? / 100;
        let what = || format!("kill {number} of seed {seed}: {victim:?} after {after:?}");
        or_log(kill_one(services, &payload, victim, after)).with_context(what)?;
        goes_on();
        if number % ROUND == 0 || number == count {
            before.is_back(services).with_context(what)?;
            // Silence looks like a machine that hangs.
            println!("kills: {number} of {count}");
        }
    }
    Ok(())
}

/// What repeats a run: `$GZVM_SEED`, else the time.
fn seed() -> Result<u64> {
    match env::var("GZVM_SEED") {
        Ok(seed) => seed.parse().context("GZVM_SEED"),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64 % 1_000_000),
    }
}

/// How long a VM takes here until its guest speaks: kills come at any moment of that, or behind it.
fn typical_start() -> Result<Duration> {
    let started = Instant::now();
    let (vm_run, _) = or_log(VmRun::ready(&[&payload("idle", true)?], "idle: "))?;
    let took = started.elapsed();
    kill_now(vm_run.vmm().context("no VMM")?)?;
    vm_run.ends("Killed")?;
    Ok(took)
}

fn kill_one(services: &mut Services, payload: &str, victim: Victim, after: Duration) -> Result<()> {
    let vm_run = VmRun::start(&[payload], 0)?;
    thread::sleep(after);
    let found = match victim {
        Victim::Tool => Some(vm_run.pid()),
        Victim::Virtmgr => vm_run.virtmgr(),
        Victim::Vmm => vm_run.vmm(),
        Victim::Service => {
            services.kill()?;
            services.start()?;
            None
        }
    };
    match found {
        Some(pid) => kill_now(pid)?,
        // It is not there yet, or its end ends no VM.
        None => kill_now(vm_run.pid())?,
    }
    let killed_tool = found.is_none_or(|pid| pid == vm_run.pid());
    let (text, status) = vm_run.wait()?;
    let told = match victim {
        _ if killed_tool => return Ok(()),
        Victim::Vmm => "VM ended: Killed",
        // Before it was asked to start one, there is none that could end.
        _ if !text.contains("Created VM") => "Error: ",
        _ => "VM ended: VirtualizationServiceDied",
    };
    ensure!(text.contains(told), "not \"{told}\": {status}: {text}");
    Ok(())
}

fn main() {
    if chain::is_strict() {
        tests![after services::end; kills];
    }
    tests![
        after services::end;
        starts_and_stops,
        kills,
    ]
}
