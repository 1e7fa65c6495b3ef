// SPDX-License-Identifier: Apache-2.0
//! `stats`: what driver and service know of each VM, once or again and again.

mod debugfs;
mod print;

use crate::cli::StatsArgs;
use crate::output;
use crate::vmms::{self, Vmm};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// What is known of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmStats {
    /// Its process, and what that says about it.
    pub vmm: Vmm,
    /// The driver's number for it.
    pub id: Option<u32>,
    /// Whether it is protected.
    pub protected: Option<bool>,
    /// Bytes that the driver has pinned for the guest.
    pub pinned: Option<u64>,
    /// Bytes that a protected guest shares with the host.
    pub shared: Option<u64>,
    /// Bytes that the hypervisor uses for it.
    pub hypervisor: Option<u64>,
    /// Bytes of the host's memory that its memory takes.
    pub resident: Option<u64>,
    /// Nanoseconds that its vCPUs ran, all together.
    pub guest_ns: Option<u64>,
    /// The other values of the driver, by name.
    pub more: BTreeMap<String, String>,
    /// Its vCPUs that ran.
    pub vcpus: Vec<VcpuStats>,
}

impl VmStats {
    /// Bytes of its memory that the host still has, or has again.
    pub fn saved(&self) -> Option<u64> {
        let memory = self.vmm.memory_mib?.checked_mul(gzvm_preflight::MIB)?;
        Some(memory.saturating_sub(self.pinned?))
    }
}

/// What the driver counts for a vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VcpuStats {
    /// Its number.
    pub index: u32,
    /// Nanoseconds in the guest.
    pub run_ns: u64,
    /// Page faults that were served.
    pub faults: u64,
    /// The other counters: exits by reason.
    pub exits: BTreeMap<String, u64>,
}

/// What a service tells its user about a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The process of its VMM.
    pub pid: i32,
    /// Bytes of the host's memory that its memory takes.
    pub resident: u64,
    /// Nanoseconds that its vCPUs ran, all together.
    pub guest_ns: u64,
}

/// The VMs of services that this user may ask.
pub type Services<'a> = &'a dyn Fn() -> Vec<Served>;

/// Does what the command line asks for.
pub fn stats(args: &StatsArgs, services: Services<'_>) -> Result<()> {
    let root = Path::new("/");
    let wanted = |vm: &VmStats| args.vm.as_ref().is_none_or(|what| vm.vmm.is(what));
    let read = || -> Result<_> {
        let vms = all(root, services())?.into_iter().filter(wanted);
        Ok((vms.collect::<Vec<_>>(), Instant::now()))
    };
    let (mut vms, mut when) = read()?;
    if let (Some(what), true) = (&args.vm, vms.is_empty()) {
        // Says which there are.
        let all = all(root, services())?;
        vmms::find(all.into_iter().map(|vm| vm.vmm).collect(), what)?;
    }
    let is_read = show(args, &vms, &[], None)?;
    let Some(seconds) = args.watch.filter(|_| is_read) else { return Ok(()) };
    loop {
        thread::sleep(Duration::from_secs(seconds.get().into()));
        let (next, now) = read()?;
        if args.vm.is_some() && next.is_empty() {
            return Ok(());
        }
        if !show(args, &next, &vms, Some(now.saturating_duration_since(when)))? {
            return Ok(());
        }
        (vms, when) = (next, now);
    }
}

/// All VMs that this user may know of: the driver's, which only root sees, with what services say
/// about them; else those of services.
fn all(root: &Path, served: Vec<Served>) -> Result<Vec<VmStats>> {
    let mut vms = match debugfs::read(root) {
        Ok(vms) => vms,
        Err(e) if served.is_empty() => return Err(e),
        Err(_) => served.iter().filter_map(|served| of_process(root, served.pid)).collect(),
    };
    for vm in &mut vms {
        if let Some(served) = served.iter().find(|served| served.pid == vm.vmm.pid) {
            vm.resident = Some(served.resident);
            vm.guest_ns = Some(served.guest_ns);
        }
    }
    Ok(vms)
}

/// What a VMM's process says; nothing if it has ended meanwhile.
fn of_process(root: &Path, pid: i32) -> Option<VmStats> {
    let vmm = vmms::vmm(&root.join("proc"), pid)?;
    Some(VmStats { vmm, ..VmStats::default() })
}

/// Prints VMs; with a time, what happened in it since `before`. Whether anybody reads it.
fn show(
    args: &StatsArgs,
    vms: &[VmStats],
    before: &[VmStats],
    elapsed: Option<Duration>,
) -> Result<bool> {
    let text = match (args.json, elapsed) {
        (true, _) => format!("{}\n", print::json(vms)),
        (false, None) => print::totals(vms),
        (false, Some(elapsed)) => format!("\n{}", print::changes(vms, before, elapsed)),
    };
    output::print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmms::tests::process;

    #[test]
    fn what_services_say_is_added_or_has_to_do() {
        let served = || vec![Served { pid: 12, resident: 4096, guest_ns: 7 }];
        let root = debugfs::tests::world();
        let vms = all(root.path(), served()).unwrap();
        assert_eq!((vms[0].id, vms[0].resident, vms[0].guest_ns), (Some(3), Some(4096), Some(7)));
        let root = tempfile::tempdir().unwrap();
        process(&root.path().join("proc"), 12, "S", &["gzvm_vmm", "run", "--cid", "2048"]);
        let vms = all(root.path(), served()).unwrap();
        assert_eq!((vms.len(), vms[0].vmm.cid, vms[0].id), (1, Some(2048), None));
        assert_eq!((vms[0].resident, vms[0].pinned, vms[0].protected), (Some(4096), None, None));
        // Nobody knows anything.
        assert!(all(root.path(), Vec::new()).is_err());
    }
}
