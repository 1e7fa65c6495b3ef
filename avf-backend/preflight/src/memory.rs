// SPDX-License-Identifier: Apache-2.0
//! Whether the host has memory for a VM: said before the VM is made, instead of a death later.
//!
//! What cannot be read is no reason to refuse.

use crate::{host_page, Reading, MIB};
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
/// Bytes of the blocks that hypervisors map at once.
const BLOCK: u64 = 2 * MIB;

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
        Reading::Value(text) => contiguous(&text, host_page())
            .map_or_else(|| Reading::Unknown("no zones".into()), Reading::Value),
        Reading::Absent => Reading::Absent,
        Reading::Unknown(why) => Reading::Unknown(why),
    }
}

/// Bytes that are free in blocks of 2 MiB or more, with pages of so many bytes: columns are of
/// blocks of one page, of two, of four and so on.
fn contiguous(buddyinfo: &str, page: u64) -> Option<u64> {
    let zone = |line: &str| {
        let (_, counts) = line.split_once("zone")?;
        let sizes = std::iter::successors(Some(page), |size| size.checked_mul(2));
        let columns = counts.split_whitespace().skip(1).zip(sizes);
        let bytes = columns.filter(|&(_, size)| size >= BLOCK).filter_map(|(count, size)| {
            let blocks: u64 = count.parse().ok()?;
            blocks.checked_mul(size)
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
        assert_eq!(contiguous(buddies, 4096), Some(8 * MIB));
        // Four columns of larger pages are of whole blocks: of 2, 4, 8 and 16 MiB.
        assert_eq!(contiguous(buddies, 16384), Some((9 * 2 + 9 * 4 + 2 * 8 + 16) * MIB));
        assert_eq!(contiguous("", 4096), None);
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
