// SPDX-License-Identifier: Apache-2.0
//! The global service dies and comes back; so do its clients.

use crate::chain::inventory::Before;
use crate::chain::run::{kill_now, payload, vm, VmRun};
use crate::chain::services::{or_log, services};
use crate::together::listed;
use anyhow::{ensure, Context, Result};
use gzvm_client::Service;
use gzvm_vmm_test::host::settles;
use std::fs;
use std::path::Path;

pub fn vms_outlive_the_service() -> Result<()> {
    let mut services = services()?;
    let services = services.as_mut().context("no services")?;
    let before = Before::take(services)?;
    let payload = payload("idle", true)?;
    let (mut vm_run, cid) = or_log(VmRun::ready(&[&payload, "--name", "outlives"], "idle: "))?;
    services.kill()?;
    ensure!(vm_run.runs()? && vm_run.vmm().is_some(), "it has ended with the service");
    // Without a service a VM can be started all the same; nobody lists it.
    let (local, local_cid) = or_log(VmRun::ready(&[&payload, "--name", "local"], "idle: "))?;
    ensure!(vm("list")? == "Running VMs: []\n");
    services.start()?;
    let list = vm("list")?;
    let info = listed(&list, cid).with_context(|| list.clone())?;
    ensure!(info.contains("requesterUid: 0,"), "{info}");
    ensure!(info.contains(&format!("requesterPid: {},", vm_run.pid())), "{info}");
    let (next, next_cid) = or_log(VmRun::ready(&[&payload, "--name", "next"], "idle: "))?;
    ensure!(next_cid != cid && next_cid != local_cid, "{next_cid} is taken");
    // Its virtmgr has come to the new service.
    settles("statistics of the VM before", || {
        Ok(vm("stats --json outlives")?.contains("\"resident\":")
            && !vm("stats --json outlives")?.contains("\"resident\":null"))
    })?;
    for (vm_run, cid) in [(vm_run, cid), (local, local_cid), (next, next_cid)] {
        vm(&format!("stop {cid}"))?;
        vm_run.ends("Killed")?;
    }
    ensure!(listed(&vm("list")?, cid).is_none(), "it has ended");
    ensure!(!Path::new(&format!("/run/gzvm/{cid}")).exists(), "its directory is there");
    before.is_back(services)
}

/// Behind the last id comes the first again, for the kernel's vsock too; that of a VM that was killed
/// is not given again soon.
pub fn context_ids_wrap() -> Result<()> {
    let mut services = services()?;
    let services = services.as_mut().context("no services")?;
    let before = Before::take(services)?;
    services.kill()?;
    let file = "/run/gzvm/last_cid";
    let last = fs::read_to_string(file).context(file)?;
    fs::write(file, "65534")?;
    services.start()?;
    let payload = payload("idle", true)?;
    let start = || or_log(VmRun::ready(&[&payload], "idle: "));
    let ((end, end_cid), (first, first_cid)) = (start()?, start()?);
    ensure!((end_cid, first_cid) == (65_535, 2048), "{end_cid} {first_cid}");
    kill_now(end.vmm().context("no VMM")?)?;
    end.ends("Killed")?;
    let (next, next_cid) = start()?;
    ensure!(next_cid == 2049, "{next_cid}");
    ensure!(listed(&vm("list")?, first_cid).is_some(), "it is not listed");
    for (vm_run, cid) in [(first, first_cid), (next, next_cid)] {
        vm(&format!("stop {cid}"))?;
        vm_run.ends("Killed")?;
    }
    // Others go on where they were.
    services.kill()?;
    fs::write(file, last)?;
    services.start()?;
    before.is_back(services)
}

pub fn clients_find_the_next_service() -> Result<()> {
    let mut services = services()?;
    let services = services.as_mut().context("no services")?;
    let before = Before::take(services)?;
    let virtmgr = Service::start()?;
    let client = virtmgr.connect()?;
    ensure!(client.allocateInstanceId()? != [0; 64]);
    services.kill()?;
    let error = client.allocateInstanceId();
    let error = error.err().context("who gave an id?")?;
    let message = error.message().unwrap_or_default();
    ensure!(message.contains("the global service has ended"), "{error}");
    services.start()?;
    ensure!(client.allocateInstanceId()? != [0; 64]);
    drop((client, virtmgr));
    before.is_back(services)
}

pub fn dead_clients_are_forgotten() -> Result<()> {
    let services = services()?;
    let services = services.as_ref().context("no services")?;
    let before = Before::take(services)?;
    let payload = payload("idle", true)?;
    let (killed, _) = or_log(VmRun::ready(&[&payload], "idle: "))?;
    kill_now(killed.virtmgr().context("no virtmgr")?)?;
    killed.ends("VirtualizationServiceDied")?;
    before.is_back(services)?;
    let (killed, _) = or_log(VmRun::ready(&[&payload], "idle: "))?;
    kill_now(killed.pid())?;
    drop(killed);
    before.is_back(services)
}
