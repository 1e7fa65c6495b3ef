// SPDX-License-Identifier: Apache-2.0
//! `IVirtualizationService`: the object that this process offers its client.

use crate::argv::Request;
use crate::backend::DEVICE_TREE;
use crate::context::{LocalContexts, VmContext};
use crate::control::Control;
use crate::errors::{failed, security, unsupported};
use crate::files::Files;
use crate::global::Global;
use crate::instance::{Prepared, VmInstance};
use crate::machine::VirtualMachine;
use crate::policy::DebugPolicy;
use crate::ramdump::Ramdump;
use crate::raw::{check, request, Streams};
use crate::{idsig, image, launch, pump};
use anyhow::{Context, Result};
use avf_aidl::aidl::virtualizationservice::{
    AssignableDevice::AssignableDevice,
    CpuOptions::CpuTopology::CpuTopology,
    IVirtualMachine::{BnVirtualMachine, IVirtualMachine},
    IVirtualizationService::IVirtualizationService,
    PartitionType::PartitionType,
    VirtualMachineConfig::VirtualMachineConfig,
    VirtualMachineDebugInfo::VirtualMachineDebugInfo,
    VirtualMachineRawConfig::VirtualMachineRawConfig as RawConfig,
};
use avf_aidl::aidl::virtualizationservice_internal::AtomVmCreationRequested::AtomVmCreationRequested;
use binder::{Interface, ParcelFileDescriptor, Strong};
use gzvm_host::permissions::{Permission, Permissions};
use gzvm_host::props::Props;
use nix::fcntl::OFlag;
use rustix::rand::{getrandom, GetRandomFlags};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// `AtomVmCreationRequested.configType` of raw configurations.
const RAW_CONFIG: i32 = 2;

/// How many ids in a row may be those of VMs that the service does not know of.
const ASIDE: usize = 16;

/// Where context ids and directories come from.
#[derive(Debug)]
pub enum Contexts {
    /// The global service.
    Global(Global),
    /// This process.
    Local(LocalContexts),
}

/// What all objects of this process share.
#[derive(Debug)]
pub struct Shared {
    /// Properties.
    pub props: Props,
    /// The user whose VMs these are.
    pub uid: u32,
    /// The client's process, for listings.
    pub client: i32,
    permissions: Permissions,
    contexts: Contexts,
    vms: Mutex<Vec<Weak<VmInstance>>>,
    memory_policy: Mutex<Option<String>>,
}

impl Shared {
    /// Without VMs.
    pub fn new(
        props: Props,
        permissions: Permissions,
        uid: u32,
        client: i32,
        contexts: Contexts,
    ) -> Self {
        let memory_policy = Mutex::new(props.memory_policy());
        Self { props, uid, client, permissions, contexts, vms: Mutex::default(), memory_policy }
    }

    fn global(&self) -> Option<&Global> {
        match &self.contexts {
            Contexts::Global(global) => Some(global),
            Contexts::Local(_) => None,
        }
    }

    fn admit(&self, permission: Permission) -> binder::Result<()> {
        match self.permissions.allow(self.uid, permission) {
            true => Ok(()),
            false => {
                Err(security(format!("user {} does not have {}", self.uid, permission.name())))
            }
        }
    }

    fn allocate(&self) -> binder::Result<VmContext> {
        match &self.contexts {
            Contexts::Global(global) => self.allocate_globally(global),
            Contexts::Local(contexts) => contexts.allocate().map_err(|e| failed(&e)),
        }
    }

    /// The service does not know of VMs that were started while there was no service: of ids that it
    /// gives, those VMs' are kept aside.
    fn allocate_globally(&self, global: &Global) -> binder::Result<VmContext> {
        let mut aside = Vec::new();
        loop {
            let context = global.ask(|s| s.allocateGlobalVmContext(self.client))?;
            let context = VmContext::global(context).map_err(|e| failed(&e))?;
            // The VMM notices an id that is taken; nobody need try for ever.
            if context.is_alone() || aside.len() == ASIDE {
                return Ok(context);
            }
            aside.push(context);
        }
    }

    fn all(&self) -> Vec<Arc<VmInstance>> {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.retain(|vm| vm.strong_count() != 0);
        vms.iter().filter_map(Weak::upgrade).collect()
    }

    /// VMs that run.
    pub fn running(&self) -> Vec<Arc<VmInstance>> {
        self.all().into_iter().filter(|vm| vm.pid().is_ok()).collect()
    }

    /// Ends all VMs, and leaves nothing of them: calls that are still under way in other threads may
    /// refer to this until the process ends.
    pub fn end(&self) {
        for vm in self.running() {
            vm.end();
        }
        if let Contexts::Local(contexts) = &self.contexts {
            contexts.remove();
        }
    }

    /// When the host provides the memory of VMs that are created from now on.
    pub fn memory_policy(&self) -> Option<String> {
        self.memory_policy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets that.
    pub fn set_memory_policy(&self, policy: Option<String>) {
        *self.memory_policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }
}

/// The client's descriptors in `createVm`.
#[derive(Clone, Copy, Default)]
pub struct Given<'a> {
    console_out: Option<&'a ParcelFileDescriptor>,
    console_in: Option<&'a ParcelFileDescriptor>,
    log: Option<&'a ParcelFileDescriptor>,
    dump_device_tree: Option<&'a ParcelFileDescriptor>,
}

