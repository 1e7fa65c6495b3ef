// SPDX-License-Identifier: Apache-2.0
//! List registers (`ICH_LR<n>_EL2`, IHI 0069H 12.4.6): the interrupts that the hardware can present
//! to a running vCPU by itself. There are few of them; more interrupts than that is the normal case.

use super::irq::{note, REVOKED_ACTIVE, REVOKED_ENDED, REVOKED_PENDING};
use super::{Irq, Vgic, Wake, VIRTUAL_TIMER};

/// List registers that an implementation can have.
pub const MAX_LISTS: usize = 16;

const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;
const HARDWARE: u64 = 1 << 61;
const GROUP1: u64 = 1 << 60;
/// With HARDWARE clear: the end of the interrupt makes the guest stop.
const STOP_AT_END: u64 = 1 << 41;
/// The lowest priority, which none of the candidates is below.
const IDLE_PRIORITY: u8 = 0xff;

/// What the list registers are to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Values, of which the first [`Self::used`] count.
    pub lr: [u64; MAX_LISTS],
    /// How many are used.
    pub used: usize,
    /// More interrupts are there than fit: the guest must be left when there is room.
    pub overflow: bool,
    /// Pending ones among them: the guest must be left when it has taken those that fit, as the
    /// next may be more urgent than what it does then.
    pub more_pending: bool,
    /// The virtual timer's interrupt is among them, and ends the physical one.
    pub timer: bool,
}

impl Lists {
    /// What the host is shown: the interrupts that are there still, then the `ends` of others, one
    /// each as long as there is room.
    pub fn shown(&self, mut ends: impl FnMut() -> Option<u32>) -> ([u64; MAX_LISTS], usize) {
        let mut shown = [0; MAX_LISTS];
        let live = self.lr.iter().take(self.used).filter(|lr| *lr & (PENDING | ACTIVE) != 0);
        let mut used = 0;
        for (place, lr) in shown.iter_mut().zip(live) {
            *place = *lr;
            used += 1;
        }
        for place in shown.iter_mut().skip(used) {
            let Some(intid) = ends() else { break };
            *place = u64::from(intid) | STOP_AT_END;
            used += 1;
        }
        (shown, used)
    }
}

/// The list register of an interrupt, pending or not.
fn encode(intid: u32, irq: &Irq, pending: bool) -> u64 {
    let mut lr = u64::from(intid) | u64::from(irq.priority) << 48;
    if irq.group1 {
        lr |= GROUP1;
    }
    if irq.active {
        lr |= ACTIVE;
    }
    if pending {
        lr |= PENDING;
    }
    let more_later = irq.is_high() || irq.report || (irq.pending && !pending);
    if intid == VIRTUAL_TIMER {
        lr |= HARDWARE | u64::from(intid) << 32;
    } else if more_later {
        lr |= STOP_AT_END;
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
        self.spis.tidy();
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            cpu.private.tidy();
        }
        let mut pending = Candidates::new(room);
        let mut active = Candidates::new(room);
        // One that another vCPU's list registers have stays there until that one stops.
        for (intid, irq) in self.of_vcpu(vcpu).filter(|(_, irq)| irq.listed_on == 0) {
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
        let rest_room = room.saturating_sub(active.used + pending.used.min(1));
        lists.more_pending = pending.overflow || pending.used.saturating_sub(1) > rest_room;
        for intid in first.chain(active.iter()).chain(rest).take(room.min(MAX_LISTS)) {
            if let Some(lr) = lists.lr.get_mut(lists.used) {
                *lr = self.list(vcpu, intid);
                lists.used += 1;
            }
            lists.timer |= intid == VIRTUAL_TIMER;
        }
        if let Some(state) = self.cpus.get_mut(vcpu) {
            state.running_on = u8::try_from(cpu + 1).unwrap_or(0);
        }
        lists
    }

    /// Moves one interrupt into a list register.
    fn list(&mut self, vcpu: usize, intid: u32) -> u64 {
        let wanted = self
            .irq(vcpu, intid)
            .is_some_and(|irq| self.wanted(irq) && (intid < 32 || self.target(irq) == Some(vcpu)));
        let Some(irq) = self.irq_mut(vcpu, intid) else { return 0 };
        // Not both pending and active where hardware interrupts have no such state, where a line is
        // looked at again after the end, and where the end must stop the guest, which only one
        // that leaves nothing behind does.
        let one_at_a_time = intid == VIRTUAL_TIMER || irq.is_high() || irq.report;
        let pending = wanted && !(irq.active && one_at_a_time);
        let lr = encode(intid, irq, pending);
        irq.listed_on = note(vcpu);
        irq.listed_active = irq.active;
        irq.listed_report = irq.report;
        irq.listed_latch = irq.pending && pending;
        irq.pending &= !pending;
        irq.revoked = 0;
        lr
    }

    /// The vCPU has stopped: takes its interrupts back. `ended` says how many active interrupts
    /// without a list register the guest has ended. Answers whom to make leave the guest for
    /// interrupts that are another vCPU's by now.
    pub fn leave(&mut self, vcpu: usize, lists: &Lists, ended: u64) -> Wake {
        let mut moved = Wake::default();
        for lr in lists.lr.iter().take(lists.used) {
            // CAST: the id field is 32 bits wide.
            moved.add(self.unlist(vcpu, *lr as u32, *lr));
        }
        for _ in 0..ended {
            moved.add(self.end_unlisted(vcpu, lists));
        }
        if let Some(state) = self.cpus.get_mut(vcpu) {
            state.running_on = 0;
            state.owed |= moved.asleep;
        }
        moved
    }

    /// Takes one interrupt back from a list register.
    fn unlist(&mut self, vcpu: usize, intid: u32, lr: u64) -> Wake {
        let Some(irq) = self.irq_mut(vcpu, intid) else { return Wake::default() };
        let (pending, active) = (lr & PENDING != 0, lr & ACTIVE != 0);
        let revoked = |bit: u8| irq.revoked & bit != 0;
        let keep = pending && irq.listed_latch && !revoked(REVOKED_PENDING);
        // It was active, or was taken meanwhile; and that is over.
        let ended = if active { revoked(REVOKED_ENDED) } else { irq.listed_active || !pending };
        irq.active = active && !revoked(REVOKED_ACTIVE | REVOKED_ENDED);
        irq.active_on = if irq.active { note(vcpu) } else { 0 };
        irq.pending |= keep;
        (irq.listed_on, irq.revoked) = (0, 0);
        if ended && irq.listed_report {
            self.end(vcpu, intid);
        }
        if let Some(irq) = self.irq_mut(vcpu, intid) {
            irq.settle();
        }
        self.reach_other(vcpu, intid)
    }

    /// vCPUs that the host has to be told of on behalf of this one.
    pub fn take_owed(&mut self, vcpu: usize) -> u32 {
        self.cpus.get_mut(vcpu).map_or(0, |cpu| core::mem::take(&mut cpu.owed))
    }

    /// Ends the most urgent active interrupt that had no list register.
    fn end_unlisted(&mut self, vcpu: usize, lists: &Lists) -> Wake {
        // CAST: the id field is 32 bits wide.
        let listed = |id: u32| lists.lr.iter().take(lists.used).any(|lr| *lr as u32 == id);
        let most_urgent = self
            .of_vcpu(vcpu)
            .filter(|(intid, irq)| irq.active && !listed(*intid))
            .min_by_key(|(_, irq)| irq.priority)
            .map(|(intid, _)| intid);
        let Some(intid) = most_urgent else { return Wake::default() };
        self.end(vcpu, intid);
        self.reach_other(vcpu, intid)
    }
}
