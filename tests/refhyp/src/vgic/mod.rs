// SPDX-License-Identifier: Apache-2.0
//! A VM's virtual GICv3: the state of all its interrupts (Arm IHI 0069H).
//!
//! | file | subject |
//! | --- | --- |
//! | `mod.rs` | interrupts, who waits for them, software-generated ones |
//! | `irq.rs` | the state of one interrupt |
//! | `bank.rs` | many of them, and which are of interest |
//! | `lines.rs` | pulses, levels, ends of interrupts |
//! | `frames.rs` | the registers of distributor and redistributors |
//! | `lists.rs` | list registers: what the hardware holds while a vCPU runs |
//!
//! While a vCPU runs, the interrupts in its list registers are the hardware's; `lists.rs` reads
//! them back when it stops. A change that such a vCPU must see makes its CPU leave the guest.

mod bank;
mod frames;
#[cfg(test)]
mod histories;
mod irq;
mod lines;
mod lists;
#[cfg(test)]
mod tests;

pub use lines::{Level, Line};
pub use lists::{Lists, MAX_LISTS};

use crate::vm::MAX_VCPUS;
use bank::Bank;
use irq::{note, Irq};

/// Shared interrupts of a VM.
pub const SPIS: usize = 256;
/// Private interrupts of a vCPU: 16 software-generated ones and 16 PPIs.
pub const PRIVATE: usize = 32;
/// The virtual timer's PPI.
pub const VIRTUAL_TIMER: u32 = 27;
/// The physical timer's PPI.
pub const PHYSICAL_TIMER: u32 = 30;

/// One vCPU's part.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    private: Bank<PRIVATE>,
    /// GICR_WAKER.ProcessorSleep.
    sleeping: bool,
    /// The physical CPU that runs it, plus 1; 0 for none.
    running_on: u8,
    /// Ends of interrupts that the host has to be told of.
    ends: u16,
    /// vCPUs that run nowhere and got an interrupt from this one's list registers: the host has to
    /// run them.
    owed: u32,
}

impl Cpu {
    const NEW: Self = Self { private: Bank::NEW, sleeping: false, running_on: 0, ends: 0, owed: 0 };
}

/// vCPUs to wake, by what has to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// vCPUs that an interrupt was made pending for.
    pub targets: u32,
    /// Physical CPUs that must leave their guest, one bit each.
    pub kicks: u32,
    /// Of the targets, those that run nowhere: the host has to run them.
    pub asleep: u32,
}

impl Wake {
    fn add(&mut self, other: Self) {
        self.targets |= other.targets;
        self.kicks |= other.kicks;
        self.asleep |= other.asleep;
    }
}

/// A VM's interrupt controller.
#[derive(Debug)]
pub struct Vgic {
    /// GICD_CTLR.EnableGrp0 and EnableGrp1.
    groups: u8,
    /// Guest physical addresses of the registers, 0 for not created.
    distributor: u64,
    redistributors: u64,
    /// vCPUs that exist: those below this index.
    vcpus: usize,
    spis: Bank<SPIS>,
    cpus: [Cpu; MAX_VCPUS],
}

impl Default for Vgic {
    fn default() -> Self {
        Self::new()
    }
}

/// The interrupt id of a shared interrupt, counted from 0.
fn spi_intid(index: usize) -> u32 {
    u32::try_from(index + PRIVATE).unwrap_or(u32::MAX)
}

impl Vgic {
    /// After reset, without vCPUs. All zero bits, so that a table of them needs no image space.
    pub const fn new() -> Self {
        Self {
            groups: 0,
            distributor: 0,
            redistributors: 0,
            vcpus: 0,
            spis: Bank::NEW,
            cpus: [Cpu::NEW; MAX_VCPUS],
        }
    }

    /// Back to [`Self::new`].
    pub fn reset(&mut self) {
        self.groups = 0;
        self.distributor = 0;
        self.redistributors = 0;
        self.vcpus = 0;
        self.spis = Bank::NEW;
        self.cpus.fill(Cpu::NEW);
    }

