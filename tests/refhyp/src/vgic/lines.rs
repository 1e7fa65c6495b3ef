// SPDX-License-Identifier: Apache-2.0
//! What comes from outside of the vCPUs: pulses, levels, and the host's wish to hear of ends.

use super::irq::{note, Irq, REVOKED_ENDED};
use super::{spi_intid, Vgic, Wake, PHYSICAL_TIMER, PRIVATE, VIRTUAL_TIMER};

/// An interrupt that the host drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A shared interrupt, counted from 0.
    Shared(u32),
    /// A private interrupt of a vCPU, by its id.
    Private(usize, u32),
}

/// What the host says about the level of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// High.
    pub high: bool,
    /// With a high level: the host wants to know when the guest ends the interrupt.
    pub report_end: bool,
}

impl Vgic {
    /// A pulse on a shared interrupt, counted from 0. `None` if there is no such interrupt.
    pub fn pulse(&mut self, spi: u32) -> Option<Wake> {
        let index = usize::try_from(spi).ok()?;
        self.spis.get_mut(index)?.pending = true;
        let target = self.spis.get(index).and_then(|irq| self.target(irq));
        Some(target.map_or(Wake::default(), |vcpu| self.reach(vcpu)))
    }

    /// The line of a private interrupt of the vCPU that asks.
    pub fn set_line(&mut self, vcpu: usize, intid: u32, high: bool) {
        if let Some(irq) = self.irq_mut(vcpu, intid) {
            irq.line = high;
        }
    }

    /// The level of a line from outside. `None` if there is no such line: software-generated
    /// interrupts have none, and the timers' are the hypervisor's own.
    pub fn set_level(&mut self, line: Line, level: Level) -> Option<Wake> {
        let (vcpu, intid) = match line {
            Line::Shared(spi) => (0, spi_intid(usize::try_from(spi).ok()?)),
            Line::Private(_, 0..16 | VIRTUAL_TIMER | PHYSICAL_TIMER) => return None,
            Line::Private(vcpu, intid) if usize::try_from(intid).ok()? < PRIVATE => (vcpu, intid),
            Line::Private(..) => return None,
        };
        let irq = self.irq_mut(vcpu, intid)?;
        let was = core::mem::replace(&mut irq.line, level.high);
        if level.high {
            irq.pending |= irq.edge && !was;
            irq.report |= level.report_end;
        }
        irq.settle();
        let irq = *irq;
        // Whoever has it in a list register must not take it any more, or must stop at its end.
        let stale = if level.high { level.report_end } else { was && !irq.edge };
        let mut wake = self.reach_listed(&irq, stale);
        if level.high && irq.is_pending() {
            wake.add(match line {
                Line::Shared(_) => self.target(&irq).map_or(Wake::default(), |v| self.reach(v)),
                Line::Private(vcpu, _) => self.reach(vcpu),
            });
        }
        Some(wake)
    }

    /// How to make the vCPU that has an interrupt in a list register look anew, if that is needed.
    pub(super) fn reach_listed(&self, irq: &Irq, needed: bool) -> Wake {
        match usize::from(irq.listed_on).checked_sub(1).filter(|_| needed) {
            Some(vcpu) => Wake { kicks: self.reach(vcpu).kicks, ..Wake::default() },
            None => Wake::default(),
        }
    }

    /// A vCPU has ended an interrupt.
    pub(super) fn end(&mut self, vcpu: usize, intid: u32) {
        let Some(irq) = self.irq_mut(vcpu, intid) else { return };
        irq.active = false;
        irq.active_on = 0;
        if !core::mem::take(&mut irq.report) || irq.ended_by != 0 {
            return;
        }
        irq.ended_by = note(vcpu);
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            cpu.ends += 1;
        }
    }

    /// A write to ICC_DIR_EL1: ends an interrupt whose priority was dropped before.
    pub fn deactivate(&mut self, vcpu: usize, intid: u32) -> Wake {
        let Some(irq) = self.irq_mut(vcpu, intid) else { return Wake::default() };
        if irq.listed_on != 0 {
            irq.revoked |= REVOKED_ENDED;
            let irq = *irq;
            return self.reach_listed(&irq, true);
        }
        if irq.active {
            self.end(vcpu, intid);
        }
        self.reach_other(vcpu, intid)
    }

    /// How to reach the vCPU that takes over from this one, which has done with an interrupt.
    pub(super) fn reach_other(&self, vcpu: usize, intid: u32) -> Wake {
        let next = self.irq(vcpu, intid).filter(|irq| intid >= 32 && self.deliverable(irq));
        match next.and_then(|irq| self.holder(irq)) {
            Some(other) if other != vcpu => self.reach(other),
            _ => Wake::default(),
        }
    }

    /// Whether the host has to be told of ends by a vCPU.
    pub fn has_ends(&self, vcpu: usize) -> bool {
        self.cpus.get(vcpu).is_some_and(|cpu| cpu.ends != 0)
    }

    /// Tells of an end by a vCPU that the host does not know of yet: the interrupt's id.
    pub fn take_end(&mut self, vcpu: usize) -> Option<u32> {
        let own = note(vcpu);
        let cpu = self.cpus.get_mut(vcpu).filter(|cpu| cpu.ends != 0)?;
        cpu.ends -= 1;
        let private = (0u32..).zip(cpu.private.iter_mut());
        let shared = self.spis.iter_mut().enumerate().map(|(i, irq)| (spi_intid(i), irq));
        let (intid, irq) = private.chain(shared).find(|(_, irq)| irq.ended_by == own)?;
        irq.ended_by = 0;
        Some(intid)
    }
}