/// The object.
pub struct VirtualizationService(pub Arc<Shared>);

impl Interface for VirtualizationService {}

impl VirtualizationService {
    fn create(&self, config: &RawConfig, given: Given<'_>) -> binder::Result<Arc<VmInstance>> {
        let shared = &self.0;
        shared.admit(Permission::Manage)?;
        shared.admit(Permission::UseCustom)?;
        check(config, &shared.props)?;
        let context = shared.allocate()?;
        let (prepared, control) = self.prepare(config, given, &context)?;
        let vm = VmInstance::new(prepared, context, control, shared.global().cloned());
        let vm = Arc::new(vm);
        let mut vms = shared.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.push(Arc::downgrade(&vm));
        Ok(vm)
    }

    fn prepare(
        &self,
        config: &RawConfig,
        given: Given<'_>,
        context: &VmContext,
    ) -> binder::Result<(Prepared, Control)> {
        let shared = &self.0;
        let mut files = Files::default();
        let (mut streams, failure, control) =
            self.streams(given, context, &mut files).map_err(|e| failed(&e))?;
        let policy = DebugPolicy::load(&shared.props);
        let ramdump =
            policy.ramdump().then(|| Ramdump::create(context.dir(), shared.props.ramdump_dir()));
        let ramdump = ramdump.transpose().map_err(|e| failed(&e))?.map(|(ramdump, end)| {
            streams.ramdump = Some(files.keep(end));
            ramdump
        });
        let request = request(config, &shared.props, context.cid(), streams, &mut files)?;
        let memory_policy = shared.memory_policy();
        let request = Request { memory_policy, kernel_log: policy.log(), ..request };
        let program = launch::program(&shared.props);
        Ok((Prepared { program, request, files, failure, ramdump }, control))
    }

    /// What the VM's ports are connected to; also this process's end of the failure port.
    fn streams(
        &self,
        given: Given<'_>,
        context: &VmContext,
        files: &mut Files,
    ) -> Result<(Streams, OwnedFd, Control)> {
        let (failure, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)
            .context("cannot make a pipe for the failure port")?;
        let (control, listener) = Control::create(context.dir())?;
        let mut output = |given: Option<&ParcelFileDescriptor>, name| match given {
            Some(fd) => files.copy(fd),
            None => Ok(files.keep(pump::to_log(format!("{name}({})", context.cid()))?)),
        };
        let console_out = Some(output(given.console_out, "Console")?);
        let log = Some(output(given.log, "Log")?);
        let dump_device_tree = match given.dump_device_tree {
            Some(fd) => Some(files.copy(fd)?),
            None if self.0.props.dump_device_tree() => {
                let path = context.dir().join(DEVICE_TREE);
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                Some(files.keep(file.with_context(|| path.display().to_string())?.into()))
            }
            None => None,
        };
        let streams = Streams {
            console_out,
            console_in: given.console_in.map(|fd| files.copy(fd)).transpose()?,
            log,
            failure: files.keep(theirs),
            ramdump: None,
            dump_device_tree,
            socket: Some(files.keep(listener)),
        };
        Ok((streams, failure, control))
    }

    fn report(&self, config: &RawConfig, created: &binder::Result<Arc<VmInstance>>) {
        let Some(global) = self.0.global() else { return };
        let atom = AtomVmCreationRequested {
            uid: global.uid(),
            vmIdentifier: config.name.clone(),
            isProtected: config.protectedVm,
            creationSucceeded: created.is_ok(),
            // CAST: exceptions are numbers of this size.
            binderExceptionCode: created.as_ref().err().map_or(0, |e| e.exception_code() as i32),
            configType: RAW_CONFIG,
            numCpus: match config.cpuOptions.cpuTopology {
                CpuTopology::CpuCount(count) => count,
                // AVF's sign for it.
                CpuTopology::MatchHost(_) => -1,
            },
            memoryMib: config.memoryMib,
            apexes: String::new(),
        };
        global.report(|service| service.atomVmCreationRequested(&atom));
    }
}

impl IVirtualizationService for VirtualizationService {
    fn createVm(
        &self,
        config: &VirtualMachineConfig,
        console_out: Option<&ParcelFileDescriptor>,
        console_in: Option<&ParcelFileDescriptor>,
        log: Option<&ParcelFileDescriptor>,
        dump_device_tree: Option<&ParcelFileDescriptor>,
    ) -> binder::Result<Strong<dyn IVirtualMachine>> {
        let VirtualMachineConfig::RawConfig(config) = config else {
            return Err(unsupported(
                "VMs of apps need Android's own service: describe the VM file by file",
            ));
        };
        let given = Given { console_out, console_in, log, dump_device_tree };
        let created = self.create(config, given);
        if let Err(status) = &created {
            log::info!("createVm: {status}");
        }
        self.report(config, &created);
        Ok(BnVirtualMachine::new_binder(VirtualMachine(created?)))
    }

