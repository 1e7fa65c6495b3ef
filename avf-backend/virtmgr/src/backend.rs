// SPDX-License-Identifier: Apache-2.0
//! `IGzvmBackend`: what this process knows about its VMs beyond AVF's interfaces.

use crate::errors::{failed, illegal_argument, security, unsupported};
use crate::instance::VmInstance;
use crate::launch;
use crate::service::Shared;
use anyhow::{Context, Result};
use binder::{Interface, ParcelFileDescriptor, ThreadState};
use com_android_gzvm::aidl::com::android::gzvm::{
    GzvmCapabilities::GzvmCapabilities, GzvmClockInfo::GzvmClockInfo, GzvmCounter::GzvmCounter,
    GzvmMemoryPolicy::GzvmMemoryPolicy, GzvmVmStats::GzvmVmStats, IGzvmBackend::IGzvmBackend,
};
use gzvm_clock::client::ask;
use gzvm_clock::protocol::Request;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

/// The object.
pub struct Backend(pub Arc<Shared>);

impl Interface for Backend {}

/// The VMM's words for memory policies, by number.
const POLICIES: &[(GzvmMemoryPolicy, &str)] = &[
    (GzvmMemoryPolicy::LAZY, "lazy"),
    (GzvmMemoryPolicy::PREFAULT, "prefault"),
    (GzvmMemoryPolicy::STATIC, "static"),
];

/// Where the driver shows what it counts.
const COUNTERS: &str = "/sys/kernel/debug/gzvm";
/// What each VM's device tree is called in its directory.
pub const DEVICE_TREE: &str = "device_tree.dtb";

impl Backend {
    /// Only the user whose VMs these are, and root.
    fn admit(&self) -> binder::Result<()> {
        let uid = ThreadState::get_calling_uid();
        match uid == 0 || uid == self.0.uid {
            true => Ok(()),
            false => {
                Err(security(format!("user {uid} may not ask about user {}'s VMs", self.0.uid)))
            }
        }
    }

    fn vm(&self, cid: i32) -> binder::Result<Arc<VmInstance>> {
        self.admit()?;
        let wanted = u32::try_from(cid).ok();
        let vm = self.0.running().into_iter().find(|vm| Some(vm.context().cid()) == wanted);
        vm.ok_or_else(|| illegal_argument(format!("cid: there is no running VM {cid} here")))
    }

    fn clock(&self, cid: i32, request: Request) -> binder::Result<GzvmClockInfo> {
        let cid = self.vm(cid)?.context().cid();
        Ok(match ask(cid, request) {
            Ok(report) => GzvmClockInfo {
                known: true,
                offsetNanos: report.offset_ns,
                errorNanos: i64::try_from(report.bound_ns).unwrap_or(i64::MAX),
                message: report.to_string(),
            },
            Err(e) => GzvmClockInfo { message: e.to_string(), ..Default::default() },
        })
    }
}

impl IGzvmBackend for Backend {
    fn getCapabilities(&self) -> binder::Result<GzvmCapabilities> {
        self.admit()?;
        Ok(GzvmCapabilities {
            vmm: launch::program(&self.0.props).display().to_string(),
            protectedVms: self.0.props.supports(true),
            balloon: self.0.props.memory_reclaim(),
            suspend: true,
            statistics: Path::new(COUNTERS).is_dir(),
        })
    }

    fn listVms(&self) -> binder::Result<Vec<i32>> {
        self.admit()?;
        let cids = self.0.running().into_iter().map(|vm| vm.context().cid());
        Ok(cids.filter_map(|cid| i32::try_from(cid).ok()).collect())
    }

    fn getVmStats(&self, cid: i32) -> binder::Result<GzvmVmStats> {
        let vm = self.vm(cid)?;
        let stats = || -> Result<GzvmVmStats> {
            let pid = vm.pid()?;
            let (memory, resident) = guest_memory(&read(&format!("/proc/{pid}/smaps"))?);
            Ok(GzvmVmStats {
                cid,
                pid: i32::try_from(pid)?,
                memoryBytes: memory,
                residentBytes: resident,
                guestTimeNanos: guest_time(&read(&format!("/proc/{pid}/stat"))?)?,
                counters: counters(Path::new(COUNTERS), pid),
            })
        };
        stats().map_err(|e| failed(&e))
    }

    fn getClockInfo(&self, cid: i32) -> binder::Result<GzvmClockInfo> {
        self.clock(cid, Request::Sample)
    }

    fn resyncClock(&self, cid: i32) -> binder::Result<GzvmClockInfo> {
        self.clock(cid, Request::Resync)
    }

    fn dumpDeviceTree(&self, cid: i32, output: &ParcelFileDescriptor) -> binder::Result<()> {
        let path = self.vm(cid)?.context().dir().join(DEVICE_TREE);
        let mut tree = File::open(&path).map_err(|_| {
            unsupported(
                "no copy of the device tree was kept: set \
                 hypervisor.virtualizationmanager.dump_device_tree=true before the VM is created, \
                 or give vm run --dump-device-tree",
            )
        })?;
        let mut copy = || -> Result<()> {
            let mut output = File::from(output.as_ref().try_clone()?);
            std::io::copy(&mut tree, &mut output).context("cannot write the device tree")?;
            Ok(())
        };
        copy().map_err(|e| failed(&e))
    }

