// SPDX-License-Identifier: GPL-2.0

//! VM files: what user space does with a VM.

use crate::{
    abi::{
        cap,
        uapi, //
    },
    debug::VmFiles,
    device::Gzvm,
    hyp::{
        self,
        OnePage, //
    },
    ioeventfd::Ioeventfds,
    irqfd::Irqfds,
    kx::anon_inode::{
        self,
        AnonFile, //
    },
    machine::Machine,
    model::{
        caps::{
            self,
            Enable, //
        },
        device,
        irq, //
    },
    uio,
    vcpu, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// A VM, as user space holds it. Fields are dropped in order: interrupt sources fall silent and
/// debugfs is closed before the VM goes.
#[pin_data]
pub(crate) struct Vm {
    #[pin]
    pub(crate) irqfds: Irqfds,
    #[pin]
    pub(crate) ioeventfds: Ioeventfds,
    #[pin]
    pub(crate) files: VmFiles,
    pub(crate) machine: Arc<Machine>,
}

/// CREATE_VM: returns the file descriptor.
pub(crate) fn create(gzvm: &Arc<Gzvm>, vm_type: usize) -> Result<isize> {
    let machine = Machine::new(gzvm, vm_type as u64)?;
    let vm = Arc::pin_init(
        try_pin_init!(Vm {
            irqfds <- Irqfds::new(),
            ioeventfds <- Ioeventfds::new(),
            files <- VmFiles::new(&machine)?,
            machine: machine.clone(),
        }? Error),
        GFP_KERNEL_ACCOUNT,
    )?;
    anon_inode::install(c"gzvm-vm", vm)
}

impl AnonFile for Vm {
    type OwnerModule = crate::LocalModule;

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        let machine = &this.machine;
        machine.check_owner()?;
        match cmd {
            uapi::CHECK_EXTENSION => {
                let follows = machine.memory.pages.follows_owner();
                return machine.gzvm().check_extension(arg, follows);
            }
            uapi::CREATE_VCPU => return vcpu::create(this.into(), arg),
            uapi::SET_USER_MEMORY_REGION => machine.memory.set_region(&uio::read(arg)?)?,
            uapi::IRQ_LINE => this.irq_line(&uio::read(arg)?)?,
            uapi::IRQFD => this.irqfds.set(machine, &uio::read(arg)?)?,
            uapi::IOEVENTFD => this.ioeventfds.set(&uio::read(arg)?)?,
            uapi::ENABLE_CAP => this.enable_cap(arg)?,
            uapi::GET_RANGE_STATE => {
                let state = machine.memory.range_state(&uio::read(arg)?)?;
                uio::write(arg, &state)?;
            }
            uapi::CREATE_DEVICE => this.create_device(&uio::read(arg)?)?,
            uapi::SET_DTB_CONFIG => {
                let config: uapi::DtbConfig = uio::read(arg)?;
                hyp::set_dtb_config(machine.id(), config.dtb_addr, config.dtb_size)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

impl Vm {
    fn irq_line(&self, argument: &uapi::IrqLevel) -> Result {
        let limits = &self.machine.gzvm().limits;
        let request = irq::decode(argument.irq, limits.vcpus, limits.spis)?;
        let kinds = self.machine.has_levels();
        self.machine.inject(&irq::Call::new(&request, argument.level != 0, kinds)?)
    }

    fn enable_cap(&self, arg: usize) -> Result {
        let mut request: uapi::EnableCap = uio::read(arg)?;
        match caps::enable(&request, &self.machine.gzvm().limits)? {
            Enable::Nothing => Ok(()),
            Enable::Protect { firmware: Some(gpa) } => {
                self.machine.memory.protect(cap::PVM_SET_PVMFW_GPA, gpa)
            }
            Enable::Protect { firmware: None } => {
                self.machine.memory.protect(cap::PVM_SET_PROTECTED_VM, 0)
            }
            Enable::FirmwareSize => {
                let id = self.machine.id();
                request.args[1] = hyp::protected_vm(id, cap::PVM_GET_PVMFW_SIZE, 0)?;
                uio::write(arg, &request)
            }
        }
    }

    fn create_device(&self, argument: &uapi::CreateDevice) -> Result {
        let attributes = match device::check(argument)? {
            Some(size) => {
                let page = OnePage::new()?;
                let mut bytes = KVec::from_elem(0u8, size, GFP_KERNEL)?;
                uio::read_bytes(uio::address(argument.attr_addr)?, &mut bytes)?;
                page.write_bytes(0, &bytes)?;
                Some(page)
            }
            None => None,
        };
        let description = OnePage::new()?;
        let phys = attributes.as_ref().map(|page| page.phys());
        description.write::<_, 0>(&device::for_hypervisor(argument, phys));
        Ok(hyp::create_device(self.machine.id(), &description)?)
    }
}
