// SPDX-License-Identifier: Apache-2.0
//! Accesses of a guest that its stage 2 stopped.

use super::{Next, Trap};
use crate::esr::{fault_ipa, Access, EC_DABT_LOW};
use crate::hw::{Hardware, PAGE_SIZE};
use crate::hyp::{Exit, Hypervisor, Running};
use crate::inject::Exception;
use crate::stage2::{Leaf, GUARD_MAPPED, IPA_END};
use crate::vm::Pending;
use core::sync::atomic::Ordering;
use gzvm_abi::run::Mmio;

impl<H: Hardware> Hypervisor<'_, H> {
    pub(super) fn abort(&self, running: &mut Running<'_>, trap: Trap) -> Next {
        let esr = trap.esr;
        if esr.external_abort() {
            return Next::Exit(Exit::Internal([esr.0, trap.far, trap.hpfar]));
        }
        // A table walk's address has no page offset that FAR_EL2 would know of.
        let far = if esr.table_walk() { 0 } else { trap.far };
        let ipa = fault_ipa(trap.hpfar, far);
        let access = esr.access();
        if let Some(access) = access {
            if running.vm.shared.lock().gic.covers(ipa) {
                return self.gic_access(running, ipa, access);
            }
        }
        let leaf = self.memory.lock().lookup(&self.hw, running.slot, ipa);
        if let Ok(Leaf::Mapped(_)) = leaf {
            // Mapped meanwhile, by another vCPU's fault.
            return Next::Resume;
        }
        if ipa < IPA_END && running.vm.state.lock().region(ipa / PAGE_SIZE).is_some() {
            return Next::Exit(Exit::Fault(ipa & !(PAGE_SIZE - 1)));
        }
        let allowed = matches!(leaf, Ok(Leaf::Absent(bits)) if bits & GUARD_MAPPED != 0);
        if running.vm.guarded.load(Ordering::Relaxed) && !allowed {
            return Next::Inject(if esr.class() == EC_DABT_LOW {
                Exception::DataAbort(trap.far)
            } else {
                Exception::FetchAbort(trap.far)
            });
        }
        match access {
            Some(access) => Next::Exit(mmio(running, ipa, access)),
            None if esr.class() == EC_DABT_LOW && esr.cache_maintenance() => {
                running.vcpu.regs.pc += 4;
                Next::Resume
            }
            // Not describable as an access: the host learns the address, and cannot help.
            None => Next::Exit(Exit::Fault(ipa)),
        }
    }

    fn gic_access(&self, running: &mut Running<'_>, ipa: u64, access: Access) -> Next {
        let mut shared = running.vm.shared.lock();
        running.vcpu.regs.pc += 4;
        if !access.write {
            let value = shared.gic.load(ipa, access.size());
            access.load(&mut running.vcpu.regs.x, value);
            return Next::Resume;
        }
        let value = access.stored(&running.vcpu.regs.x);
        let mut wake = shared.gic.store(ipa, access.size(), value);
        // The vCPU itself is about to be entered with fresh list registers anyway.
        wake.asleep &= !(1 << running.index);
        self.kick(wake);
        drop(shared);
        self.wake_asleep(wake)
    }
}

/// An access for the host. The instruction is over; a load's register follows at the next RUN.
fn mmio(running: &mut Running<'_>, ipa: u64, access: Access) -> Exit {
    running.vcpu.regs.pc += 4;
    let mut mmio = Mmio {
        phys_addr: ipa,
        size: access.size(),
        reg_nr: u32::from(access.register),
        is_write: u8::from(access.write),
        ..Mmio::default()
    };
    if access.write {
        mmio.data = access.stored(&running.vcpu.regs.x).to_le_bytes();
    } else {
        running.vcpu.pending = Pending::Load(access);
    }
    Exit::Mmio(mmio)
}
