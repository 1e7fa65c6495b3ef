// SPDX-License-Identifier: Apache-2.0
//! Statistics for people and for programs.

use super::{VcpuStats, VmStats};
use gzvm_preflight::MIB;
use serde_json::{json, Value};
use std::fmt::Write;
use std::time::Duration;

/// Bytes in a tenth of a MiB.
const TENTH: u64 = MIB / 10;

/// What was counted since each VM started.
pub fn totals(vms: &[VmStats]) -> String {
    all(vms, |text, vm| {
        if let Some(ns) = vm.vcpus.is_empty().then_some(vm.guest_ns).flatten() {
            let _ = writeln!(text, "  vCPUs    {}", seconds(ns));
        }
        for vcpu in &vm.vcpus {
            // Writing to a string does not fail.
            let _ = write!(text, "  vCPU {:<3} {}", vcpu.index, seconds(vcpu.run_ns));
            counters(text, vcpu);
        }
    })
}

/// What was counted in the time since `before`, and the share of it that each vCPU ran.
pub fn changes(vms: &[VmStats], before: &[VmStats], elapsed: Duration) -> String {
    all(vms, |text, vm| {
        let same = |other: &&VmStats| other.vmm.pid == vm.vmm.pid && other.id == vm.id;
        let old = before.iter().find(same);
        let percent = |ns| 100.0 * Duration::from_nanos(ns).as_secs_f64() / elapsed.as_secs_f64();
        if let Some(ns) = vm.vcpus.is_empty().then_some(vm.guest_ns).flatten() {
            let ns = ns.saturating_sub(old.and_then(|vm| vm.guest_ns).unwrap_or(0));
            let _ = writeln!(text, "  vCPUs    {:5.1} %", percent(ns));
        }
        for vcpu in &vm.vcpus {
            let old = old.and_then(|vm| vm.vcpus.iter().find(|old| old.index == vcpu.index));
            let change = difference(vcpu, old);
            // Writing to a string does not fail.
            let _ = write!(text, "  vCPU {:<3} {:5.1} %", vcpu.index, percent(change.run_ns));
            counters(text, &change);
        }
    })
}

fn all(vms: &[VmStats], vcpus: impl Fn(&mut String, &VmStats)) -> String {
    if vms.is_empty() {
        return "No VM runs.\n".into();
    }
    let mut text = String::new();
    for vm in vms {
        let kind = match vm.protected {
            Some(true) => ", protected",
            Some(false) => ", not protected",
            None => "",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}{kind}", vm.vmm.label());
        let _ = writeln!(text, "  memory   {}", memory(vm));
        vcpus(&mut text, vm);
    }
    text
}

fn memory(vm: &VmStats) -> String {
    let parts = [
        ("pinned", vm.pinned),
        ("shared", vm.shared),
        ("hypervisor's", vm.hypervisor),
        ("saved", vm.saved()),
        ("resident", vm.resident),
    ];
    let memory = vm.vmm.memory_mib.map(|mib| format!("{mib} MiB"));
    let part = |(name, bytes): (&str, Option<u64>)| Some(format!("{name} {}", mebibytes(bytes?)));
    memory.into_iter().chain(parts.into_iter().filter_map(part)).collect::<Vec<_>>().join(", ")
}

