// SPDX-License-Identifier: Apache-2.0
//! List registers (`ICH_LR<n>_EL2`, IHI 0069H 12.4.6): the interrupts that the hardware can present
//! to a running vCPU by itself. There are few of them; more interrupts than that is the normal case.

use super::{Irq, Vgic, VIRTUAL_TIMER};

/// List registers that an implementation can have.
pub const MAX_LISTS: usize = 16;

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HARDWARE: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
/// With HARDWARE clear: the end of the interrupt is reported.
const REPORT_END: u64 = 1 << 41;
/// The lowest priority, which none of the candidates is below.
const IDLE_PRIORITY: u8 = 0xff;

/// What the list registers are to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Values, of which the first [`Self::used`] count.
    pub lr: [u64; MAX_LISTS],
    /// How many are used.
    pub used: usize,
    /// More interrupts wait than fit: the guest must be left when there is room.
    pub overflow: bool,
    /// The virtual timer's interrupt is among them, and ends the physical one.
    pub timer: bool,
}

fn encode(intid: u32, irq: &Irq) -> u64 {
    let mut lr = u64::from(intid) | u64::from(irq.priority) << 48;
    if irq.group1 {
        lr |= GROUP1;
    }
    if intid == VIRTUAL_TIMER {
        // Hardware interrupts have no "active and pending" state; the physical one fires again.
        lr |= HARDWARE | u64::from(intid) << 32;
        lr |= if irq.active { ACTIVE } else { PENDING };
        return lr;
    }
    if irq.active {
        lr |= ACTIVE;
    }
    if irq.is_pending() {
        lr |= PENDING;
    }
    if irq.line {
        lr |= REPORT_END;
    }
    lr
}

/// Ids and priorities of the candidates for list registers, most urgent first. A fixed array: no
/// memory is allocated at run time, and no more than this can be presented at once.
struct Candidates {
    ids: [(u8, u32); MAX_LISTS],
    used: usize,
    room: usize,
    overflow: bool,
}

impl Candidates {
    fn new(room: usize) -> Self {
        Self {
            ids: [(IDLE_PRIORITY, 0); MAX_LISTS],
            used: 0,
            room: room.min(MAX_LISTS),
            overflow: false,
        }
    }

    fn add(&mut self, priority: u8, intid: u32) {
        let full = self.used == self.room;
        self.overflow |= full;
        let used = self.ids.get_mut(..self.room).unwrap_or_default();
        let Some(at) = used.iter().take(self.used).position(|(p, _)| priority < *p) else {
            if let (false, Some(place)) = (full, used.get_mut(self.used)) {
                *place = (priority, intid);
                self.used += 1;
            }
            return;
        };
        if let Some(tail) = used.get_mut(at..) {
            tail.rotate_right(1);
            if let Some(place) = tail.first_mut() {
                *place = (priority, intid);
            }
        }
        if !full {
            self.used += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ids.iter().take(self.used).map(|(_, intid)| *intid)
    }
}

impl Vgic {
    /// The vCPU is about to run on physical CPU `cpu`, with `room` list registers: moves its
    /// interrupts into them.
    ///
    /// The most urgent pending interrupt always gets a place, so that the guest never waits for an
    /// end of interrupt that it cannot reach; active ones come next, as their end is then seen by
    /// the hardware; other pending ones fill the rest.
    pub fn enter(&mut self, vcpu: usize, cpu: usize, room: usize) -> Lists {
        let mut pending = Candidates::new(room);
        let mut active = Candidates::new(room);
        for (intid, irq) in self.of_vcpu(vcpu) {
            if irq.active {
                active.add(irq.priority, intid);
            } else if self.deliverable(irq) {
                pending.add(irq.priority, intid);
            }
        }
        let first = pending.iter().take(1);
        let rest = pending.iter().skip(1);
        let overflow = pending.overflow || active.overflow || pending.used + active.used > room;
        let mut lists = Lists { overflow, ..Lists::default() };
        for intid in first.chain(active.iter()).chain(rest).take(room.min(MAX_LISTS)) {
            let Some(irq) = self.irq_mut(vcpu, intid) else { continue };
            if let Some(lr) = lists.lr.get_mut(lists.used) {
                *lr = encode(intid, irq);
                lists.used += 1;
            }
            irq.pending = false;
            lists.timer |= intid == VIRTUAL_TIMER;
        }
        if let Some(state) = self.cpus.get_mut(vcpu) {
            state.running_on = u8::try_from(cpu + 1).unwrap_or(0);
        }
        lists
    }

    /// The vCPU has stopped: takes its interrupts back. `ended` is ICH_HCR_EL2.EOIcount: how many
    /// active interrupts without a list register the guest has ended.
    pub fn leave(&mut self, vcpu: usize, lists: &Lists, ended: u64) {
        for lr in lists.lr.iter().take(lists.used) {
            // CAST: the id field is 32 bits wide.
            let intid = *lr as u32;
            if let Some(irq) = self.irq_mut(vcpu, intid) {
                irq.active = lr & ACTIVE != 0;
                // The timers' lines are looked at anew; everything else was latched.
                if lr & PENDING != 0 && !irq.line && intid != VIRTUAL_TIMER {
                    irq.pending = true;
                }
            }
        }
        for _ in 0..ended {
            self.end_unlisted(vcpu, lists);
        }
        if let Some(state) = self.cpus.get_mut(vcpu) {
            state.running_on = 0;
        }
    }

    /// Ends the most urgent active interrupt that had no list register.
    fn end_unlisted(&mut self, vcpu: usize, lists: &Lists) {
        // CAST: the id field is 32 bits wide.
        let listed = |id: u32| lists.lr.iter().take(lists.used).any(|lr| *lr as u32 == id);
        let most_urgent = self
            .of_vcpu(vcpu)
            .filter(|(intid, irq)| irq.active && !listed(*intid))
            .min_by_key(|(_, irq)| irq.priority)
            .map(|(intid, _)| intid);
        if let Some(irq) = most_urgent.and_then(|intid| self.irq_mut(vcpu, intid)) {
            irq.active = false;
        }
    }
}
