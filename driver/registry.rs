// SPDX-License-Identifier: GPL-2.0

//! The VMs that exist in the hypervisor, and their end: by a drop, or because the machine goes
//! down.
//!
//! Another kernel must find all memory its own, so VMs do not outlive this one, even with their
//! files open: no vCPU enters the guest any more, those inside come out, and the VMs are destroyed.

#[cfg(CONFIG_PM_SLEEP)]
use crate::kx::notifier::{
    Sleep,
    SleepKind, //
};
use crate::{
    device::Gzvm,
    hyp,
    kx::{
        notifier::{
            Notified,
            Reboot, //
        },
        sched, //
    },
    model::{
        destroy::{
            Destruction,
            Step, //
        },
        ids::{
            VcpuId,
            VmId, //
        },
        refusal::{
            Errno,
            Refusal, //
        }, //
    }, //
};
use core::ops::Deref;
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Release, //
        },
        Arc,
        Mutex,
        SpinLock,
        UniqueArc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often to look whether vCPUs have left the guest, a millisecond each time. Any interrupt, the
/// scheduler's tick at the latest, brings them out.
const PATIENCE: u32 = 2000;

const GOES_DOWN: Refusal = Refusal::new(Errno::ShutDown, "no VM runs: the machine goes down");

/// A VM in the hypervisor, as long as somebody knows it. Its end is the drop of [`HypVm`].
#[pin_data]
pub(crate) struct Vm {
    id: VmId,
    gzvm: Arc<Gzvm>,
    /// May vCPUs no longer enter the guest?
    closed: Atomic<bool>,
    /// Number of vCPUs in the guest.
    inside: Atomic<i32>,
    /// Pages that were mapped so far.
    mapped: Atomic<u64>,
    /// What became of the VM; held while it is being destroyed.
    #[pin]
    end: Mutex<End>,
    /// Bit mask of the vCPUs that exist.
    #[pin]
    vcpus: SpinLock<u64>,
}

/// What became of a VM.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It exists.
    Alive,
    /// It was destroyed: what it had is the host's again.
    Gone,
    /// The hypervisor refused to destroy it: what it has must never be used again.
    Kept,
}

/// A vCPU's stay in the guest.
pub(crate) struct Stay<'a>(&'a Vm);

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Full);
    }
}

impl Vm {
    /// Its id.
    pub(crate) fn id(&self) -> VmId {
        self.id
    }

    /// The hypervisor.
    pub(crate) fn gzvm(&self) -> &Gzvm {
        &self.gzvm
    }

