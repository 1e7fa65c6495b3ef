// SPDX-License-Identifier: Apache-2.0
//! When the host provides a guest's memory, and what is said where it has too little.

#![forbid(unsafe_code)]

use anyhow::{bail, ensure, Context, Result};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::guest::{Guest, COMMANDS};
use gzvm_vmm_test::vmm::{Ended, Setup, Vmm};
use gzvm_vmm_test::{control, host, tests, GUESTS, PATIENCE};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SOCKET: &str = "/tmp/vmm_memory.sock";
/// Memory of the guests here, with 2 MiB of it for restricted DMA.
const MIB: u64 = 32;
/// What a guest may have touched before it ran: kernel, device tree, each in a block of its own.
const LOADED: u64 = 8;
/// How long a guest that must not run is listened to.
const SILENCE: Duration = Duration::from_secs(2);
/// Somebody without privileges.
const NOBODY: u32 = 65534;

/// The payload's checks, in a protected VM.
fn hello(mut setup: Setup) -> Result<(Vmm, Console)> {
    let console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(&format!("{GUESTS}/payload.bin"))?;
    setup.args("--protected-vm-without-firmware --swiotlb 2").arg("--params=mode=hello");
    setup.arg(&kernel);
    Ok((setup.start()?, console))
}

fn runs((vmm, mut console): (Vmm, Console)) -> Result<Ended> {
    console.expect("payload: 6 checks, 0 failed", PATIENCE)?;
    let ended = vmm.wait()?;
    ended.check(0, "")?;
    Ok(ended)
}

/// What a process has of shared memory, and has locked, in MiB.
fn memory(vmm: &Vmm) -> Result<(u64, u64)> {
    let status = format!("/proc/{}/status", vmm.pid());
    Ok((host::field(&status, "RssShmem")? / 1024, host::field(&status, "VmLck")? / 1024))
}

/// Looks at each mode's VMM before its guest runs, then lets it.
fn modes_differ_in_what_is_there_before_the_guest_runs() -> Result<()> {
    for (mode, there, locked) in
        [("lazy", 0..=LOADED, 0), ("prefault", MIB..=2 * MIB, 0), ("static", MIB..=2 * MIB, MIB)]
    {
        let mut setup = Setup::new()?;
        setup.args(&format!("--mem {MIB} --memory-policy {mode} --suspended --socket {SOCKET}"));
        let (mut vmm, mut console) = hello(setup)?;
        let statistics = json!({ "BalloonCommand": "Stats" });
        host::settles("the control socket answers", || {
            ensure!(vmm.runs(), "{mode}: it has ended: {}", vmm.said());
            Ok(control::ask(Path::new(SOCKET), &statistics).is_ok())
        })?;
        // A guest that runs says something soon.
        if let Ok(line) = console.next(Instant::now() + SILENCE) {
            bail!("{mode}: the guest runs: {line}");
        }
        let (resident, pinned) = memory(&vmm)?;
        println!("{mode}: {resident} MiB are there and {pinned} MiB locked before the guest runs");
        ensure!(there.contains(&resident), "{mode}: {resident} MiB are there, not {there:?}");
        ensure!(pinned == locked, "{mode}: {pinned} MiB are locked, not {locked}");
        ensure!(control::ask(Path::new(SOCKET), &json!("ResumeVcpus"))? == "Ok");
        let told = runs((vmm, console))?.said.contains("32 of 32 MiB are there");
        ensure!(told == (mode != "lazy"), "{mode}: progress is told: {told}");
    }
    Ok(())
}

/// Linux, protected and left alone after its start, has a part of what it may have.
fn a_lazy_guest_holds_only_what_it_used() -> Result<()> {
    let mut setup = Setup::new()?;
    setup.args("--protected-vm-without-firmware --swiotlb 16 --mem 256");
    let guest = Guest::boot(setup, COMMANDS)?;
    let (there, _) = memory(&guest.vmm)?;
    let pinned = host::field(&format!("/proc/{}/status", guest.vmm.pid()), "VmPin")? / 1024;
    println!("of 256 MiB {there} MiB are there and {pinned} MiB pinned after Linux has started");
    ensure!(pinned > 0 && pinned < 256 * 3 / 4, "{pinned} MiB are pinned");
    ensure!(there < 256 * 3 / 4, "{there} MiB are there");
    guest.end("busybox poweroff -f")?.check(0, "")
}

