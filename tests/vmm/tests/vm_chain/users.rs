// SPDX-License-Identifier: Apache-2.0
//! Who may have VMs, and who sees whose.

use crate::chain::inventory::Before;
use crate::chain::run::{payload, vm, vm_as, VmRun};
use crate::chain::services::{or_log, services, SERVICE};
use crate::together::listed;
use anyhow::{bail, ensure, Context, Result};
use avf_aidl::aidl::virtualizationservice_internal::IVirtualizationServiceInternal::IVirtualizationServiceInternal;
use binder::{ExceptionCode, Exceptions, Interface, Strong};
use com_android_gzvm::aidl::com::android::gzvm::{
    IGzvmBackend::IGzvmBackend,
    IGzvmRegistry::{BnGzvmRegistry, IGzvmRegistry},
};
use gzvm_vmm_test::host::settles;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::unistd::{setgid, setuid, Gid, Uid};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// Somebody who may do nothing special.
const NOBODY: u32 = 1000;
/// Somebody who may have VMs.
const USER: u32 = 1001;
/// What makes this program a process of another user's that tries something.
const ATTEMPT: &str = "--attempt-as";
/// The registry's name.
const REGISTRY: &str = "com.android.gzvm";
/// Bytes that [`USER`] may lock without the service: less than any VM has.
const LOCKED: u64 = 64 << 10;

/// Who may have VMs, until the end of the value.
struct Table;

impl Table {
    const PATH: &str = "/etc/gzvm/permissions";

    fn new() -> Result<Self> {
        fs::write(Self::PATH, format!("{USER} manage custom\n")).context(Self::PATH)?;
        Ok(Self)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Tests that follow do not care: they are root's.
        let _ = fs::remove_file(Self::PATH);
    }
}

