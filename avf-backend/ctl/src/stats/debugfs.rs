// SPDX-License-Identifier: Apache-2.0
//! Reads the driver's statistics (driver/Documentation/ABI/testing/debugfs-gzvm).

use super::{VcpuStats, VmStats};
use crate::vmms::{self, Vmm};
use anyhow::{anyhow, Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Where the driver has its directories.
const DIRECTORY: &str = "sys/kernel/debug/gzvm";
/// Bytes in a page of the ABI.
const PAGE: u64 = 4096;

/// The statistics of all VMs; `root` is where the host's `/sys` and `/proc` are.
///
/// # Errors
///
/// There are none to be read, and what to do about it.
pub fn read(root: &Path) -> Result<Vec<VmStats>> {
    let base = root.join(DIRECTORY);
    let entries = fs::read_dir(&base).map_err(|e| explain(root, &e))?;
    let mut vms = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((pid, id)) = name.to_str().and_then(ids) else { continue };
        match vm(root, &entry.path(), pid, id) {
            Ok(vm) => vms.push(vm),
            // The VM ended meanwhile.
            Err(e) if ended(&e) => {}
            Err(e) => {
                return Err(anyhow!(e)).with_context(|| format!("/{DIRECTORY}/{pid}-{id}"));
            }
        }
    }
    vms.sort_by_key(|vm| (vm.vmm.pid, vm.id));
    Ok(vms)
}

/// `<pid>-<id>`.
fn ids(name: &str) -> Option<(i32, u32)> {
    let (pid, id) = name.split_once('-')?;
    Some((pid.parse().ok()?, id.parse().ok()?))
}

fn ended(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound) || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn explain(root: &Path, error: &io::Error) -> anyhow::Error {
    let why = match error.kind() {
        ErrorKind::PermissionDenied => "unknown (no permission): ask as root",
        ErrorKind::NotFound if !root.join("sys/kernel/debug/tracing").exists() => {
            "debugfs is not mounted: mount -t debugfs debugfs /sys/kernel/debug (kernels of phones \
             may be without)"
        }
        ErrorKind::NotFound => "the driver is not there: vm check says why",
        _ => return anyhow!("/{DIRECTORY}: {error}"),
    };
    anyhow!("/{DIRECTORY}: {why}")
}

fn vm(root: &Path, path: &Path, pid: i32, id: u32) -> io::Result<VmStats> {
    let text = |name: &str| fs::read_to_string(path.join(name));
    let number = |name| Ok::<_, io::Error>(text(name)?.trim().parse().unwrap_or(0));
    let vmm = vmms::vmm(&root.join("proc"), pid);
    let mut more = pairs(&text("vm_stats")?);
    let mut take = |name: &str| more.remove(name).and_then(|value| value.parse::<u64>().ok());
    let (protected, pinned) = (take("protected"), take("pinned_pages"));
    Ok(VmStats {
        // Who may see the statistics may also see a VMM; another program may have made the VM.
        vmm: vmm.unwrap_or(Vmm { pid, ..Vmm::default() }),
        id: Some(id),
        protected: Some(protected == Some(1)),
        pinned: Some(pinned.unwrap_or(0).saturating_mul(PAGE)),
        shared: Some(number("protected_shared_mem")?),
        hypervisor: Some(number("protected_hyp_mem")?),
        more,
        vcpus: text("vcpu_stats")?.lines().filter_map(vcpu).collect(),
        ..VmStats::default()
    })
}

/// Lines of a name and a value.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// A line `vcpuN NAME=VALUE…`; nothing if the vCPU never ran.
fn vcpu(line: &str) -> Option<VcpuStats> {
    let mut words = line.split_whitespace();
    let index = words.next()?.strip_prefix("vcpu")?.trim_end_matches(':').parse().ok()?;
    let counters = words.filter_map(|word| word.split_once('='));
    let mut exits: BTreeMap<String, u64> =
        counters.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect();
    let run_ns = exits.remove("run_ns").unwrap_or(0);
    let faults = exits.remove("faults").unwrap_or(0);
    let ran = run_ns > 0 || faults > 0 || !exits.is_empty();
    ran.then_some(VcpuStats { index, run_ns, faults, exits })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::vmms::tests::process;

    /// A host with one VM.
    pub fn world() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(DIRECTORY).join("12-3");
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [
            ("protected_hyp_mem", "8192\n"),
            ("protected_shared_mem", "1048576\n"),
            ("vm_stats", "protected 1\npaging Block\npinned_pages 512\nrecords 2\n"),
            ("vcpu_stats", "vcpu0 run_ns=5000 faults=2 mmio=7 irq=1\nvcpu1 run_ns=0 faults=0\n"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let words = ["gzvm_vmm", "run", "--name", "crosvm_a", "--cid", "2048", "--mem", "8"];
        process(&root.path().join("proc"), 12, "S", &words);
        root
    }

    #[test]
    fn everything_is_read() {
        let vms = read(world().path()).unwrap();
        let [vm] = &vms[..] else { panic!("{vms:?}") };
        assert_eq!((vm.id, vm.vmm.cid, vm.vmm.name.as_deref()), (Some(3), Some(2048), Some("a")));
        assert_eq!(vm.protected, Some(true));
        let bytes = [vm.pinned, vm.shared, vm.hypervisor];
        assert_eq!(bytes, [2 << 20, 1 << 20, 8192].map(Some));
        assert_eq!(vm.saved(), Some(6 << 20));
        let more = [("paging", "Block"), ("records", "2")];
        assert_eq!(vm.more, more.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
        let exits = [("mmio".to_owned(), 7), ("irq".to_owned(), 1)].into();
        assert_eq!(vm.vcpus, [VcpuStats { index: 0, run_ns: 5000, faults: 2, exits }]);
    }

    #[test]
    fn a_vm_of_another_program_has_statistics_too() {
        let root = world();
        fs::remove_dir_all(root.path().join("proc")).unwrap();
        let vms = read(root.path()).unwrap();
        assert_eq!((vms[0].vmm.pid, vms[0].vmm.cid, vms[0].saved()), (12, None, None));
    }

    #[test]
    fn a_vm_that_ends_meanwhile_is_left_out() {
        let root = world();
        fs::remove_file(root.path().join(DIRECTORY).join("12-3/vcpu_stats")).unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
        fs::create_dir(root.path().join(DIRECTORY).join("other")).unwrap();
        assert_eq!(read(root.path()).unwrap(), []);
    }

    #[test]
    fn absences_have_remedies() {
        let root = tempfile::tempdir().unwrap();
        let error = || read(root.path()).unwrap_err().to_string();
        assert!(error().contains("mount -t debugfs"), "{}", error());
        fs::create_dir_all(root.path().join("sys/kernel/debug/tracing")).unwrap();
        assert!(error().contains("vm check"), "{}", error());
    }
}
