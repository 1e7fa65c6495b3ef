// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's state, and the host's calls on it.
//!
//! | file | calls |
//! | --- | --- |
//! | `mod.rs` | dispatch, PROBE, INFORM_EXIT, GET_STATISTICS |
//! | `caps.rs` | ENABLE_CAP |
//! | `life.rs` | creation and destruction of VMs and vCPUs |
//! | `slots.rs` | memory regions and mapping |
//! | `ranges.rs` | extensions: what is mapped, unmapping, removing regions |
//! | `devices.rs` | interrupts, devices, registers |
//! | `faults.rs` | the fault plan of test builds |
//! | `run.rs` | what comes before and after a vCPU runs |

mod caps;
mod devices;
mod faults;
mod life;
mod ranges;
mod run;
mod slots;
#[cfg(test)]
mod tests;

pub use run::{Begin, Exit, Running};

use crate::cmdline::Options;
use crate::firmware::Firmware;
use crate::hostcall::{index, Answer, Call};
use crate::hw::Hardware;
use crate::lock::{Mutex, MutexGuard};
use crate::memory::{Error, Memory};
use crate::page::Refusal;
use crate::plan::Plan;
use crate::trng::Generator;
use crate::vgic::Wake;
use crate::vm::{Phase, State, Vm};
use core::sync::atomic::Ordering;
use gzvm_abi::{ext, hvc};

/// The minor and the sub version that PROBE answers.
const VERSION: (u64, u64) = (0, 0);

/// The hypervisor.
#[derive(Debug)]
pub struct Hypervisor<'a, H> {
    /// The machine.
    pub hw: H,
    /// Ownership and translation tables.
    pub memory: Mutex<Memory<'a>>,
    /// Slots for VMs.
    pub vms: &'a [Vm],
    /// What the command line asked for.
    pub options: Options,
    /// Random numbers for guests.
    pub generator: Mutex<Generator>,
    /// What protected VMs can be started with.
    firmware: Option<Firmware>,
    /// The VM id given last.
    last_id: Mutex<u16>,
    /// Calls that are to fail (test builds).
    plan: Mutex<Plan>,
}

/// Why a call failed, as its status.
pub type Status = i32;

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self::status(status_of(error))
    }
}

/// The status that stands for a failed memory operation.
fn status_of(error: Error) -> Status {
    match error {
        Error::NoMemory => hvc::ERR_NO_MEMORY,
        Error::Page(Refusal::TooMany) => hvc::ERR_NO_MEMORY,
        Error::Page(_) => hvc::ERR_FAULT,
        Error::Address => hvc::ERR_INVALID_ARGS,
    }
}

impl<'a, H: Hardware> Hypervisor<'a, H> {
    /// The hypervisor over a machine whose memory it has taken.
    pub fn new(
        hw: H,
        memory: Memory<'a>,
        vms: &'a [Vm],
        options: Options,
        generator: Generator,
    ) -> Self {
        Self {
            hw,
            memory: Mutex::new(memory),
            vms,
            options,
            generator: Mutex::new(generator),
            firmware: None,
            last_id: Mutex::new(0),
            plan: Mutex::new(Plan::new(options.faults)),
        }
    }

    /// The same with firmware for protected VMs.
    pub fn with_firmware(self, firmware: Option<Firmware>) -> Self {
        Self { firmware, ..self }
    }

    /// Extensions that are offered.
    pub fn extensions(&self) -> u64 {
        if self.options.strict {
            return 0;
        }
        let test = if cfg!(feature = "test-hooks") { ext::TEST } else { 0 };
        ext::WAKE_MASK
            | ext::UNMAP
            | ext::IRQ_KIND
            | ext::GET_REG
            | ext::LIMITS
            | ext::RANGE_STATE
            | test
    }

    /// Whether an extension is offered.
    pub(crate) fn offers(&self, extension: u64) -> bool {
        self.extensions() & extension != 0
    }

    /// What the host is told of the vCPUs to wake: their mask, or nothing without WAKE_MASK.
    pub(crate) fn told(&self, targets: u32) -> u64 {
        if self.offers(ext::WAKE_MASK) {
            u64::from(targets)
        } else {
            0
        }
    }

    /// The slot and state of a VM in one of the phases `allowed`.
    fn find(
        &self,
        id: u16,
        allowed: &[Phase],
    ) -> Result<(usize, &'a Vm, MutexGuard<'a, State>), Status> {
        let matches = |vm: &&Vm| id != 0 && vm.id.load(Ordering::Acquire) == id;
        let slot = self.vms.iter().position(|vm| matches(&vm)).ok_or(hvc::ERR_INVALID_ARGS)?;
        let vm = self.vms.get(slot).ok_or(hvc::ERR_INVALID_ARGS)?;
        let state = vm.state.lock();
        // It may have ended while the lock was waited for.
        if vm.id.load(Ordering::Acquire) == id && allowed.contains(&state.phase) {
            Ok((slot, vm, state))
        } else {
            Err(hvc::ERR_INVALID_ARGS)
        }
    }

