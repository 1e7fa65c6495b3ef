// SPDX-License-Identifier: Apache-2.0
//! Whether the host has memory for a VM: said before the VM is made, instead of a death later.
//!
//! What cannot be read is no reason to refuse.

use crate::{Reading, MIB};
use nix::sys::resource::{getrlimit, setrlimit, Resource, RLIM_INFINITY};
use std::fs;
use std::path::Path;
use thiserror::Error;

/// Bit of CAP_IPC_LOCK in a capability set (include/uapi/linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Why the host has no memory for the VM.
#[derive(Debug, Error)]
pub enum Shortage {
    /// Too little free memory.
    #[error(
        "the VM needs {} MiB of memory, {} MiB are available: give it less (--mem) or end other \
         programs",
        needed.div_ceil(MIB), available / MIB
    )]
    Available {
        /// Bytes that the VM needs.
        needed: u64,
        /// Bytes that are available.
        available: u64,
    },
    /// The limit on locked memory is too low.
    #[error(
        "the VM needs {} MiB of locked memory, {} MiB are allowed: raise the limit (ulimit -l \
         unlimited, or LimitMEMLOCK= of the service) or give the VM less (--mem)",
        needed.div_ceil(MIB), allowed / MIB
    )]
    Memlock {
        /// Bytes that the VM needs.
        needed: u64,
        /// Bytes that are allowed.
        allowed: u64,
    },
}

/// The host's memory, as far as it can be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// Bytes that can be had without swapping.
    pub available: Option<u64>,
    /// Bytes that this process may lock; `None` is no limit.
    pub memlock: Option<u64>,
}

/// Words of the kernel's switch for huge pages of shared memory that let a VM have them.
const SHMEM_ENABLED: [&str; 4] = ["[always]", "[within_size]", "[advise]", "[force]"];
/// The switch itself, below the root.
const SHMEM_SWITCH: &str = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// What makes the kernel give guest memory huge pages where it is asked for them.
pub const HUGE_PAGES_REMEDY: &str =
    "echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// What makes more blocks of 2 MiB.
pub const COMPACT_REMEDY: &str = "echo 1 >/proc/sys/vm/compact_memory";
/// The order of a 2 MiB block in `/proc/buddyinfo`, with pages of 4 KiB.
const BLOCK_ORDER: usize = 9;

/// What a user should know although the VM can run: lines for the log. `root` is where the host's
/// `/sys` and `/proc` are.
pub fn advice(root: &Path, needed: u64, hugepages: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !hugepages {
        return lines;
    }
    if huge_pages(root) == Reading::Value(false) {
        lines.push(format!("huge pages are off for guest memory: {HUGE_PAGES_REMEDY}"));
    }
    match free_blocks(root) {
        Reading::Value(free) if free < needed => lines.push(format!(
            "of {} MiB, {} MiB are free in blocks of 2 MiB: the rest is given page by page \
             ({COMPACT_REMEDY} may help)",
            needed.div_ceil(MIB),
            free / MIB
        )),
        _ => {}
    }
    lines
}

/// Whether the kernel gives guest memory huge pages where it is asked for them.
pub fn huge_pages(root: &Path) -> Reading<bool> {
    match Reading::new(fs::read_to_string(root.join(SHMEM_SWITCH))) {
        Reading::Value(text) => {
            Reading::Value(SHMEM_ENABLED.iter().any(|word| text.contains(word)))
        }
        Reading::Absent => Reading::Absent,
        Reading::Unknown(why) => Reading::Unknown(why),
    }
}

/// Bytes that are free in blocks of 2 MiB or more.
pub fn free_blocks(root: &Path) -> Reading<u64> {
    match Reading::new(fs::read_to_string(root.join("proc/buddyinfo"))) {
        Reading::Value(text) => {
            contiguous(&text).map_or_else(|| Reading::Unknown("no zones".into()), Reading::Value)
        }
        Reading::Absent => Reading::Absent,
        Reading::Unknown(why) => Reading::Unknown(why),
    }
}

