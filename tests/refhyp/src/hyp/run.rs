// SPDX-License-Identifier: Apache-2.0
//! RUN: what comes before the guest is entered, and what the host is told afterwards.

use super::{status_of, Hypervisor, Status};
use crate::context::START_PSTATE;
use crate::hostcall::Ids;
use crate::hw::{Hardware, PAGE_SIZE};
use crate::lock::MutexGuard;
use crate::memory::Loaded;
use crate::timer::idle_delay;
use crate::vgic::Lists;
use crate::vm::{Pending, Phase, Power, State, Vcpu, Vm};
use gzvm_abi::hvc;
use gzvm_abi::run::{self, Event, Exception, HwState, Hypercall, Mmio, Run, EXCEPTION_PAGE_FAULT};
use zerocopy::{FromZeros, IntoBytes};

/// Why a vCPU stopped, as the host is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt.
    Irq,
    /// The guest waits for an interrupt, for this many ticks at most.
    Idle(u64),
    /// The guest interrupted vCPUs (a mask) that the host has to run.
    Ipi(u64),
    /// An access to an address without memory.
    Mmio(Mmio),
    /// The guest needs memory at this address.
    Fault(u64),
    /// A call for the host.
    Hypercall([u64; 8]),
    /// The guest wants the machine to do something.
    System(u32),
    /// The guest did something that cannot be carried on from: syndrome and address.
    Internal([u64; 3]),
}

impl Exit {
    /// The exit reason.
    pub const fn reason(&self) -> u32 {
        match self {
            Self::Irq => run::EXIT_IRQ,
            Self::Idle(_) => run::EXIT_IDLE,
            Self::Ipi(_) => run::EXIT_IPI,
            Self::Mmio(_) => run::EXIT_MMIO,
            Self::Fault(_) => run::EXIT_EXCEPTION,
            Self::Hypercall(_) => run::EXIT_HYPERCALL,
            Self::System(_) => run::EXIT_SYSTEM_EVENT,
            Self::Internal(_) => run::EXIT_INTERNAL_ERROR,
        }
    }

    fn fill(&self, run: &mut Run) {
        match self {
            Self::Irq | Self::Idle(_) => (),
            Self::Ipi(mask) => run.payload[0] = *mask,
            Self::Mmio(mmio) => run.set_payload(mmio),
            Self::Fault(gpa) => run.set_payload(&Exception {
                exception: EXCEPTION_PAGE_FAULT,
                error_code: 0,
                fault_gpa: *gpa,
                reserved: [0; 30],
            }),
            Self::Hypercall(args) => run.set_payload(&Hypercall { args: *args }),
            Self::System(kind) => run.set_payload(&Event { kind: *kind, ..Event::default() }),
            Self::Internal(words) => {
                let mut event = Event { kind: 0, ndata: 3, ..Event::default() };
                event.data.iter_mut().zip(words).for_each(|(place, word)| *place = *word);
                run.set_payload(&event);
            }
        }
    }
}

/// A vCPU that is about to run, or runs: nobody else can touch it.
pub struct Running<'a> {
    /// The VM's slot.
    pub slot: usize,
    /// The VM.
    pub vm: &'a Vm,
    /// The vCPU's index.
    pub index: usize,
    /// The vCPU.
    pub vcpu: MutexGuard<'a, Vcpu>,
    /// The VM's memory is its own.
    pub protected: bool,
    /// Counter value of the host at the guest's zero.
    pub counter_offset: u64,
}

/// What became of a RUN.
pub enum Begin<'a> {
    /// The vCPU is to be entered.
    Run(Running<'a>),
    /// It is not; the host has been told why.
    Exit(Exit),
    /// Not yet: interrupts are let in, then the host makes the same call again.
    Again,
}

/// What became of the preparations for the first entry.
enum Boot {
    /// Done.
    Ready,
    /// To be continued.
    Again,
    /// The host has to bring memory first.
    Missing(u64),
}

