// SPDX-License-Identifier: Apache-2.0
//! Creation and destruction of VMs and vCPUs.

use super::{status_of, Hypervisor, Status};
use crate::hostcall::{Answer, Call};
use crate::hw::Hardware;
use crate::memory::Progress;
use crate::vm::{Phase, Power, State, Vcpu, Vm};
use core::sync::atomic::Ordering;
use gzvm_abi::hvc;

/// Ids are 1 to this.
const LAST_ID: u16 = 0xfffe;
/// Pages of a vCPU's buffer.
const VCPU_PAGES: u64 = 2;
/// Pages that one call destroys at most, whatever the host asks for.
const DESTROY_LIMIT: u64 = 56;

impl<H: Hardware> Hypervisor<'_, H> {
    pub(super) fn create_vm(&self, call: &Call) -> Result<Answer, Status> {
        if call.x(1) != 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        // Held throughout, so that no two VMs get one slot or id.
        let mut last = self.last_id.lock();
        let free = |vm: &Vm| vm.id.load(Ordering::Acquire) == 0;
        let slot = self.vms.iter().position(free).ok_or(hvc::ERR_NO_MEMORY)?;
        let vm = self.vms.get(slot).ok_or(hvc::ERR_NO_MEMORY)?;
        let id = self.next_id(*last);
        let mut state = vm.state.lock();
        self.memory.lock().create(&self.hw, slot).map_err(status_of)?;
        state.reset();
        state.phase = Phase::Live;
        state.counter_offset = self.hw.counter();
        vm.guarded.store(false, Ordering::Relaxed);
        vm.stopping.store(false, Ordering::Relaxed);
        vm.id.store(id, Ordering::Release);
        *last = id;
        Ok(Answer::ok(u64::from(id), 0, 0))
    }

    /// The id after `last` that no VM has, the dying included.
    fn next_id(&self, last: u16) -> u16 {
        let mut id = last;
        loop {
            id = if id >= LAST_ID { 1 } else { id + 1 };
            if self.vms.iter().all(|vm| vm.id.load(Ordering::Acquire) != id) {
                return id;
            }
        }
    }

    pub(super) fn create_vcpu(&self, call: &Call) -> Result<Answer, Status> {
        let ids = call.ids();
        let (_, vm, mut state) = self.live(Some(ids.vm))?;
        let vcpu = vm.vcpus.get(ids.vcpu).ok_or(hvc::ERR_INVALID_ARGS)?;
        // A vCPU's lock comes before the state's; it is only tried here.
        let mut vcpu = vcpu.try_lock().ok_or(hvc::ERR_BUSY)?;
        if vcpu.pages != 0 || call.x(2) == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        // A second first vCPU would start where the host wants, in the middle of a running guest.
        if ids.vcpu == 0 && state.protected && state.booted {
            return Err(hvc::ERR_NOT_SUPPORTED);
        }
        self.memory.lock().pin(call.x(2), VCPU_PAGES).map_err(status_of)?;
        vcpu.pages = call.x(2);
        vcpu.reset();
        state.vcpus |= 1 << ids.vcpu;
        let mut shared = vm.shared.lock();
        shared.gic.add_vcpu(ids.vcpu);
        if let Some(power) = shared.power.get_mut(ids.vcpu) {
            *power = if ids.vcpu == 0 { Power::On } else { Power::Off };
        }
        Ok(Answer::ok(0, 0, 0))
    }

    pub(super) fn destroy_vcpu(&self, call: &Call) -> Result<Answer, Status> {
        let ids = call.ids();
        let (_, vm, mut state) = self.live(Some(ids.vm))?;
        let vcpu = vm.vcpus.get(ids.vcpu).ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut vcpu = vcpu.try_lock().ok_or(hvc::ERR_BUSY)?;
        if vcpu.pages == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        self.end_vcpu(vm, &mut state, &mut vcpu, ids.vcpu);
        Ok(Answer::ok(0, 0, 0))
    }

    fn end_vcpu(&self, vm: &Vm, state: &mut State, vcpu: &mut Vcpu, index: usize) {
        self.memory.lock().unpin(vcpu.pages, VCPU_PAGES);
        *vcpu = Vcpu::ABSENT;
        state.vcpus &= !(1 << index);
        if let Some(power) = vm.shared.lock().power.get_mut(index) {
            *power = Power::Off;
        }
    }

    /// Returns a part of the VM's memory, and in the end the VM.
    pub(super) fn destroy_vm(&self, call: &Call) -> Result<Answer, Status> {
        let id = call.vm().ok_or(hvc::ERR_INVALID_ARGS)?;
        let (slot, vm, mut state) =
            self.find(id, &[Phase::Live, Phase::Protecting, Phase::Destroying])?;
        if state.phase != Phase::Destroying {
            state.phase = Phase::Destroying;
            vm.stopping.store(true, Ordering::Release);
            self.memory.lock().begin_teardown(&self.hw, slot);
        }
        if !self.end_vcpus(vm, &mut state) {
            return Err(hvc::ERR_BUSY);
        }
        if state.mailbox != 0 {
            self.memory.lock().unpin(state.mailbox, 1);
            state.mailbox = 0;
        }
        let asked = if call.x(2) == 0 { hvc::DEFAULT_DESTROY_BATCH_PAGES } else { call.x(2) };
        let budget = u32::try_from(asked.min(DESTROY_LIMIT)).unwrap_or(1);
        let progress = self.memory.lock().teardown(&self.hw, slot, budget).map_err(status_of)?;
        if progress == Progress::More {
            return Err(hvc::ERR_BUSY);
        }
        let mut shared = vm.shared.lock();
        shared.gic.reset();
        shared.power.fill(Power::Off);
        drop(shared);
        state.reset();
        vm.id.store(0, Ordering::Release);
        Ok(Answer::ok(0, 0, 0))
    }

    /// Ends all vCPUs that do not run; makes the others stop, and says whether there were none.
    fn end_vcpus(&self, vm: &Vm, state: &mut State) -> bool {
        for (index, vcpu) in vm.vcpus.iter().enumerate() {
            if state.vcpus & (1 << index) == 0 {
                continue;
            }
            match vcpu.try_lock() {
                Some(mut vcpu) => self.end_vcpu(vm, state, &mut vcpu, index),
                None => {
                    // While the lock is held, as for every kick.
                    let shared = vm.shared.lock();
                    self.kick(shared.gic.reach_vcpu(index));
                }
            }
        }
        state.vcpus == 0
    }
}
