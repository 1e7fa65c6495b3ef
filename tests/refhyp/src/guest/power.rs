// SPDX-License-Identifier: Apache-2.0
//! PSCI calls of guests.

use super::Next;
use crate::hw::Hardware;
use crate::hyp::{Exit, Hypervisor, Running};
use crate::psci::{self, error, offered};
use crate::stage2::IPA_END;
use crate::timer::idle_delay;
use crate::vm::{vcpu_of_mpidr, Power, MAX_VCPUS};
use arm_psci::{AffinityInfo, ErrorCode, FunctionId, MigrateInfoType};
use gzvm_abi::run;

impl<H: Hardware> Hypervisor<'_, H> {
    /// Answers the PSCI call in the vCPU's registers.
    pub(super) fn psci(&self, running: &mut Running<'_>, function: u32) -> Next {
        let [_, x1, x2, x3, ..] = running.vcpu.regs.x;
        let wide = function & (1 << 30) != 0;
        let argument = |x: u64| if wide { x } else { x & 0xffff_ffff };
        let id = match FunctionId::try_from(function) {
            Ok(id) if offered(id) => id,
            _ => return answer(running, error(ErrorCode::NotSupported)),
        };
        match id {
            FunctionId::PsciVersion => answer(running, psci::VERSION),
            FunctionId::PsciFeatures => answer(running, psci::features(x1)),
            FunctionId::MigrateInfoType => {
                // CAST: a small number.
                answer(running, MigrateInfoType::MigrationNotRequired as u64)
            }
            FunctionId::CpuOn32 | FunctionId::CpuOn64 => {
                self.cpu_on(running, argument(x1), argument(x2), argument(x3))
            }
            FunctionId::AffinityInfo32 | FunctionId::AffinityInfo64 => {
                let info = affinity_info(running, argument(x1), argument(x2));
                answer(running, info)
            }
            FunctionId::CpuOff => self.cpu_off(running),
            // A power state that loses nothing: a wait for an interrupt.
            FunctionId::CpuSuspend32 | FunctionId::CpuSuspend64 => {
                running.vcpu.regs.x[0] = 0;
                if self.has_pending(running) {
                    return Next::Resume;
                }
                Next::Exit(Exit::Idle(self.idle_ticks(running)))
            }
            FunctionId::SystemOff => self.end_all(running, run::SYSTEM_EVENT_SHUTDOWN),
            FunctionId::SystemReset232 | FunctionId::SystemReset264 if !is_reset_type(x1) => {
                answer(running, error(ErrorCode::InvalidParameters))
            }
            _ => self.end_all(running, run::SYSTEM_EVENT_RESET),
        }
    }

    /// The machine ends: these calls do not return, so no vCPU runs on, whatever the host does.
    fn end_all(&self, running: &Running<'_>, event: u32) -> Next {
        let mut shared = running.vm.shared.lock();
        shared.power.fill(Power::Off);
        for vcpu in (0..MAX_VCPUS).filter(|vcpu| *vcpu != running.index) {
            self.kick(shared.gic.reach_vcpu(vcpu));
        }
        Next::Exit(Exit::System(event))
    }

    fn cpu_on(&self, running: &mut Running<'_>, mpidr: u64, entry: u64, context: u64) -> Next {
        let Some(target) = vcpu_of_mpidr(mpidr) else {
            return answer(running, error(ErrorCode::InvalidParameters));
        };
        if !entry.is_multiple_of(4) || entry >= IPA_END {
            return answer(running, error(ErrorCode::InvalidAddress));
        }
        // Existence first: the state's lock comes before the shared part's.
        if running.vm.state.lock().vcpus & (1 << target) == 0 {
            return answer(running, error(ErrorCode::InvalidParameters));
        }
        let mut shared = running.vm.shared.lock();
        let Some(power) = shared.power.get_mut(target) else {
            return answer(running, error(ErrorCode::InvalidParameters));
        };
        let code = match *power {
            Power::Off => {
                *power = Power::Starting { entry, context };
                0
            }
            Power::Starting { .. } => error(ErrorCode::OnPending),
            Power::On => error(ErrorCode::AlreadyOn),
        };
        drop(shared);
        running.vcpu.regs.x[0] = code;
        if code == 0 {
            // It runs nowhere: the host has to wake its thread.
            return Next::Exit(Exit::Ipi(self.told(1 << target)));
        }
        Next::Resume
    }

    fn cpu_off(&self, running: &mut Running<'_>) -> Next {
        if let Some(power) = running.vm.shared.lock().power.get_mut(running.index) {
            *power = Power::Off;
        }
        Next::Exit(Exit::Idle(idle_delay([None, None], self.hw.frequency())))
    }
}

/// Whether SYSTEM_RESET2 knows a type: a warm reset, or one of the vendor's.
fn is_reset_type(x1: u64) -> bool {
    // CAST: the type is 32 bits wide.
    matches!(x1 as u32, 0 | 0x8000_0000..)
}

fn affinity_info(running: &Running<'_>, mpidr: u64, level: u64) -> u64 {
    let Some(target) = vcpu_of_mpidr(mpidr).filter(|_| level == 0) else {
        return error(ErrorCode::InvalidParameters);
    };
    if running.vm.state.lock().vcpus & (1 << target) == 0 {
        return error(ErrorCode::InvalidParameters);
    }
    let info = match running.vm.shared.lock().power.get(target) {
        Some(Power::On) => AffinityInfo::On,
        Some(Power::Starting { .. }) => AffinityInfo::OnPending,
        _ => AffinityInfo::Off,
    };
    // CAST: a small number.
    info as u64
}

/// Puts a result into x0.
pub(super) fn answer(running: &mut Running<'_>, value: u64) -> Next {
    running.vcpu.regs.x[0] = value;
    Next::Resume
}