impl<'a, H: Hardware> Hypervisor<'a, H> {
    /// Takes a vCPU to run it.
    pub fn begin_run(&self, ids: Ids) -> Result<Begin<'a>, Status> {
        let vm = self
            .vms
            .iter()
            .find(|vm| ids.vm != 0 && vm.id.load(core::sync::atomic::Ordering::Acquire) == ids.vm);
        let vm: &'a Vm = vm.ok_or(hvc::ERR_INVALID_ARGS)?;
        let vcpu = vm.vcpus.get(ids.vcpu).ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut vcpu = vcpu.try_lock().ok_or(hvc::ERR_BUSY)?;
        let (slot, _, mut state) = self.find(ids.vm, &[Phase::Live])?;
        if vcpu.pages == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        state.ran = true;
        let missing = if ids.vcpu == 0 && !state.booted {
            match self.boot(slot, &mut state, &mut vcpu)? {
                Boot::Again => return Ok(Begin::Again),
                Boot::Missing(ipa) => Some(Exit::Fault(ipa)),
                Boot::Ready => None,
            }
        } else {
            None
        };
        let mut running = Running {
            slot,
            vm,
            index: ids.vcpu,
            vcpu,
            protected: state.protected,
            counter_offset: state.counter_offset,
        };
        drop(state);
        let exit = match missing {
            None if self.power_on(&mut running) => {
                self.complete(&mut running);
                return Ok(Begin::Run(running));
            }
            None => Exit::Idle(idle_delay([None, None], self.hw.frequency())),
            Some(exit) => exit,
        };
        self.report(&running, &exit, &Lists::default());
        Ok(Begin::Exit(exit))
    }

    /// Prepares a VM for the first entry of its first vCPU.
    fn boot(&self, slot: usize, state: &mut State, vcpu: &mut Vcpu) -> Result<Boot, Status> {
        if let (Some(window), Some(firmware)) = (&mut state.firmware, &self.firmware) {
            let mut memory = self.memory.lock();
            let loaded = memory.load(&self.hw, slot, firmware, window.gfn, window.loaded);
            match loaded.map_err(status_of)? {
                Loaded::All => (),
                Loaded::UpTo(page) => {
                    window.loaded = page;
                    return Ok(Boot::Again);
                }
                Loaded::Missing(page) => {
                    window.loaded = page;
                    return Ok(Boot::Missing((window.gfn + page) * PAGE_SIZE));
                }
            }
            vcpu.regs.pc = window.gfn * PAGE_SIZE;
            vcpu.regs.pstate = START_PSTATE;
        }
        state.booted = true;
        Ok(Boot::Ready)
    }

    /// Starts a vCPU that another one has started. False if it is off.
    fn power_on(&self, running: &mut Running<'_>) -> bool {
        let mut shared = running.vm.shared.lock();
        let Some(power) = shared.power.get_mut(running.index) else { return false };
        match *power {
            Power::Off => return false,
            Power::On => (),
            Power::Starting { entry, context } => {
                *power = Power::On;
                running.vcpu.reset();
                running.vcpu.regs.pc = entry;
                running.vcpu.regs.x[0] = context;
            }
        }
        true
    }

    /// Completes what the last exit left open, with what the host has put into the run page.
    fn complete(&self, running: &mut Running<'_>) {
        let pending = core::mem::replace(&mut running.vcpu.pending, Pending::Nothing);
        if pending == Pending::Nothing {
            return;
        }
        let mut page = Run::new_zeroed();
        self.hw.copy_in(running.vcpu.pages, page.as_mut_bytes());
        match pending {
            Pending::Nothing => (),
            Pending::Load(access) => {
                let data = u64::from_le_bytes(page.payload::<Mmio>().data);
                access.load(&mut running.vcpu.regs.x, data);
            }
            Pending::Results => {
                let results = page.payload::<Hypercall>().args;
                running.vcpu.regs.x.iter_mut().zip(results).take(4).for_each(|(x, r)| *x = r);
            }
        }
    }

    /// The vCPU has left the guest: takes its interrupts back. `ended` as for [`Vgic::leave`].
    ///
    /// [`Vgic::leave`]: crate::vgic::Vgic::leave
    pub fn leave(&self, running: &Running<'_>, lists: &Lists, ended: u64) {
        let mut shared = running.vm.shared.lock();
        let moved = shared.gic.leave(running.index, lists, ended);
        // While the lock is held, as for every kick.
        self.kick(moved);
    }

    /// What the host has to be told before the vCPU enters the guest (again): that it is off, ends
    /// of interrupts, vCPUs to run.
    pub fn owed(&self, running: &Running<'_>) -> Option<Exit> {
        let mut shared = running.vm.shared.lock();
        if shared.power.get(running.index) == Some(&Power::Off) {
            // Another vCPU has ended the machine.
            return Some(Exit::Idle(idle_delay([None, None], self.hw.frequency())));
        }
        match shared.gic.take_owed(running.index) {
            0 => shared.gic.has_ends(running.index).then_some(Exit::Irq),
            asleep => Some(Exit::Ipi(self.told(asleep))),
        }
    }

    /// Tells the host why the vCPU stopped, in its two pages.
    pub fn report(&self, running: &Running<'_>, exit: &Exit, lists: &Lists) {
        let mut page = Run { exit_reason: exit.reason(), ..Run::default() };
        exit.fill(&mut page);
        self.hw.copy_out(running.vcpu.pages, page.as_bytes());
        let mut state = HwState::new_zeroed();
        let mut shared = running.vm.shared.lock();
        let (lr, used) = lists.shown(|| shared.gic.take_end(running.index));
        drop(shared);
        state.nr_lrs = u32::try_from(used).unwrap_or(0);
        state.lr = lr;
        state.vtimer_offset = running.counter_offset;
        if let Exit::Idle(delay) = exit {
            state.vtimer_delay = *delay;
            state.vtimer_migrate = 1;
        }
        self.hw.copy_out(running.vcpu.pages + PAGE_SIZE, state.as_bytes());
    }
}
