// SPDX-License-Identifier: Apache-2.0
//! What the host says about files, memory and processes.

use crate::{suite, PATIENCE};
use anyhow::{bail, ensure, Context, Result};
use gzvm_device_test::life::kept_by_cpus;
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The MD5 sum of a file, as busybox says it.
pub fn md5(path: &Path) -> Result<String> {
    sum("md5sum", path)
}

/// The SHA-256 hash of a file, as busybox says it.
pub fn sha256(path: &Path) -> Result<String> {
    sum("sha256sum", path)
}

fn sum(program: &str, path: &Path) -> Result<String> {
    let output = Command::new(program).arg(path).output().context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {}", path.display());
    first_word(&String::from_utf8_lossy(&output.stdout))
}

/// The first word of a text.
pub fn first_word(text: &str) -> Result<String> {
    Ok(text.split_whitespace().next().context("no word")?.to_owned())
}

/// A field of a file like `/proc/meminfo`: `name: number` or `name number`.
pub fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    value.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in {file}"))
}

/// Free memory in KiB: what the kernel calls free, and what its CPUs keep.
pub fn free() -> Result<u64> {
    Ok(field("/proc/meminfo", "MemFree")? + kept_by_cpus())
}

/// How far [`pinned`] may be off: each of the host's CPUs keeps up to 125 pages of each of the two
/// counters to itself (Linux, `calculate_normal_threshold`), for as long as it sleeps.
pub const PINNED_SLACK: i64 = 2 * 125 * 4;

/// Pages that are pinned in the whole host, give or take [`PINNED_SLACK`].
pub fn pinned() -> Result<i64> {
    let count = |name| field("/proc/vmstat", name).map(u64::cast_signed);
    Ok(count("nr_foll_pin_acquired")? - count("nr_foll_pin_released")?)
}

/// A process's resident anonymous memory in KiB: what a VMM grows by, apart from its guest.
pub fn own_memory(pid: Pid) -> Result<u64> {
    field(&format!("/proc/{pid}/status"), "RssAnon")
}

/// Waits until `done` says so.
pub fn settles(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = PATIENCE * suite::factor();
    let deadline = Instant::now() + limit;
    while !done()? {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
