// SPDX-License-Identifier: Apache-2.0
//! What a guest did that the hardware stopped, and what follows from it.
//!
//! | file | subject |
//! | --- | --- |
//! | `mod.rs` | dispatch, waiting, system registers |
//! | `access.rs` | loads, stores and fetches without memory |
//! | `calls.rs` | hypercalls: SMCCC, TRNG, GenieZone's own |
//! | `power.rs` | PSCI |

mod access;
mod calls;
mod power;

use crate::esr::{self, sysreg, Esr, SysregAccess};
use crate::hw::Hardware;
use crate::hyp::{Exit, Hypervisor, Running};
use crate::idregs::{self, Reader};
use crate::inject::Exception;
use crate::timer::{idle_delay, Timer};
use crate::vgic::{Wake, PHYSICAL_TIMER, VIRTUAL_TIMER};

/// A synchronous exception of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// ESR_EL2.
    pub esr: Esr,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2.
    pub hpfar: u64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The guest goes on.
    Resume,
    /// The guest goes on with an exception of its own.
    Inject(Exception),
    /// The host is told.
    Exit(Exit),
}

const ICC_SGI1R: u32 = sysreg(3, 0, 12, 11, 5);
const ICC_ASGI1R: u32 = sysreg(3, 0, 12, 11, 6);
const ICC_SGI0R: u32 = sysreg(3, 0, 12, 11, 7);
const ICC_DIR: u32 = sysreg(3, 0, 12, 11, 1);
const CNTP_TVAL: u32 = sysreg(3, 3, 14, 2, 0);
const CNTP_CTL: u32 = sysreg(3, 3, 14, 2, 1);
const CNTP_CVAL: u32 = sysreg(3, 3, 14, 2, 2);
const ACTLR: u32 = sysreg(3, 0, 1, 0, 1);

impl<H: Hardware> Hypervisor<'_, H> {
    /// Decides about a synchronous exception of a running vCPU.
    pub fn guest_trap(&self, running: &mut Running<'_>, trap: Trap) -> Next {
        match trap.esr.class() {
            esr::EC_WFX => self.wait(running, trap.esr),
            esr::EC_HVC => self.guest_call(running),
            esr::EC_SMC => {
                // Guests call by HVC; there is no firmware for them.
                running.vcpu.regs.pc += 4;
                running.vcpu.regs.x[0] = NOT_SUPPORTED;
                Next::Resume
            }
            esr::EC_SYSREG => self.sysreg(running, trap.esr.sysreg()),
            esr::EC_DABT_LOW | esr::EC_IABT_LOW => self.abort(running, trap),
            _ => Next::Inject(Exception::Undefined),
        }
    }

    /// WFI: goes on if an interrupt waits, else the host may run something else.
    fn wait(&self, running: &mut Running<'_>, esr: Esr) -> Next {
        running.vcpu.regs.pc += 4;
        let wfe = esr.0 & 1 != 0;
        if wfe || self.has_pending(running) {
            return Next::Resume;
        }
        Next::Exit(Exit::Idle(self.idle_ticks(running)))
    }

    /// Brings the timers' lines up to date and looks for interrupts that wait.
    pub fn has_pending(&self, running: &Running<'_>) -> bool {
        let (virtual_line, physical_line) = self.timer_lines(running);
        let mut shared = running.vm.shared.lock();
        shared.gic.set_line(running.index, VIRTUAL_TIMER, virtual_line);
        shared.gic.set_line(running.index, PHYSICAL_TIMER, physical_line);
        shared.gic.has_pending(running.index)
    }

    /// Whether the lines of the virtual and the physical timer are high. The vCPU's timers are in
    /// its context, not in the hardware.
    pub fn timer_lines(&self, running: &Running<'_>) -> (bool, bool) {
        let now = self.hw.counter();
        let virtual_now = now.wrapping_sub(running.counter_offset);
        (running.vcpu.virtual_timer.line(virtual_now), running.vcpu.physical_timer.line(now))
    }

    /// Ticks until a timer of the vCPU needs it again.
    pub fn idle_ticks(&self, running: &Running<'_>) -> u64 {
        let now = self.hw.counter();
        let virtual_now = now.wrapping_sub(running.counter_offset);
        let delays =
            [running.vcpu.virtual_timer.delay(virtual_now), running.vcpu.physical_timer.delay(now)];
        idle_delay(delays, self.hw.frequency())
    }

    fn sysreg(&self, running: &mut Running<'_>, access: SysregAccess) -> Next {
        running.vcpu.regs.pc += 4;
        if access.read && access.is_id_group_3() {
            let raw = self.hw.id_register(access.crm_op2());
            let value = idregs::visible(Reader::Guest, access.crm_op2(), raw);
            access.answer(&mut running.vcpu.regs.x, value);
            return Next::Resume;
        }
        match access.id {
            ICC_SGI1R | ICC_ASGI1R | ICC_SGI0R if !access.read => {
                let value = access.value(&running.vcpu.regs.x);
                return self.send_sgi(running, value);
            }
            ICC_DIR if !access.read => {
                // CAST: the id field is 24 bits wide.
                let intid = access.value(&running.vcpu.regs.x) as u32 & 0xff_ffff;
                let mut shared = running.vm.shared.lock();
                let wake = shared.gic.deactivate(running.index, intid);
                self.kick(wake);
                drop(shared);
                return self.wake_asleep(wake);
            }
            CNTP_TVAL | CNTP_CTL | CNTP_CVAL => self.physical_timer(running, access),
            // Cache maintenance by set and way: caches are coherent for guests.
            _ if access.op0() == 1 && !access.read => (),
            // Debug registers read as zero and ignore writes, as does the auxiliary control.
            ACTLR => access.answer_zero(&mut running.vcpu.regs.x),
            _ if access.op0() == 2 => access.answer_zero(&mut running.vcpu.regs.x),
            _ => {
                running.vcpu.regs.pc -= 4;
                return Next::Inject(Exception::Undefined);
            }
        }
        Next::Resume
    }

    fn send_sgi(&self, running: &mut Running<'_>, register: u64) -> Next {
        let mut shared = running.vm.shared.lock();
        let wake = shared.gic.send_sgi(running.index, register);
        self.kick(wake);
        drop(shared);
        self.wake_asleep(wake)
    }

    /// Tells the host to run vCPUs that something waits for.
    pub(crate) fn wake_asleep(&self, wake: Wake) -> Next {
        match wake.asleep {
            0 => Next::Resume,
            asleep => Next::Exit(Exit::Ipi(self.told(asleep))),
        }
    }

    /// The physical timer's registers, kept in the context.
    fn physical_timer(&self, running: &mut Running<'_>, access: SysregAccess) {
        let now = self.hw.counter();
        let timer: &mut Timer = &mut running.vcpu.physical_timer;
        if access.read {
            let value = match access.id {
                CNTP_TVAL => timer.read_value(now),
                CNTP_CTL => timer.read_control(now),
                _ => timer.compare,
            };
            access.answer(&mut running.vcpu.regs.x, value);
            return;
        }
        let value = access.value(&running.vcpu.regs.x);
        let timer = &mut running.vcpu.physical_timer;
        match access.id {
            CNTP_TVAL => timer.write_value(value, now),
            CNTP_CTL => timer.write_control(value),
            _ => timer.compare = value,
        }
    }
}

/// SMCCC's "not supported", as a register.
const NOT_SUPPORTED: u64 = gzvm_abi::guest::NOT_SUPPORTED as u64;
