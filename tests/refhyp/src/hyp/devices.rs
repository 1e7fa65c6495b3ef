// SPDX-License-Identifier: Apache-2.0
//! Interrupt lines, devices and registers of a VM.

use super::{status_of, Hypervisor, Status};
use crate::context::{pstate_allowed, SYS_ELR, SYS_SPSR, SYS_SP_EL0, SYS_SP_EL1};
use crate::hostcall::{Answer, Call};
use crate::hw::{Hardware, PAGE_SIZE};
use crate::stage2::IPA_END;
use crate::vgic::{Level, Line, Wake, SPIS};
use crate::vm::{Vcpu, MAX_VCPUS};
use core::sync::atomic::Ordering;
use gzvm_abi::uapi::{self, CreateDevice};
use gzvm_abi::{ext, hvc, reg};
use zerocopy::{FromZeros, IntoBytes};

/// Alignment of the interrupt controller's frames.
const FRAME: u64 = 0x1_0000;

impl<H: Hardware> Hypervisor<'_, H> {
    /// A pulse on a shared interrupt, or with the extension the level of an interrupt's line. A low
    /// level of a pulse does nothing.
    pub(super) fn irq_line(&self, call: &Call) -> Result<Answer, Status> {
        let ids = call.ids();
        let (_, vm, state) = self.live(Some(ids.vm))?;
        let number = u32::try_from(call.x(2)).map_err(|_| hvc::ERR_INVALID_ARGS)?;
        let kind = if self.offers(ext::IRQ_KIND) { call.x(4) } else { ext::IRQ_KIND_PULSE };
        let high = call.x(3) != 0;
        let level = Level { high, report_end: kind & ext::IRQ_KIND_REPORT_END != 0 };
        let mut shared = vm.shared.lock();
        let wake = match kind & !ext::IRQ_KIND_REPORT_END {
            ext::IRQ_KIND_PULSE if level.report_end => None,
            ext::IRQ_KIND_PULSE if high => shared.gic.pulse(number),
            // CAST: a small constant.
            ext::IRQ_KIND_PULSE => (number < SPIS as u32).then(Wake::default),
            ext::IRQ_KIND_SPI_LEVEL => shared.gic.set_level(Line::Shared(number), level),
            ext::IRQ_KIND_PPI_LEVEL if state.vcpus & (1 << (ids.vcpu % MAX_VCPUS)) != 0 => {
                shared.gic.set_level(Line::Private(ids.vcpu, number), level)
            }
            _ => None,
        };
        let wake = wake.ok_or(hvc::ERR_INVALID_ARGS)?;
        // While the lock is held: a vCPU that stops meanwhile takes the kick back.
        self.kick(wake);
        Ok(Answer::ok(self.told(wake.targets), 0, 0))
    }

    /// Places the registers of the interrupt controller.
    pub(super) fn create_device(&self, call: &Call) -> Result<Answer, Status> {
        let (_, vm, state) = self.live(call.vm())?;
        let mut device = CreateDevice::new_zeroed();
        self.memory
            .lock()
            .read_host(&self.hw, call.x(2), device.as_mut_bytes())
            .map_err(status_of)?;
        let base = device.dev_addr;
        let size = match device.dev_type {
            uapi::DEV_TYPE_VGIC_V3_DIST => uapi::VGIC_DIST_SIZE,
            // One vCPU's frames: how many there will be is not known yet.
            uapi::DEV_TYPE_VGIC_V3_REDIST => uapi::VGIC_REDIST_SIZE,
            _ => return Err(hvc::ERR_NOT_SUPPORTED),
        };
        if base == 0 || base % FRAME != 0 || base > IPA_END - size || state.ran {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        if state.regions.overlaps(base / PAGE_SIZE, size / PAGE_SIZE) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let mut shared = vm.shared.lock();
        let placed = match device.dev_type {
            uapi::DEV_TYPE_VGIC_V3_DIST => shared.gic.place_distributor(base),
            _ => shared.gic.place_redistributors(base),
        };
        placed.then_some(Answer::ok(0, 0, 0)).ok_or(hvc::ERR_INVALID_ARGS)
    }

    /// Sets a register of a vCPU that does not run; those of a protected VM only before its start.
    pub(super) fn set_one_reg(&self, call: &Call) -> Result<Answer, Status> {
        let ids = call.ids();
        let (_, vm, state) = self.live(Some(ids.vm))?;
        let (id, value) = (call.x(2), call.x(3));
        if state.protected && state.ran {
            return Err(hvc::ERR_NOT_SUPPORTED);
        }
        // The first vCPU starts in the firmware; the others where the guest says.
        if state.firmware.is_some() && id == reg::PC {
            return Err(hvc::ERR_NOT_SUPPORTED);
        }
        if self.options.strict && ids.vcpu != 0 && id != reg::PSTATE {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let vcpu = vm.vcpus.get(ids.vcpu).ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut vcpu = vcpu.try_lock().ok_or(hvc::ERR_BUSY)?;
        if vcpu.pages == 0 || (id == reg::PSTATE && !pstate_allowed(value)) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        *register(&mut vcpu, id).ok_or(hvc::ERR_INVALID_ARGS)? = value;
        Ok(Answer::ok(0, 0, 0))
    }

    /// Reads a register of a vCPU that does not run, of an unprotected VM; an extension.
    pub(super) fn get_one_reg(&self, call: &Call) -> Result<Answer, Status> {
        let ids = call.ids();
        let (_, vm, state) = self.live(Some(ids.vm))?;
        if self.options.strict || state.protected {
            return Err(hvc::ERR_NOT_SUPPORTED);
        }
        let vcpu = vm.vcpus.get(ids.vcpu).ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut vcpu = vcpu.try_lock().ok_or(hvc::ERR_BUSY)?;
        if vcpu.pages == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let value = *register(&mut vcpu, call.x(2)).ok_or(hvc::ERR_INVALID_ARGS)?;
        Ok(Answer::ok(value, 0, 0))
    }

    /// Whether a VM is to stop running.
    pub fn stopping(&self, slot: usize) -> bool {
        self.vms.get(slot).is_none_or(|vm| vm.stopping.load(Ordering::Acquire))
    }
}

/// The place of a core register.
fn register(vcpu: &mut Vcpu, id: u64) -> Option<&mut u64> {
    match id {
        reg::PC => Some(&mut vcpu.regs.pc),
        reg::PSTATE => Some(&mut vcpu.regs.pstate),
        reg::SP_EL0 => vcpu.sys.get_mut(SYS_SP_EL0),
        reg::SP_EL1 => vcpu.sys.get_mut(SYS_SP_EL1),
        reg::ELR_EL1 => vcpu.sys.get_mut(SYS_ELR),
        reg::SPSR_EL1 => vcpu.sys.get_mut(SYS_SPSR),
        _ => {
            // Registers are two index steps of four bytes apart.
            let offset = id.checked_sub(reg::x(0)).filter(|offset| offset % 2 == 0)?;
            vcpu.regs.x.get_mut(usize::try_from(offset / 2).ok()?)
        }
    }
}