/// Bytes that are free in blocks of 2 MiB or more.
fn contiguous(buddyinfo: &str) -> Option<u64> {
    let zone = |line: &str| {
        let (_, counts) = line.split_once("zone")?;
        let counts = counts.split_whitespace().skip(1).enumerate().skip(BLOCK_ORDER);
        let bytes = counts.filter_map(|(order, count)| {
            let blocks: u64 = count.parse().ok()?;
            blocks.checked_mul(4096_u64.checked_shl(u32::try_from(order).ok()?)?)
        });
        Some(bytes.sum::<u64>())
    };
    let zones: Vec<u64> = buddyinfo.lines().filter_map(zone).collect();
    (!zones.is_empty()).then(|| zones.iter().sum())
}

impl HostMemory {
    /// Asks the running kernel, after raising the limit on locked memory as far as it goes.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memlock = if may_lock_anything(&status) { None } else { raise_memlock() };
        Self { available: available(&meminfo), memlock }
    }

    /// Checks that a VM with `needed` bytes of memory can live.
    ///
    /// # Errors
    ///
    /// The host has less.
    pub fn check(&self, needed: u64) -> Result<(), Shortage> {
        self.check_available(needed)?;
        self.check_memlock(needed)
    }

    /// Checks that `needed` bytes are available.
    ///
    /// # Errors
    ///
    /// Fewer are.
    pub fn check_available(&self, needed: u64) -> Result<(), Shortage> {
        match self.available {
            Some(available) if available < needed => Err(Shortage::Available { needed, available }),
            _ => Ok(()),
        }
    }

    /// Checks that `needed` bytes may be locked.
    ///
    /// # Errors
    ///
    /// Fewer may.
    pub fn check_memlock(&self, needed: u64) -> Result<(), Shortage> {
        match self.memlock {
            Some(allowed) if allowed < needed => Err(Shortage::Memlock { needed, allowed }),
            _ => Ok(()),
        }
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn may_lock_anything(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    effective.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// The limit on locked memory, after raising it to what is allowed.
fn raise_memlock() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let limit = match setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    (limit != RLIM_INFINITY).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_says_how_much() {
        let host = HostMemory { available: Some(100 * MIB), memlock: Some(50 * MIB) };
        assert!(host.check(50 * MIB).is_ok());
        let error = host.check(64 * MIB).unwrap_err().to_string();
        assert!(error.contains("64 MiB") && error.contains("50 MiB"), "{error}");
        assert!(error.contains("ulimit"), "{error}");
        let error = host.check(200 * MIB).unwrap_err().to_string();
        assert!(error.contains("200 MiB") && error.contains("100 MiB"), "{error}");
    }

    #[test]
    fn unknown_is_no_reason_to_refuse() {
        assert!(HostMemory::default().check(u64::MAX).is_ok());
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert_eq!(available("MemAvailable:     2048 kB\n"), Some(2 * MIB));
    }

    #[test]
    fn advice_is_given_only_on_what_is_known() {
        let root = tempfile::tempdir().unwrap();
        assert!(advice(root.path(), u64::MAX, true).is_empty());
        let (sys, proc) = ("sys/kernel/mm/transparent_hugepage", "proc");
        for dir in [sys, proc] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let switch = root.path().join(sys).join("shmem_enabled");
        fs::write(&switch, "always within_size advise [never] deny force\n").unwrap();
        let buddies = "Node 0, zone DMA 9 9 9 9 9 9 9 9 9 2 1\nNode 0, zone Normal 1 1\n";
        fs::write(root.path().join("proc/buddyinfo"), buddies).unwrap();
        assert_eq!(contiguous(buddies), Some(8 * MIB));
        let lines = advice(root.path(), 9 * MIB, true);
        assert!(lines[0].contains("advise >/sys/kernel/mm"), "{lines:?}");
        assert!(lines[1].contains("of 9 MiB, 8 MiB are free"), "{lines:?}");
        assert!(advice(root.path(), 9 * MIB, false).is_empty(), "nobody asked");
        fs::write(&switch, "always within_size [advise] never deny force\n").unwrap();
        assert!(advice(root.path(), 8 * MIB, true).is_empty());
    }

    #[test]
    fn capabilities() {
        assert!(may_lock_anything("CapPrm:\t0\nCapEff:\t0000000000004000\n"));
        assert!(!may_lock_anything("CapEff:\t000001ffffffbfff\n"));
        assert!(!may_lock_anything(""));
    }
}