fn seconds(ns: u64) -> String {
    format!("{:.3} s", Duration::from_nanos(ns).as_secs_f64())
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes / TENTH;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn counters(text: &mut String, vcpu: &VcpuStats) {
    // Writing to a string does not fail.
    let _ = write!(text, ", {} faults", vcpu.faults);
    let exits: Vec<_> = vcpu.exits.iter().filter(|(_, count)| **count > 0).collect();
    for (place, (name, count)) in exits.into_iter().enumerate() {
        let before = if place == 0 { ", exits:" } else { "," };
        let _ = write!(text, "{before} {name} {count}");
    }
    text.push('\n');
}

/// What a vCPU did since; all of it, if it was not there before.
fn difference(now: &VcpuStats, before: Option<&VcpuStats>) -> VcpuStats {
    let Some(before) = before else { return now.clone() };
    let exits = now.exits.iter().map(|(name, count)| {
        let old = before.exits.get(name).copied().unwrap_or(0);
        (name.clone(), count.saturating_sub(old))
    });
    VcpuStats {
        index: now.index,
        run_ns: now.run_ns.saturating_sub(before.run_ns),
        faults: now.faults.saturating_sub(before.faults),
        exits: exits.collect(),
    }
}

/// An array with an object for each VM; sizes in bytes, everything counted since its start.
pub fn json(vms: &[VmStats]) -> Value {
    vms.iter().map(vm_json).collect()
}

fn vm_json(vm: &VmStats) -> Value {
    let vcpus: Vec<_> = vm.vcpus.iter().map(vcpu_json).collect();
    json!({
        "name": vm.vmm.name,
        "cid": vm.vmm.cid,
        "pid": vm.vmm.pid,
        "id": vm.id,
        "protected": vm.protected,
        "memory": vm.vmm.memory_mib.and_then(|mib| mib.checked_mul(MIB)),
        "pinned": vm.pinned,
        "shared": vm.shared,
        "hypervisor": vm.hypervisor,
        "saved": vm.saved(),
        "resident": vm.resident,
        "guest_ns": vm.guest_ns,
        "driver": vm.more,
        "vcpus": vcpus,
    })
}

fn vcpu_json(vcpu: &VcpuStats) -> Value {
    json!({
        "index": vcpu.index,
        "run_ns": vcpu.run_ns,
        "faults": vcpu.faults,
        "exits": vcpu.exits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmms::Vmm;

    fn vcpu(index: u32, run_ns: u64, faults: u64, mmio: u64) -> VcpuStats {
        let exits = [("mmio".to_owned(), mmio), ("irq".to_owned(), 3)].into();
        VcpuStats { index, run_ns, faults, exits }
    }

    fn vm() -> VmStats {
        VmStats {
            vmm: Vmm {
                pid: 12,
                name: Some("a".into()),
                cid: Some(2048),
                memory_mib: Some(64),
                ..Vmm::default()
            },
            id: Some(1),
            protected: Some(true),
            pinned: Some(10 * MIB + MIB / 2),
            shared: Some(8 * MIB),
            hypervisor: Some(40960),
            vcpus: vec![vcpu(0, 1_234_567_890, 17, 5)],
            ..VmStats::default()
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
VM a with CID 2048 (process 12), protected
  memory   64 MiB, pinned 10.5 MiB, shared 8.0 MiB, hypervisor's 0.0 MiB, saved 53.5 MiB
  vCPU 0   1.235 s, 17 faults, exits: irq 3, mmio 5
";
        assert_eq!(totals(&[vm()]), expected);
        assert_eq!(totals(&[]), "No VM runs.\n");
        let other = VmStats {
            vmm: Vmm { pid: 9, ..Vmm::default() },
            protected: Some(false),
            pinned: Some(0),
            resident: Some(MIB),
            ..VmStats::default()
        };
        let expected = "VM without a name (process 9), not protected\n\
            \x20 memory   pinned 0.0 MiB, resident 1.0 MiB\n";
        assert_eq!(totals(&[other]), expected);
        // What a user sees.
        let resident = Some(3 * MIB);
        let vmm = vm().vmm;
        let users = VmStats { vmm, resident, guest_ns: Some(50_000_000), ..VmStats::default() };
        let expected = "\
VM a with CID 2048 (process 12)
  memory   64 MiB, resident 3.0 MiB
  vCPUs    0.050 s
";
        assert_eq!(totals(std::slice::from_ref(&users)), expected);
        let later = VmStats { guest_ns: Some(550_000_000), ..users.clone() };
        let text = changes(&[later], &[users], Duration::from_secs(1));
        assert!(text.ends_with("  vCPUs     50.0 %\n"), "{text}");
    }

    #[test]
    fn changes_are_since_the_last_time() {
        let mut now = vm();
        now.vcpus = vec![vcpu(0, 2_234_567_890, 18, 9), vcpu(1, 500_000_000, 1, 0)];
        let text = changes(&[now], &[vm()], Duration::from_secs(2));
        let expected = "
  vCPU 0    50.0 %, 1 faults, exits: mmio 4
  vCPU 1    25.0 %, 1 faults, exits: irq 3
";
        assert!(text.ends_with(expected), "{text}");
        // Another VM with the same process number is not this one's past.
        let before = VmStats { id: Some(2), ..vm() };
        let text = changes(&[vm()], &[before], Duration::from_secs(1));
        assert!(text.contains("17 faults"), "{text}");
    }

    #[test]
    fn for_programs() {
        let json = json(&[vm()]);
        let vm = &json[0];
        assert_eq!((vm["cid"].as_u64(), vm["pinned"].as_u64()), (Some(2048), Some(11_010_048)));
        assert_eq!(vm["saved"].as_u64(), Some(64 * MIB - 11_010_048));
        assert_eq!(vm["vcpus"][0]["exits"]["mmio"], 5);
    }
}