    /// Lets a vCPU into the guest; -ESHUTDOWN if the machine goes down.
    pub(crate) fn enter(&self) -> Result<Stay<'_>> {
        // Counted before the look at `closed`, which is set before the look at the count: one of
        // the two sees the other.
        self.inside.fetch_add(1, Full);
        let stay = Stay(self);
        if self.closed.load(Acquire) {
            return Err(GOES_DOWN.into());
        }
        Ok(stay)
    }

    /// Is the VM gone, so that nothing more can be asked about it?
    pub(crate) fn is_gone(&self) -> bool {
        *self.end.lock() == End::Gone
    }

    /// Counts pages that were mapped.
    pub(crate) fn count_mapped(&self, pages: u64) {
        self.mapped.fetch_add(pages, Full);
    }

    /// Takes a vCPU's number; -EEXIST if it is taken.
    pub(crate) fn take_vcpu(&self, id: VcpuId) -> Result {
        let mut vcpus = self.vcpus.lock();
        let bit = Self::bit(id);
        if *vcpus & bit != 0 {
            let why = "a vCPU of this index exists";
            return Err(Refusal::new(Errno::Exist, why).into());
        }
        *vcpus |= bit;
        Ok(())
    }

    /// Gives a vCPU's number back.
    pub(crate) fn give_back_vcpu(&self, id: VcpuId) {
        *self.vcpus.lock() &= !Self::bit(id);
    }

    fn bit(id: VcpuId) -> u64 {
        u32::try_from(id.index()).ok().and_then(|index| 1u64.checked_shl(index)).unwrap_or(0)
    }

    /// Destroys the VM in slices, unless that was done before. `false` if the hypervisor did not do
    /// it: then memory that it was given must never be used again.
    pub(crate) fn destroy(&self) -> bool {
        let mut end = self.end.lock();
        if *end == End::Alive {
            *end = self.destroy_now();
        }
        *end == End::Gone
    }

    fn destroy_now(&self) -> End {
        let batch = self.gzvm.destroy_pages();
        let mut destruction = Destruction::new(self.mapped.load(Acquire), batch);
        loop {
            match destruction.after(hyp::destroy_vm(self.id, batch)) {
                Step::Again => sched::cond_resched(),
                Step::Done => return End::Gone,
                Step::Failed(status) => {
                    pr_err!("VM {}: destruction failed with {status}\n", self.id.arg());
                    return End::Kept;
                }
            }
        }
    }

    /// Ends the VM although its files are open.
    fn shut_down(&self) {
        self.closed.store(true, Release);
        for _ in 0..PATIENCE {
            if self.inside.fetch_add(0, Full) == 0 {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        let vcpus = *self.vcpus.lock();
        let max_vcpus = self.gzvm.limits.vcpus;
        for id in (0..u64::from(max_vcpus)).filter_map(|id| VcpuId::new(id, max_vcpus).ok()) {
            if vcpus & Self::bit(id) != 0 {
                // What is left of it goes with the VM.
                let _ = hyp::destroy_vcpu(self.id, id);
            }
        }
        self.destroy();
    }
}

/// The owner of a VM in the hypervisor: it is destroyed at the drop at the latest.
pub(crate) struct HypVm(Arc<Vm>);

impl HypVm {
    /// Creates a VM. An id that the ABI cannot carry is an error, and that VM cannot be destroyed.
    pub(crate) fn new(gzvm: &Arc<Gzvm>, vm_type: u64) -> Result<Self> {
        // Room first: once the hypervisor has a VM, nothing may fail.
        let room = UniqueArc::<Vm>::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let mut state = gzvm.registry.state.lock();
        if state.going_down {
            return Err(GOES_DOWN.into());
        }
        state.vms.reserve(1, GFP_KERNEL)?;
        let id = VmId::from_answer(hyp::create_vm(vm_type)?)?;
        let vm: Arc<Vm> = match room.pin_init_with(pin_init!(Vm {
            id,
            gzvm: gzvm.clone(),
            closed: Atomic::new(false),
            inside: Atomic::new(0),
            mapped: Atomic::new(0),
            end <- new_mutex!(End::Alive, "gzvm_vm_end"),
            vcpus <- new_spinlock!(0, "gzvm_vcpus"),
        })) {
            Ok(vm) => vm.into(),
            Err(error) => match error {},
        };
        let owner = Self(vm.clone());
        // There is room, so this cannot fail.
        let _ = state.vms.push_within_capacity(vm);
        drop(state);
        Ok(owner)
    }
}

impl Deref for HypVm {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        &self.0
    }
}

impl Drop for HypVm {
    fn drop(&mut self) {
        self.destroy();
        self.gzvm.registry.state.lock().vms.retain(|vm| !Arc::ptr_eq(vm, &self.0));
    }
}

struct State {
    vms: KVec<Arc<Vm>>,
    going_down: bool,
}

/// All VMs of a hypervisor.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    state: Mutex<State>,
}

impl Registry {
    /// None yet.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let state = State { vms: KVec::new(), going_down: false };
        Arc::pin_init(pin_init!(Self { state <- new_mutex!(state, "gzvm_registry") }), GFP_KERNEL)
    }
}

impl Notified<Reboot> for Arc<Registry> {
    fn notified(&self, (): ()) -> Result {
        let vms = {
            let mut state = self.state.lock();
            state.going_down = true;
            core::mem::replace(&mut state.vms, KVec::new())
        };
        if !vms.is_empty() {
            pr_info!("the machine goes down: destroying {} VM(s)\n", vms.len());
        }
        for vm in &vms {
            vm.shut_down();
        }
        Ok(())
    }
}

#[cfg(CONFIG_PM_SLEEP)]
impl Notified<Sleep> for Arc<Registry> {
    fn notified(&self, kind: SleepKind) -> Result {
        // Suspended memory keeps its owner. An image on disk cannot have what the hypervisor owns.
        if kind == SleepKind::Hibernation && !self.state.lock().vms.is_empty() {
            pr_warn!("no hibernation while there are VMs: end them first\n");
            return Err(EBUSY);
        }
        Ok(())
    }
}