/// A device node that everybody may open, until the end of the value.
struct Open(&'static str, Permissions);

impl Open {
    fn new(path: &'static str) -> Result<Self> {
        let before = fs::metadata(path).context(path)?.permissions();
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(Self(path, before))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Tests that follow are root's.
        let _ = fs::set_permissions(self.0, self.1.clone());
    }
}

/// Runs `attempt` in a process that found root's backends as root and is then another user's.
fn attempt_as(uid: u32) -> Result<()> {
    let output = Command::new("/proc/self/exe").args([ATTEMPT, &uid.to_string()]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {text}", output.status);
    Ok(())
}

/// What the command line makes this process: the exit status of an attempt.
pub fn attempt() -> Option<i32> {
    let args: Vec<_> = std::env::args().collect();
    let uid = args.iter().position(|arg| arg == ATTEMPT).and_then(|at| args.get(at + 1))?;
    let tried = uid.parse().context("uid").and_then(try_as);
    Some(tried.map_or_else(
        |e| {
            eprintln!("{e:#}");
            1
        },
        |()| 0,
    ))
}

/// Tries all that root's objects refuse.
fn try_as(uid: u32) -> Result<()> {
    binder::connect_kernel().map_err(anyhow::Error::msg)?;
    let registry = binder::check_interface::<dyn IGzvmRegistry>(REGISTRY)?;
    let backends = registry.getBackends()?;
    ensure!(backends.len() == 1, "{} backends", backends.len());
    let cid = backends[0].listVms()?.into_iter().next().context("no VM")?;
    setgid(Gid::from_raw(uid))?;
    setuid(Uid::from_raw(uid))?;
    // As another user, with a reference that nobody gave it.
    let backend = &backends[0];
    refused(backend.listVms().map(drop), "listVms")?;
    refused(backend.getVmStats(cid).map(drop), "getVmStats")?;
    refused(backend.getCapabilities().map(drop), "getCapabilities")?;
    ensure!(registry.getBackends()?.is_empty(), "it is given backends of root's");
    let service = binder::check_interface::<dyn IVirtualizationServiceInternal>(SERVICE)?;
    ensure!(service.debugListVms()?.is_empty(), "it sees root's VMs");
    refused(service.allocateGlobalVmContext(1).map(drop), "allocateGlobalVmContext")?;
    refused(service.removeMemlockRlimit(), "removeMemlockRlimit")?;
    // Nor can it put itself in the registry's place.
    struct Impostor;
    impl Interface for Impostor {}
    impl IGzvmRegistry for Impostor {
        fn addBackend(&self, _: &Strong<dyn IGzvmBackend>) -> binder::Result<()> {
            Ok(())
        }
        fn getBackends(&self) -> binder::Result<Vec<Strong<dyn IGzvmBackend>>> {
            Ok(Vec::new())
        }
    }
    let impostor = BnGzvmRegistry::new_binder(Impostor).as_binder();
    refused(binder::add_service(REGISTRY, impostor), "addService")
}

fn refused(answer: binder::Result<()>, what: &str) -> Result<()> {
    match answer {
        Ok(()) => bail!("{what} is not refused"),
        Err(e) if e.exception_code() == ExceptionCode::SECURITY => Ok(()),
        Err(e) => bail!("{what}: {e}"),
    }
}

pub fn another_user_sees_nothing() -> Result<()> {
    let services = services()?;
    let before = Before::take(services.as_ref().context("no services")?)?;
    let _table = Table::new()?;
    let (mut vm_run, cid) = or_log(VmRun::ready(&[&payload("idle", true)?], "idle: "))?;
    let (status, list) = vm_as("list", NOBODY)?;
    ensure!(status.success() && list == "Running VMs: []\n", "{list}");
    let (status, text) = vm_as(&format!("stop {cid}"), NOBODY)?;
    ensure!(!status.success() && text.contains("another user's"), "{text}");
    let (status, text) = vm_as("stats", NOBODY)?;
    ensure!(!status.success() && text.contains("unknown (no permission)"), "{text}");
    or_log(attempt_as(NOBODY))?;
    ensure!(vm_run.runs()?, "it has ended");
    vm(&format!("stop {cid}"))?;
    vm_run.ends("Killed")?;
    before.is_back(services.as_ref().context("no services")?)
}

pub fn who_has_no_permission_is_refused() -> Result<()> {
    let services = services()?;
    let before = Before::take(services.as_ref().context("no services")?)?;
    let _table = Table::new()?;
    let vm = VmRun::start(&[&payload("hello", false)?], NOBODY)?;
    let (text, status) = vm.wait()?;
    let part =
        format!("Error: user {NOBODY} does not have android.permission.MANAGE_VIRTUAL_MACHINE");
    ensure!(status.code() == Some(1) && text.contains(&part), "{status}: {text}");
    before.is_back(services.as_ref().context("no services")?)
}

/// With what the service gives: an id, a directory, and memory that may be locked.
pub fn a_user_has_own_vms() -> Result<()> {
    let services = services()?;
    let before = Before::take(services.as_ref().context("no services")?)?;
    let _table = Table::new()?;
    let _devices = [Open::new("/dev/gzvm")?, Open::new("/dev/vhost-vsock")?];
    let payload = payload("idle", true)?;
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, LOCKED, LOCKED)?;
    let started = VmRun::start(&[&payload, "--name", "users"], USER);
    setrlimit(Resource::RLIMIT_MEMLOCK, limit.0, limit.1)?;
    let mut users = started?;
    let cid = or_log(users.until_ready("idle: "))?;
    let (roots, other) = VmRun::ready(&[&payload, "--name", "roots"], "idle: ")?;

    let (_, list) = vm_as("list", USER)?;
    ensure!(listed(&list, cid).is_some() && listed(&list, other).is_none(), "{list}");
    let list = vm("list")?;
    let info = listed(&list, cid).with_context(|| list.clone())?;
    ensure!(info.contains(&format!("requesterUid: {USER},")), "{info}");
    ensure!(listed(&list, other).is_some(), "{list}");
    ensure!(fs::metadata(format!("/run/gzvm/{cid}"))?.uid() == USER);
    // What the driver counts is root's; what the own service knows is not.
    let (status, text) = vm_as("stats", USER)?;
    ensure!(status.success() && text.contains("VM users") && text.contains("resident"), "{text}");
    ensure!(!text.contains("VM roots") && !text.contains("pinned"), "{text}");
    let (status, text) = vm_as(&format!("stop {cid}"), USER)?;
    ensure!(status.success(), "{text}");
    users.ends("Killed")?;
    let gone = || Ok(!Path::new(&format!("/run/gzvm/{cid}")).exists());
    settles("the end of the user's directory", gone)?;
    vm(&format!("stop {other}"))?;
    roots.ends("Killed")?;
    before.is_back(services.as_ref().context("no services")?)
}
