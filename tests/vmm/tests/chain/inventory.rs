// SPDX-License-Identifier: Apache-2.0
//! What VMs leave behind if anything goes wrong: memory of the hypervisor and the driver, processes,
//! directories, sockets, descriptors, ids.

use crate::chain::run::{processes, vm};
use crate::chain::services::Services;
use anyhow::{ensure, Context, Result};
use gzvm_device_test::raw::{Audit, Raw};
use gzvm_vmm_test::host::{field, pinned, settles, PINNED_SLACK};
use std::fs;

/// Everything that is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The hypervisor's own count of VMs and of pages that they have, where it has one.
    hypervisor: Option<Audit>,
    /// The driver's VMs.
    driver: Vec<String>,
    /// Processes of VMMs and virtmgrs.
    processes: usize,
    /// Directories of VMs, the global service's and virtmgr's own.
    directories: Vec<String>,
    /// Unix sockets, in the whole host.
    sockets: usize,
    /// Open files of the services.
    descriptors: usize,
    /// KiB that are locked in the whole host.
    locked: u64,
    /// What `vm list` prints.
    list: String,
}

impl Inventory {
    /// Counts.
    pub fn take(services: &Services) -> Result<Self> {
        let hypervisor = Raw::open().and_then(|raw| raw.audit());
        ensure!(hypervisor.is_none_or(|audit| audit.wrong == 0), "tables disagree: {hypervisor:?}");
        Ok(Self {
            hypervisor,
            driver: names("/sys/kernel/debug/gzvm", |name| name.contains('-')),
            processes: processes(&["gzvm_virtmgr", "crosvm_", "gzvm_vmm"]).len(),
            directories: [
                names("/run/gzvm", |name| name.parse::<u32>().is_ok()),
                names("/tmp", |name| name.starts_with("gzvm-virtmgr-")),
            ]
            .concat(),
            sockets: fs::read_to_string("/proc/net/unix").context("unix")?.lines().count(),
            // The list has to be taken before: its virtmgr is one more client.
            list: vm("list")?,
            descriptors: services.descriptors()?,
            locked: field("/proc/meminfo", "Mlocked")?,
        })
    }
}

fn names(dir: &str, which: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| which(name)).collect();
    names.sort();
    names
}

/// What there was.
pub struct Before {
    inventory: Inventory,
    pinned: i64,
}

impl Before {
    /// Counts, in a machine without VMs.
    pub fn take(services: &Services) -> Result<Self> {
        let mut inventory = Inventory::take(services)?;
        // Those of a test before may still be ending.
        settles("the end of all VMs", || {
            inventory = Inventory::take(services)?;
            Ok(inventory.processes == 0 && inventory.driver.is_empty())
        })?;
        Ok(Self { inventory, pinned: pinned()? })
    }

    /// Waits until there is as much again: the kernel closes files of a process that was killed when
    /// it comes to it.
    pub fn is_back(&self, services: &Services) -> Result<()> {
        let mut now = None;
        settles("what VMs had is given back", || {
            let inventory = Inventory::take(services)?;
            let back = inventory == self.inventory;
            now = Some(inventory);
            Ok(back)
        })
        .with_context(|| format!("now {now:?}\nbefore {:?}", self.inventory))?;
        let mut more = 0;
        settles("pages are pinned no more", || {
            more = pinned()? - self.pinned;
            Ok(more.abs() <= PINNED_SLACK)
        })
        .with_context(|| format!("{more} pages more than before"))
    }
}
