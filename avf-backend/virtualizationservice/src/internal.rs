// SPDX-License-Identifier: Apache-2.0
//! `IVirtualizationServiceInternal`, as far as raw VMs need it.

use crate::vms::{Entry, Vms};
use avf_aidl::aidl::virtualizationcommon::Certificate::Certificate;
use avf_aidl::aidl::virtualizationservice::{
    AssignableDevice::AssignableDevice, VirtualMachineDebugInfo::VirtualMachineDebugInfo,
};
use avf_aidl::aidl::virtualizationservice_internal::{
    AtomVmBooted::AtomVmBooted,
    AtomVmCreationRequested::AtomVmCreationRequested,
    AtomVmExited::AtomVmExited,
    IBoundDevice::IBoundDevice,
    IGlobalVmContext::{BnGlobalVmContext, IGlobalVmContext},
    IVirtualizationServiceInternal::IVirtualizationServiceInternal,
};
use binder::{
    ExceptionCode, Exceptions, Interface, ParcelFileDescriptor, SpIBinder, Status, Strong,
    ThreadState,
};
use gzvm_host::permissions::{Permission, Permissions};
use rustix::process::{prlimit, Pid, Resource, Rlimit};
use rustix::rand::{getrandom, GetRandomFlags};
use std::sync::Arc;

/// AVF's error number for everything without a better one.
const ERROR_UNEXPECTED: i32 = -1;
const ROOT: u32 = 0;

/// The object.
pub struct Service(Arc<Vms>);

impl Interface for Service {}

impl Service {
    /// With no clients yet.
    pub fn new(vms: Arc<Vms>) -> Self {
        Self(vms)
    }
}

fn failed(what: impl std::fmt::Display) -> Status {
    Status::new_service_specific_error(ERROR_UNEXPECTED, Some(what.to_string()))
}

fn unsupported<T>(what: &str) -> binder::Result<T> {
    Err((ExceptionCode::UNSUPPORTED_OPERATION, what).into())
}

/// Whether the caller may have VMs. The table is read each time: it may have changed.
fn check_manage() -> binder::Result<u32> {
    let uid = ThreadState::get_calling_uid();
    let table = Permissions::load().map_err(|e| failed(format!("{e:#}")))?;
    match table.allow(uid, Permission::Manage) {
        true => Ok(uid),
        false => {
            let text = format!("user {uid} does not have {}", Permission::Manage.name());
            Err((ExceptionCode::SECURITY, text.as_str()).into())
        }
    }
}

impl IVirtualizationServiceInternal for Service {
    fn removeMemlockRlimit(&self) -> binder::Result<()> {
        check_manage()?;
        let pid = Pid::from_raw(ThreadState::get_calling_pid());
        let pid = pid.ok_or_else(|| failed("the caller is in another world"))?;
        let none = Rlimit { current: None, maximum: None };
        prlimit(Some(pid), Resource::Memlock, none)
            .map_err(|e| failed(format!("cannot lift the limit of locked memory: {e}")))?;
        Ok(())
    }

    fn allocateGlobalVmContext(
        &self,
        requester_debug_pid: i32,
    ) -> binder::Result<Strong<dyn IGlobalVmContext>> {
        let uid = check_manage()?;
        let entry = self.0.allocate(uid, requester_debug_pid);
        let entry = entry.map_err(|e| failed(format!("{e:#}")))?;
        log::info!("VM {}: user {uid}, client {requester_debug_pid}", entry.cid);
        Ok(BnGlobalVmContext::new_binder(VmContext(entry)))
    }

    fn atomVmBooted(&self, atom: &AtomVmBooted) -> binder::Result<()> {
        log::info!("{atom:?}");
        Ok(())
    }

    fn atomVmCreationRequested(&self, atom: &AtomVmCreationRequested) -> binder::Result<()> {
        log::info!("{atom:?}");
        Ok(())
    }

    fn atomVmExited(&self, atom: &AtomVmExited) -> binder::Result<()> {
        log::info!("{atom:?}");
        Ok(())
    }

    fn debugListVms(&self) -> binder::Result<Vec<VirtualMachineDebugInfo>> {
        // Whose VMs run is nobody else's business.
        let uid = ThreadState::get_calling_uid();
        Ok(self.0.list(Some(uid).filter(|&uid| uid != ROOT)))
    }

    fn requestAttestation(
        &self,
        _csr: &[u8],
        _requester_uid: i32,
        _test_mode: bool,
    ) -> binder::Result<Vec<Certificate>> {
        unsupported("there is no remote attestation")
    }

    fn enableTestAttestation(&self) -> binder::Result<()> {
        unsupported("there is no remote attestation")
    }

    fn isRemoteAttestationSupported(&self) -> binder::Result<bool> {
        Ok(false)
    }

    fn getAssignableDevices(&self) -> binder::Result<Vec<AssignableDevice>> {
        Ok(Vec::new())
    }

    fn bindDevicesToVfioDriver(
        &self,
        _devices: &[String],
    ) -> binder::Result<Vec<Strong<dyn IBoundDevice>>> {
        unsupported("GenieZone assigns no devices to guests")
    }

    fn getDtboFile(&self) -> binder::Result<ParcelFileDescriptor> {
        unsupported("GenieZone assigns no devices to guests")
    }

    fn allocateInstanceId(&self) -> binder::Result<[u8; 64]> {
        check_manage()?;
        let mut id = [0; 64];
        getrandom(&mut id, GetRandomFlags::empty())
            .map_err(|e| failed(format!("no random numbers: {e}")))?;
        Ok(id)
    }

    fn removeVmInstance(&self, _instance_id: &[u8; 64]) -> binder::Result<()> {
        // No secrets are kept for an identity: there is nothing to forget.
        Ok(())
    }

    fn claimVmInstance(&self, _instance_id: &[u8; 64]) -> binder::Result<()> {
        Ok(())
    }

    fn setDisplayService(&self, _service: &SpIBinder) -> binder::Result<()> {
        unsupported("VMs have no display")
    }

    fn clearDisplayService(&self) -> binder::Result<()> {
        unsupported("VMs have no display")
    }

    fn waitDisplayService(&self) -> binder::Result<SpIBinder> {
        unsupported("VMs have no display")
    }

    fn createTapInterface(&self, _suffix: &str) -> binder::Result<ParcelFileDescriptor> {
        unsupported("VMs have no network")
    }

    fn deleteTapInterface(&self, _tap: &ParcelFileDescriptor) -> binder::Result<()> {
        unsupported("VMs have no network")
    }
}

/// A VM's id and directory, for as long as its virtmgr refers to this.
struct VmContext(Entry);

impl Interface for VmContext {}

impl IGlobalVmContext for VmContext {
    fn getCid(&self) -> binder::Result<i32> {
        i32::try_from(self.0.cid).map_err(failed)
    }

    fn getTemporaryDirectory(&self) -> binder::Result<String> {
        Ok(self.0.dir.display().to_string())
    }

    fn setHostConsoleName(&self, pathname: &str) -> binder::Result<()> {
        self.0.set_console(pathname);
        Ok(())
    }
}