    /// A vCPU appears.
    pub fn add_vcpu(&mut self, vcpu: usize) {
        self.vcpus = self.vcpus.max(vcpu + 1);
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            *cpu = Cpu::NEW;
            // Software-generated interrupts are always edge-triggered.
            cpu.private.iter_mut().take(16).for_each(|irq| irq.edge = true);
            cpu.sleeping = true;
        }
        let forget = |irq: &mut Irq| {
            if irq.ended_by == note(vcpu) {
                irq.ended_by = 0;
            }
        };
        self.spis.iter_mut().for_each(forget);
    }

    /// Places the distributor's registers. False if they are placed already.
    pub fn place_distributor(&mut self, base: u64) -> bool {
        let free = self.distributor == 0;
        if free {
            self.distributor = base;
        }
        free
    }

    /// Places the redistributors' registers. False if they are placed already.
    pub fn place_redistributors(&mut self, base: u64) -> bool {
        let free = self.redistributors == 0;
        if free {
            self.redistributors = base;
        }
        free
    }

    fn irq(&self, vcpu: usize, intid: u32) -> Option<&Irq> {
        let id = usize::try_from(intid).ok()?;
        match id.checked_sub(PRIVATE) {
            None => self.cpus.get(vcpu)?.private.get(id),
            Some(spi) => self.spis.get(spi),
        }
    }

    fn irq_mut(&mut self, vcpu: usize, intid: u32) -> Option<&mut Irq> {
        let id = usize::try_from(intid).ok()?;
        match id.checked_sub(PRIVATE) {
            None => self.cpus.get_mut(vcpu)?.private.get_mut(id),
            Some(spi) => self.spis.get_mut(spi),
        }
    }

    /// The vCPU that a shared interrupt goes to.
    fn target(&self, irq: &Irq) -> Option<usize> {
        const ANY: u32 = 1 << 31;
        let vcpu = if irq.route & ANY != 0 { 0 } else { vcpu_of_affinity(irq.route) };
        (vcpu < self.vcpus).then_some(vcpu)
    }

    /// The vCPU that a shared interrupt concerns: while it is active, the one that took it.
    fn holder(&self, irq: &Irq) -> Option<usize> {
        let taken = usize::from(irq.active_on).checked_sub(1).filter(|_| irq.active);
        taken.or_else(|| self.target(irq))
    }

    /// How to reach a vCPU that something became pending for.
    fn reach(&self, vcpu: usize) -> Wake {
        let Some(cpu) = self.cpus.get(vcpu) else { return Wake::default() };
        let bit = 1u32 << vcpu;
        match cpu.running_on {
            0 => Wake { targets: bit, kicks: 0, asleep: bit },
            physical => Wake { targets: bit, kicks: 1 << (physical - 1), asleep: 0 },
        }
    }

    /// How to reach a vCPU, whatever for.
    pub fn reach_vcpu(&self, vcpu: usize) -> Wake {
        self.reach(vcpu)
    }

    /// A write to ICC_SGI1R_EL1 by `sender`: makes a software-generated interrupt pending.
    pub fn send_sgi(&mut self, sender: usize, register: u64) -> Wake {
        // CAST: four bits.
        let intid = ((register >> 24) & 0xf) as u32;
        let all_others = register & (1 << 40) != 0;
        let mut wake = Wake::default();
        for vcpu in 0..self.vcpus {
            let named = if all_others { vcpu != sender } else { sgi_names(register, vcpu) };
            if !named {
                continue;
            }
            if let Some(irq) = self.irq_mut(vcpu, intid) {
                irq.pending = true;
            }
            if vcpu != sender {
                wake.add(self.reach(vcpu));
            }
        }
        wake
    }

    /// Whether the group of an interrupt is enabled.
    fn group_enabled(&self, irq: &Irq) -> bool {
        self.groups & (1 << u8::from(irq.group1)) != 0
    }

    /// Whether an interrupt is pending and the guest wants it.
    fn wanted(&self, irq: &Irq) -> bool {
        irq.enabled && irq.is_pending() && self.group_enabled(irq)
    }

    fn deliverable(&self, irq: &Irq) -> bool {
        self.wanted(irq) && !irq.active
    }

    /// Ids and states of the interrupts that concern a vCPU: all that are pending or active, and of
    /// the private ones perhaps others.
    fn of_vcpu(&self, vcpu: usize) -> impl Iterator<Item = (u32, &Irq)> {
        let private = self.cpus.get(vcpu).into_iter().flat_map(|cpu| cpu.private.live());
        // CAST: private ones are few.
        let private = private.map(|(index, irq)| (index as u32, irq));
        let shared = self
            .spis
            .live()
            .filter(move |(_, irq)| {
                (irq.is_pending() || irq.active) && self.holder(irq) == Some(vcpu)
            })
            .map(|(index, irq)| (spi_intid(index), irq));
        private.chain(shared)
    }

    /// Whether an interrupt waits for the vCPU, so that it must not go to sleep.
    pub fn has_pending(&self, vcpu: usize) -> bool {
        self.of_vcpu(vcpu).any(|(_, irq)| self.deliverable(irq))
    }
}

/// The index of the vCPU with these affinity bits (23:0), or one that does not exist.
fn vcpu_of_affinity(affinity: u32) -> usize {
    crate::vm::vcpu_of_mpidr(u64::from(affinity & 0xff_ffff)).unwrap_or(usize::MAX)
}

/// Whether the target fields of ICC_SGI1R_EL1 name a vCPU.
fn sgi_names(register: u64, vcpu: usize) -> bool {
    let mpidr = crate::vm::mpidr_of_vcpu(vcpu);
    let (aff0, aff1) = (mpidr & 0xff, (mpidr >> 8) & 0xff);
    let other_clusters = register & (0xff << 48 | 0xff << 32) != 0;
    let range = (register >> 44) & 0xf;
    !other_clusters
        && (register >> 16) & 0xff == aff1
        && range == aff0 / 16
        && register & (1 << (aff0 % 16)) != 0
}
