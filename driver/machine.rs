// SPDX-License-Identifier: GPL-2.0

//! A VM as the hypervisor and its interrupt sources see it. What user space holds is in `vm`.

use crate::{
    abi::ext,
    device::Gzvm,
    hyp,
    kx::gup::PinOwner,
    memory::Memory,
    model::{
        ids::VmId,
        irq,
        refusal::{
            Errno,
            Refusal, //
        }, //
    },
    pages::Given,
    registry::HypVm,
    stats::Stats,
    wake::Waker, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// What others than its own thread see of a vCPU; there whether it exists or not.
pub(crate) struct VcpuPlace {
    /// Where it sleeps.
    pub(crate) waker: Arc<Waker>,
    /// What it did.
    pub(crate) stats: Stats,
}

/// A VM.
#[pin_data]
pub(crate) struct Machine {
    /// Its memory, and the hypervisor's VM.
    #[pin]
    pub(crate) memory: Memory,
    /// One for each vCPU that there may be.
    places: KVec<VcpuPlace>,
    /// Is an eventfd to be signalled at the next exit of any vCPU?
    pub(crate) resample_due: Atomic<bool>,
    gzvm: Arc<Gzvm>,
}

impl Machine {
    /// Creates a VM, owned by the current process.
    pub(crate) fn new(gzvm: &Arc<Gzvm>, vm_type: u64) -> Result<Arc<Self>> {
        let owner = PinOwner::current()?;
        let vcpus = usize::from(gzvm.limits.vcpus);
        let mut places = KVec::with_capacity(vcpus, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..vcpus {
            let place = VcpuPlace { waker: Waker::new()?, stats: Stats::default() };
            places.push(place, GFP_KERNEL_ACCOUNT)?;
        }
        let vm = HypVm::new(gzvm, vm_type)?;
        if gzvm.version.layout_known() {
            // Without idle exits a waiting vCPU occupies its CPU, but works.
            let _ = hyp::enable_idle(vm.id());
        }
        Arc::pin_init(
            try_pin_init!(Self {
                memory <- Memory::new(vm, owner)?,
                places,
                resample_due: Atomic::new(false),
                gzvm: gzvm.clone(),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// The hypervisor.
    pub(crate) fn gzvm(&self) -> &Gzvm {
        &self.gzvm
    }

    /// The VM in the hypervisor.
    pub(crate) fn vm(&self) -> &HypVm {
        &self.memory.pages.given.vm
    }

    /// The VM with what it was given.
    pub(crate) fn given(&self) -> &Given {
        &self.memory.pages.given
    }

    /// The VM's id.
    pub(crate) fn id(&self) -> VmId {
        self.memory.pages.given.vm.id()
    }

    /// All places for vCPUs.
    pub(crate) fn places(&self) -> &[VcpuPlace] {
        &self.places
    }

    /// Is the caller the VM's owner? Nobody else's memory could be meant by an address.
    pub(crate) fn check_owner(&self) -> Result {
        if self.memory.pages.owner.is_current() {
            Ok(())
        } else {
            let why = "a VM's files can be used by the process that created it only";
            Err(Refusal::new(Errno::Io, why).into())
        }
    }

    /// Can the hypervisor be told levels, and does it report ends?
    pub(crate) fn has_levels(&self) -> bool {
        self.gzvm.features.has(ext::IRQ_KIND)
    }

    /// Sets an interrupt's line, and wakes who may have to take it. Works in any context.
    pub(crate) fn inject(&self, line: &irq::Call) -> Result {
        let targets = hyp::irq_line(self.id(), line)?;
        if line.high {
            self.wake(targets);
        }
        Ok(())
    }

    /// Wakes the vCPUs of a mask that came from the hypervisor; all that sleep where the hypervisor
    /// gives none. To be called after what they are to see.
    pub(crate) fn wake(&self, targets: u64) {
        let known = self.gzvm.features.has(ext::WAKE_MASK);
        for (index, place) in self.places.iter().enumerate() {
            if !known || targets.checked_shr(index as u32).unwrap_or(0) & 1 != 0 {
                place.waker.kick();
            }
        }
    }

    /// Asks for the resample eventfds to be looked at.
    pub(crate) fn want_resample(&self) {
        self.resample_due.store(true, Relaxed);
    }

    /// Are the resample eventfds to be looked at? Asks once.
    pub(crate) fn take_resample(&self) -> bool {
        self.resample_due.load(Relaxed) && self.resample_due.xchg(false, Full)
    }
}