/// The number of MiB before these words.
fn number(text: &str, words: &str) -> Result<u64> {
    let (before, _) = text.split_once(words).with_context(|| format!("no \"{words}\": {text}"))?;
    Ok(before.rsplit(' ').next().unwrap_or_default().parse()?)
}

fn too_little_memory_is_said_with_numbers_and_a_remedy() -> Result<()> {
    let total = host::field("/proc/meminfo", "MemTotal")? / 1024;
    let wanted = (total + 64).next_multiple_of(2);
    let mut setup = Setup::new()?;
    setup.arg("--mem").arg(&wanted.to_string());
    let ended = hello(setup)?.0.wait()?;
    ended.check(1, &format!("the VM needs {wanted} MiB of memory, "))?;
    ended.check(1, "MiB are available: give it less (--mem) or end other programs")?;
    let available = number(&ended.said, " MiB are available")?;
    ensure!(available < total, "{available} MiB are available of {total}");
    // What is available, without what others may take meanwhile, is enough.
    let mut setup = Setup::new()?;
    setup.arg("--mem").arg(&(available / 2).to_string());
    runs(hello(setup)?).map(drop)
}

/// As users without privileges meet it, whose limit is 8 MiB in most systems.
fn a_limit_on_locked_memory_is_said_with_numbers_and_a_remedy() -> Result<()> {
    let as_nobody = || -> Result<Setup> {
        let mut setup = Setup::new()?;
        setup.user(NOBODY).args(&format!("--mem {MIB}"));
        Ok(setup)
    };
    let before = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    fs::set_permissions("/dev/gzvm", Permissions::from_mode(0o666))?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 << 20, 8 << 20)?;
    let limited = as_nobody().and_then(|setup| hello(setup)?.0.wait());
    // The remedy.
    setrlimit(Resource::RLIMIT_MEMLOCK, nix::libc::RLIM_INFINITY, nix::libc::RLIM_INFINITY)?;
    let unlimited = as_nobody().and_then(|setup| runs(hello(setup)?));
    setrlimit(Resource::RLIMIT_MEMLOCK, before.0, before.1)?;
    fs::set_permissions("/dev/gzvm", Permissions::from_mode(0o600))?;
    let limited = limited?;
    limited.check(1, "the VM needs 32 MiB of locked memory, 8 MiB are allowed: raise the limit")?;
    limited.check(1, "ulimit -l unlimited")?;
    unlimited.map(drop)
}

fn huge_pages_that_are_off_are_said_with_a_remedy() -> Result<()> {
    let switch = Path::new("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let words = fs::read_to_string(switch).context("no huge pages in this kernel")?;
    let before = words.split(['[', ']']).nth(1).context("no value")?.to_owned();
    let said = |value: &str| -> Result<bool> {
        fs::write(switch, value)?;
        let mut setup = Setup::new()?;
        setup.args(&format!("--mem {MIB} --hugepages"));
        let said = runs(hello(setup)?)?.said;
        let remedy =
            format!("huge pages are off for guest memory: echo advise >{}", switch.display());
        Ok(said.contains(&remedy))
    };
    let (off, on) = (said("never"), said("advise"));
    fs::write(switch, before)?;
    match (off?, on?) {
        (true, false) => Ok(()),
        (off, on) => bail!("said when they are off: {off}, when they are not: {on}"),
    }
}

fn main() {
    tests![
        modes_differ_in_what_is_there_before_the_guest_runs,
        a_lazy_guest_holds_only_what_it_used,
        too_little_memory_is_said_with_numbers_and_a_remedy,
        a_limit_on_locked_memory_is_said_with_numbers_and_a_remedy,
        huge_pages_that_are_off_are_said_with_a_remedy,
    ]
}