    fn live(&self, id: Option<u16>) -> Result<(usize, &'a Vm, MutexGuard<'a, State>), Status> {
        self.find(id.ok_or(hvc::ERR_INVALID_ARGS)?, &[Phase::Live])
    }

    /// Makes the physical CPUs leave their guests that an event concerns.
    pub(crate) fn kick(&self, wake: Wake) {
        for cpu in (0..32).filter(|cpu| wake.kicks & (1 << cpu) != 0) {
            self.hw.kick(cpu);
        }
    }

    /// Answers a call of the host.
    pub fn host_call(&self, call: &Call) -> Answer {
        if cfg!(feature = "test-hooks") {
            self.planned_call(call)
        } else {
            self.true_call(call)
        }
    }

    fn true_call(&self, call: &Call) -> Answer {
        const CREATE_VM: u32 = index(hvc::CREATE_VM);
        const DESTROY_VM: u32 = index(hvc::DESTROY_VM);
        const CREATE_VCPU: u32 = index(hvc::CREATE_VCPU);
        const DESTROY_VCPU: u32 = index(hvc::DESTROY_VCPU);
        const SET_MEMREGION: u32 = index(hvc::SET_MEMREGION);
        const RUN: u32 = index(hvc::RUN);
        const GET_ONE_REG: u32 = index(hvc::GET_ONE_REG);
        const SET_ONE_REG: u32 = index(hvc::SET_ONE_REG);
        const IRQ_LINE: u32 = index(hvc::IRQ_LINE);
        const CREATE_DEVICE: u32 = index(hvc::CREATE_DEVICE);
        const PROBE: u32 = index(hvc::PROBE);
        const ENABLE_CAP: u32 = index(hvc::ENABLE_CAP);
        const INFORM_EXIT: u32 = index(hvc::INFORM_EXIT);
        const MEMREGION_PURPOSE: u32 = index(hvc::MEMREGION_PURPOSE);
        const SET_DTB_CONFIG: u32 = index(hvc::SET_DTB_CONFIG);
        const MAP_GUEST: u32 = index(hvc::MAP_GUEST);
        const MAP_GUEST_BLOCK: u32 = index(hvc::MAP_GUEST_BLOCK);
        const GET_STATISTICS: u32 = index(hvc::GET_STATISTICS);

        let answer = match call.index {
            CREATE_VM => self.create_vm(call),
            DESTROY_VM => self.destroy_vm(call),
            CREATE_VCPU => self.create_vcpu(call),
            DESTROY_VCPU => self.destroy_vcpu(call),
            SET_MEMREGION => self.set_memregion(call),
            RUN => Ok(Answer::Run { ids: call.ids(), instead: None }),
            GET_ONE_REG => self.get_one_reg(call),
            SET_ONE_REG => self.set_one_reg(call),
            IRQ_LINE => self.irq_line(call),
            CREATE_DEVICE => self.create_device(call),
            PROBE => Ok(Answer::ok(hvc::VERSION_MAJOR, VERSION.0, VERSION.1)),
            ENABLE_CAP => self.enable_cap(call),
            INFORM_EXIT => self.inform_exit(call),
            MEMREGION_PURPOSE => self.memregion_purpose(call),
            SET_DTB_CONFIG => self.set_dtb_config(call),
            MAP_GUEST => self.map_guest(call),
            MAP_GUEST_BLOCK => self.map_guest_block(call),
            GET_STATISTICS => self.get_statistics(call),
            _ => Err(hvc::ERR_NOT_IMPLEMENTED),
        };
        answer.unwrap_or_else(Answer::status)
    }

    fn inform_exit(&self, call: &Call) -> Result<Answer, Status> {
        let (_, _, mut state) = self.live(call.vm())?;
        state.informed = state.informed.wrapping_add(1);
        Ok(Answer::ok(0, 0, 0))
    }

    /// Bytes used for the VM by the hypervisor, and bytes shared between host and guest.
    fn get_statistics(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, _state) = self.live(call.vm())?;
        let usage = self.memory.lock().usage(slot);
        let own = u64::try_from(size_of::<Vm>()).unwrap_or(0);
        let page = crate::hw::PAGE_SIZE;
        Ok(Answer::ok(own + usage.tables * page, usage.shared * page, 0))
    }
}