    fn setMemoryPolicy(&self, policy: GzvmMemoryPolicy) -> binder::Result<()> {
        self.admit()?;
        let word = match POLICIES.iter().find(|(number, _)| *number == policy) {
            Some((_, word)) => Some((*word).to_owned()),
            None if policy == GzvmMemoryPolicy::DEFAULT => None,
            None => return Err(illegal_argument(format!("policy: there is no {}", policy.0))),
        };
        self.0.set_memory_policy(word);
        Ok(())
    }

    fn getMemoryPolicy(&self) -> binder::Result<GzvmMemoryPolicy> {
        self.admit()?;
        let word = self.0.memory_policy();
        let known = POLICIES.iter().find(|(_, name)| Some(*name) == word.as_deref());
        Ok(known.map_or(GzvmMemoryPolicy::DEFAULT, |&(policy, _)| policy))
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Bytes of guest memory, and how many of them the host provides, from `/proc/PID/smaps`.
fn guest_memory(smaps: &str) -> (i64, i64) {
    let (mut inside, mut size, mut resident) = (false, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(word) if !word.ends_with(':') => inside = line.contains("/memfd:crosvm_guest"),
            Some("Size:") if inside => size += kib(words.next()),
            Some("Rss:") if inside => resident += kib(words.next()),
            _ => {}
        }
    }
    (size, resident)
}

fn kib(word: Option<&str>) -> i64 {
    word.and_then(|word| word.parse::<i64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// Nanoseconds in the guest, from `/proc/PID/stat`: field 43, in ticks. Fields are counted behind
/// the name, which is the second, in parentheses, and may hold anything.
fn guest_time(stat: &str) -> Result<i64> {
    const FIELD: usize = 43;
    let rest = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
    let ticks = rest.split_whitespace().nth(FIELD - 3).context("no guest time")?;
    let ticks: i64 = ticks.parse().context("guest time")?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(ticks.saturating_mul(1_000_000_000 / per_second.max(1)))
}

/// What the driver shows of the VM of this process: its directory is `PID-N`, its files are lines
/// of `name=number` or `name number`, or single numbers. Only root may look; others get nothing.
fn counters(dir: &Path, pid: u32) -> Vec<GzvmCounter> {
    let prefix = format!("{pid}-");
    let mut counters = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            counters.extend(numbers(&file.file_name().to_string_lossy(), &text));
        }
    }
    counters.sort_by(|a, b| a.name.cmp(&b.name));
    counters
}

fn numbers(file: &str, text: &str) -> Vec<GzvmCounter> {
    if let Ok(value) = text.trim().parse() {
        return vec![GzvmCounter { name: file.to_owned(), value }];
    }
    let mut counters = Vec::new();
    for (line, text) in text.lines().enumerate() {
        for word in text.split_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            let name = format!("{file}.{line}.{name}");
            counters.extend(value.parse().ok().map(|value| GzvmCounter { name, value }));
        }
        if let [name, value] = text.split_whitespace().collect::<Vec<_>>()[..] {
            let name = format!("{file}.{name}");
            counters.extend(value.parse().ok().map(|value| GzvmCounter { name, value }));
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_found_by_its_name() {
        let smaps = "1000-2000 rw-s 00000000 00:01 5 /memfd:crosvm_guest (deleted)\n\
                     Size:  8 kB\nRss:  4 kB\n3000-4000 rw-p 00000000 00:00 0\nSize: 99 kB\nRss: 9 kB\n";
        assert_eq!(guest_memory(smaps), (8192, 4096));
    }

    #[test]
    fn guest_time_is_field_43() {
        let fields: Vec<_> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("12 (a ) b) {}", fields.join(" "));
        assert_eq!(guest_time(&stat).unwrap() % 43, 0);
        assert!(guest_time("12 (x) 3").is_err());
    }

    #[test]
    fn counters_have_the_drivers_names() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("7-1/protected_hyp_mem", "4096\n"),
            ("7-1/vcpus", "run_ns=5 faults=2 mmio=1\nrun_ns=6 faults=0\n"),
            ("7-1/vm_stats", "protected 1\npaging Block\n"),
            ("77-1/protected_hyp_mem", "1\n"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = counters(dir.path(), 7);
        let found: Vec<_> = found.iter().map(|c| format!("{}={}", c.name, c.value)).collect();
        let expected = [
            "protected_hyp_mem=4096",
            "vcpus.0.faults=2",
            "vcpus.0.mmio=1",
            "vcpus.0.run_ns=5",
            "vcpus.1.faults=0",
            "vcpus.1.run_ns=6",
            "vm_stats.protected=1",
        ];
        assert_eq!(found, expected);
    }
}