    fn allocateInstanceId(&self) -> binder::Result<[u8; 64]> {
        self.0.admit(Permission::Manage)?;
        match self.0.global() {
            Some(global) => global.ask(|service| service.allocateInstanceId()),
            None => random_id().map_err(|e| failed(&e)),
        }
    }

    fn initializeWritablePartition(
        &self,
        image: &ParcelFileDescriptor,
        size: i64,
        kind: PartitionType,
    ) -> binder::Result<()> {
        self.0.admit(Permission::Manage)?;
        image::initialize(image, size, kind)
    }

    fn createOrUpdateIdsigFile(
        &self,
        input: &ParcelFileDescriptor,
        idsig: &ParcelFileDescriptor,
    ) -> binder::Result<()> {
        self.0.admit(Permission::Manage)?;
        idsig::write(input, idsig).map_err(|e| failed(&e))
    }

    fn debugListVms(&self) -> binder::Result<Vec<VirtualMachineDebugInfo>> {
        if let Some(global) = self.0.global() {
            return global.ask(|service| service.debugListVms());
        }
        let info = |vm: Arc<VmInstance>| VirtualMachineDebugInfo {
            cid: i32::try_from(vm.context().cid()).unwrap_or(i32::MAX),
            temporaryDirectory: vm.context().dir().display().to_string(),
            requesterUid: i32::try_from(self.0.uid).unwrap_or(i32::MAX),
            requesterPid: self.0.client,
            hostConsoleName: None,
        };
        Ok(self.0.all().into_iter().map(info).collect())
    }

    fn getAssignableDevices(&self) -> binder::Result<Vec<AssignableDevice>> {
        Ok(Vec::new())
    }

    fn getSupportedOSList(&self) -> binder::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn getDebugPolicy(&self) -> binder::Result<String> {
        Ok(format!("{:?}", DebugPolicy::load(&self.0.props)))
    }

    fn isFeatureEnabled(&self, _feature: &str) -> binder::Result<bool> {
        // All of them are about VMs of apps, or devices.
        Ok(false)
    }

    fn enableTestAttestation(&self) -> binder::Result<()> {
        Err(unsupported("there is no remote attestation"))
    }

    fn isRemoteAttestationSupported(&self) -> binder::Result<bool> {
        Ok(false)
    }

    fn isUpdatableVmSupported(&self) -> binder::Result<bool> {
        Ok(false)
    }

    fn removeVmInstance(&self, instance_id: &[u8; 64]) -> binder::Result<()> {
        match self.0.global() {
            Some(global) => global.ask(|service| service.removeVmInstance(instance_id)),
            None => Ok(()),
        }
    }

    fn claimVmInstance(&self, instance_id: &[u8; 64]) -> binder::Result<()> {
        match self.0.global() {
            Some(global) => global.ask(|service| service.claimVmInstance(instance_id)),
            None => Ok(()),
        }
    }
}

/// A new identity of a VM.
///
/// # Errors
///
/// When the kernel has no random numbers.
pub fn random_id() -> Result<[u8; 64]> {
    let mut id = [0; 64];
    getrandom(&mut id, GetRandomFlags::empty()).context("no random numbers")?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use binder::{ExceptionCode, Exceptions};

    /// The service of a user that is not root.
    fn service(table: &str) -> (tempfile::TempDir, VirtualizationService) {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::Local(LocalContexts::below(dir.path()).unwrap());
        let permissions = Permissions::parse(table).unwrap();
        let shared = Shared::new(Props::default(), permissions, 1000, 1, contexts);
        (dir, VirtualizationService(Arc::new(shared)))
    }

    fn create(service: &VirtualizationService) -> binder::Result<()> {
        let kernel = Some(ParcelFileDescriptor::new(tempfile::tempfile().unwrap()));
        let config = RawConfig { kernel, platformVersion: "~1.0".into(), ..Default::default() };
        let config = VirtualMachineConfig::RawConfig(config);
        service.createVm(&config, None, None, None, None).map(drop)
    }

    #[test]
    fn who_may_not_have_vms_is_refused() {
        for (table, missing) in
            [("1 manage custom", "MANAGE"), ("* custom", "MANAGE"), ("1000 manage", "USE_CUSTOM")]
        {
            let (_dir, service) = service(table);
            let status = create(&service).unwrap_err();
            assert_eq!(status.exception_code(), ExceptionCode::SECURITY);
            let words = format!("user 1000 does not have android.permission.{missing}_VIRTUAL");
            assert!(status.message().is_some_and(|text| text.contains(&words)), "{status}");
            // Who may have VMs may have what they need.
            let file = ParcelFileDescriptor::new(tempfile::tempfile().unwrap());
            let made = service.initializeWritablePartition(&file, 1, PartitionType::RAW);
            let answers = [made.is_ok(), service.allocateInstanceId().is_ok()];
            assert_eq!(answers, [missing != "MANAGE"; 2]);
        }
        let (_dir, service) = service("1000 custom manage");
        create(&service).unwrap();
    }
}
