// SPDX-License-Identifier: Apache-2.0
//! Random histories of devices, two guest CPUs and their list registers, beside a model that knows
//! no list registers: each interrupt is taken when it should be, the most urgent first, and each
//! end that the host waits for is reported once and at once.

use super::*;
use proptest::prelude::*;

const DIST: u64 = 0x3fff_0000;
const REDIST: u64 = 0x3ffb_0000;
const SGI_FRAME: u64 = 0x1_0000;
const VCPUS: usize = 2;
/// Fewer list registers than interrupts, so that they run out.
const ROOM: usize = 2;
/// SPIs that histories use. One more interrupt is the PPI, which each vCPU has.
const SPI_COUNT: usize = 5;
const PPI: u32 = 20;

const P: u64 = 1 << 62;
const A: u64 = 1 << 63;
const STOP: u64 = 1 << 41;

/// An interrupt: the id, and for the PPI whose.
type Id = (u32, usize);

#[derive(Clone, Debug)]
enum Op {
    Pulse { spi: u32 },
    Level { irq: usize, vcpu: usize, high: bool, report_end: bool },
    Edge { irq: usize, vcpu: usize, edge: bool },
    SetPending { irq: usize, vcpu: usize },
    ClearPending { irq: usize, vcpu: usize },
    Route { spi: u32, vcpu: usize },
    Enter { vcpu: usize },
    Leave { vcpu: usize },
    Take { vcpu: usize },
    End { vcpu: usize },
    Deactivate { vcpu: usize, which: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let spi = 0..SPI_COUNT as u32;
    let irq = 0..SPI_COUNT + 1;
    let vcpu = 0..VCPUS;
    prop_oneof![
        2 => spi.clone().prop_map(|spi| Op::Pulse { spi }),
        6 => (irq.clone(), vcpu.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(irq, vcpu, high, report_end)| Op::Level { irq, vcpu, high, report_end }),
        1 => (irq.clone(), vcpu.clone(), any::<bool>())
            .prop_map(|(irq, vcpu, edge)| Op::Edge { irq, vcpu, edge }),
        1 => (irq.clone(), vcpu.clone()).prop_map(|(irq, vcpu)| Op::SetPending { irq, vcpu }),
        1 => (irq, vcpu.clone()).prop_map(|(irq, vcpu)| Op::ClearPending { irq, vcpu }),
        1 => (spi, vcpu.clone()).prop_map(|(spi, vcpu)| Op::Route { spi, vcpu }),
        4 => vcpu.clone().prop_map(|vcpu| Op::Enter { vcpu }),
        1 => vcpu.clone().prop_map(|vcpu| Op::Leave { vcpu }),
        6 => vcpu.clone().prop_map(|vcpu| Op::Take { vcpu }),
        6 => vcpu.clone().prop_map(|vcpu| Op::End { vcpu }),
        4 => (vcpu, 0usize..4).prop_map(|(vcpu, which)| Op::Deactivate { vcpu, which }),
    ]
}

fn id(irq: usize, vcpu: usize) -> Id {
    if irq < SPI_COUNT {
        (32 + irq as u32, 0)
    } else {
        (PPI, vcpu)
    }
}

/// What an interrupt should do.
#[derive(Clone, Copy, Debug, Default)]
struct Model {
    latch: bool,
    line: bool,
    edge: bool,
    active: bool,
    report: bool,
    target: usize,
}

impl Model {
    fn pending(&self) -> bool {
        self.latch || (self.line && !self.edge)
    }

    fn settle(&mut self) {
        self.report &= self.active || self.pending();
    }
}

/// A guest CPU with its virtual CPU interface.
#[derive(Default)]
struct Guest {
    lists: Option<Lists>,
    unlisted_ends: u64,
    /// Priorities and ids of what it is doing, the most urgent last.
    doing: Vec<(u8, Id)>,
    /// Interrupts whose priority was dropped, with ends in two steps.
    dropped: Vec<Id>,
}

struct World {
    gic: Vgic,
    two_steps: bool,
    guests: [Guest; VCPUS],
    model: Vec<(Id, u8, Model)>,
    /// Ends that the host has to hear of, and has heard of, with the vCPU.
    due: Vec<(usize, u32)>,
    told: Vec<(usize, u32)>,
}

impl World {
    fn new(two_steps: bool) -> Self {
        let mut gic = Vgic::new();
        assert!(gic.place_distributor(DIST) && gic.place_redistributors(REDIST));
        let mut model = Vec::new();
        for vcpu in 0..VCPUS {
            gic.add_vcpu(vcpu);
        }
        gic.store(DIST, 4, 0b10);
        for irq in 0..SPI_COUNT + 1 {
            for vcpu in 0..if irq < SPI_COUNT { 1 } else { VCPUS } {
                let id = id(irq, vcpu);
                let priority = 8 * (irq as u8 + 1);
                model.push((id, priority, Model { target: id.1, ..Model::default() }));
                let frame = frame(id);
                for register in [0x80, 0x100] {
                    gic.store(frame + register + u64::from(id.0 / 32) * 4, 4, 0xffff_ffff);
                }
                gic.store(frame + 0x400 + u64::from(id.0), 1, u64::from(priority));
            }
        }
        let guests = Default::default();
        Self { gic, two_steps, guests, model, due: Vec::new(), told: Vec::new() }
    }

    fn model(&mut self, id: Id) -> &mut Model {
        let found = self.model.iter_mut().find(|(other, ..)| *other == id);
        &mut found.expect("an interrupt of the model").2
    }

    fn enter(&mut self, vcpu: usize) {
        if self.guests[vcpu].lists.is_none() {
            self.guests[vcpu].lists = Some(self.gic.enter(vcpu, vcpu, ROOM));
        }
    }

    /// The vCPU leaves the guest, if it is there, and its exit tells of ends.
    fn leave(&mut self, vcpu: usize) -> bool {
        let Some(lists) = self.guests[vcpu].lists.take() else { return false };
        let ends = std::mem::take(&mut self.guests[vcpu].unlisted_ends);
        let ends = if self.two_steps { 0 } else { ends };
        let moved = self.gic.leave(vcpu, &lists, ends);
        assert_eq!(self.gic.take_owed(vcpu), moved.asleep);
        while self.gic.has_ends(vcpu) {
            let end = self.gic.take_end(vcpu).expect("an end");
            self.told.push((vcpu, end));
        }
        assert_eq!(self.gic.take_end(vcpu), None);
        self.kick(moved);
        true
    }

    fn stop_and_go(&mut self, vcpu: usize) {
        if self.leave(vcpu) {
            self.enter(vcpu);
        }
    }

    fn kick(&mut self, wake: Wake) {
        for vcpu in (0..VCPUS).filter(|vcpu| wake.kicks & (1 << vcpu) != 0) {
            self.stop_and_go(vcpu);
        }
    }

    /// A write to the registers by vCPU 0, which is not in the guest meanwhile.
    fn store(&mut self, address: u64, size: u64, value: u64) {
        let inside = self.leave(0);
        let wake = self.gic.store(address, size, value);
        self.kick(wake);
        if inside {
            self.enter(0);
        }
    }

    /// What the hardware stops a guest for.
    fn maintain(&mut self, vcpu: usize) {
        let guest = &self.guests[vcpu];
        let Some(lists) = &guest.lists else { return };
        let used = &lists.lr[..lists.used];
        let valid = used.iter().filter(|lr| **lr & (P | A) != 0).count();
        let pending = used.iter().any(|lr| *lr & (P | A) == P);
        let ended = used.iter().any(|lr| *lr & (P | A) == 0 && *lr & STOP != 0);
        let stop = ended
            || lists.overflow && (valid <= 1 || guest.unlisted_ends != 0)
            || lists.more_pending && !pending;
        if stop {
            self.stop_and_go(vcpu);
        }
    }

    /// The guest reads ICC_IAR1_EL1.
    fn take(&mut self, vcpu: usize) {
        let Some(lists) = &mut self.guests[vcpu].lists else { return };
        let running = self.guests[vcpu].doing.last().map_or(0xff, |(priority, _)| *priority);
        let urgent = |lr: &&mut u64| **lr & (P | A) == P && ((**lr >> 48) as u8) < running;
        let best = lists.lr[..lists.used].iter_mut().filter(urgent).min_by_key(|lr| **lr >> 48);
        let taken = best.map(|lr| {
            *lr = *lr & !P | A;
            *lr as u32
        });
        let due = self
            .model
            .iter()
            .filter(|(_, priority, m)| {
                m.target == vcpu && m.pending() && !m.active && *priority < running
            })
            .min_by_key(|(_, priority, _)| *priority)
            .map(|(id, ..)| *id);
        assert_eq!(taken, due.map(|(intid, _)| intid), "what vCPU {vcpu} takes");
        let Some(id) = due else { return };
        let priority = self.model.iter().find(|m| m.0 == id).expect("it").1;
        self.guests[vcpu].doing.push((priority, id));
        let model = self.model(id);
        (model.active, model.latch) = (true, false);
        self.maintain(vcpu);
    }

    /// The guest writes ICC_EOIR1_EL1.
    fn end(&mut self, vcpu: usize) {
        if self.guests[vcpu].lists.is_none() {
            return;
        }
        let Some((_, id)) = self.guests[vcpu].doing.pop() else { return };
        if self.two_steps {
            self.guests[vcpu].dropped.push(id);
            return;
        }
        self.ended(vcpu, id);
        let guest = &mut self.guests[vcpu];
        let lists = guest.lists.as_mut().expect("in the guest");
        let listed = lists.lr[..lists.used].iter_mut().find(|lr| **lr as u32 == id.0);
        match listed {
            Some(lr) => *lr &= !A,
            None => guest.unlisted_ends += 1,
        }
        self.maintain(vcpu);
    }

    /// The guest writes ICC_DIR_EL1, which traps.
    fn deactivate(&mut self, vcpu: usize, which: usize) {
        if self.guests[vcpu].dropped.is_empty() || !self.leave(vcpu) {
            return;
        }
        let which = which % self.guests[vcpu].dropped.len();
        let id = self.guests[vcpu].dropped.remove(which);
        self.ended(vcpu, id);
        let wake = self.gic.deactivate(vcpu, id.0);
        self.kick(wake);
        // Ends are told at the top of the loop around the guest, as for every exit.
        self.enter(vcpu);
        self.stop_and_go(vcpu);
    }

    fn ended(&mut self, vcpu: usize, id: Id) {
        let model = self.model(id);
        model.active = false;
        if std::mem::take(&mut model.report) {
            self.due.push((vcpu, id.0));
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Pulse { spi } => {
                self.model((32 + spi, 0)).latch = true;
                let wake = self.gic.pulse(spi).expect("an SPI");
                self.kick(wake);
            }
            Op::Level { irq, vcpu, high, report_end } => self.level(irq, vcpu, high, report_end),
            Op::Edge { irq, vcpu, edge } => {
                let id = id(irq, vcpu);
                let model = self.model(id);
                model.edge = edge;
                model.settle();
                let word = frame(id) + 0xc00 + u64::from(id.0 / 16) * 4;
                let bit = 2 << (id.0 % 16 * 2);
                let others = self.gic.load(word, 4) & !bit;
                self.store(word, 4, others | if edge { bit } else { 0 });
            }
            Op::SetPending { irq, vcpu } => {
                let id = id(irq, vcpu);
                self.model(id).latch = true;
                self.store(frame(id) + 0x200 + u64::from(id.0 / 32) * 4, 4, 1 << (id.0 % 32));
            }
            Op::ClearPending { irq, vcpu } => {
                let id = id(irq, vcpu);
                let model = self.model(id);
                model.latch = false;
                model.settle();
                self.store(frame(id) + 0x280 + u64::from(id.0 / 32) * 4, 4, 1 << (id.0 % 32));
            }
            Op::Route { spi, vcpu } => {
                self.model((32 + spi, 0)).target = vcpu;
                self.store(DIST + 0x6000 + 8 * u64::from(32 + spi), 8, vcpu as u64);
            }
            Op::Enter { vcpu } => self.enter(vcpu),
            Op::Leave { vcpu } => {
                self.leave(vcpu);
            }
            Op::Take { vcpu } => self.take(vcpu),
            Op::End { vcpu } => self.end(vcpu),
            Op::Deactivate { vcpu, which } => self.deactivate(vcpu, which),
        }
    }

    fn level(&mut self, irq: usize, vcpu: usize, high: bool, report_end: bool) {
        let id = id(irq, vcpu);
        let model = self.model(id);
        let was = std::mem::replace(&mut model.line, high);
        model.latch |= model.edge && high && !was;
        model.report |= high && report_end;
        model.settle();
        let line = match id {
            (PPI, vcpu) => Line::Private(vcpu, PPI),
            (intid, _) => Line::Shared(intid - 32),
        };
        let wake = self.gic.set_level(line, Level { high, report_end }).expect("a line");
        self.kick(wake);
    }
}

/// The registers of an interrupt.
fn frame((intid, vcpu): Id) -> u64 {
    match intid {
        PPI => REDIST + vcpu as u64 * 0x2_0000 + SGI_FRAME,
        _ => DIST,
    }
}

fn check(ops: &[Op], two_steps: bool) {
    let mut world = World::new(two_steps);
    for op in ops {
        world.apply(op);
        assert_eq!(world.told, world.due, "after {op:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn interrupts_arrive_and_end_as_in_the_model(ops in prop::collection::vec(op(), 1..120)) {
        check(&ops, false);
    }

    #[test]
    fn so_they_do_when_ends_take_two_steps(ops in prop::collection::vec(op(), 1..120)) {
        check(&ops, true);
    }
}

#[test]
fn more_ends_than_an_exit_has_room_for_are_told_by_the_next() {
    let mut gic = Vgic::new();
    assert!(gic.place_distributor(DIST));
    gic.add_vcpu(0);
    let lists = Lists { used: 2, lr: [P | 40; MAX_LISTS], ..Lists::default() };
    for spi in 0..20 {
        let level = Level { high: true, report_end: true };
        gic.set_level(Line::Shared(spi), level).expect("a line");
        gic.end(0, spi + 32);
    }
    let (shown, used) = lists.shown(|| gic.take_end(0));
    assert_eq!((used, shown[1], shown[2]), (MAX_LISTS, P | 40, STOP | 32));
    assert!(gic.has_ends(0));
    let (shown, used) = Lists::default().shown(|| gic.take_end(0));
    assert_eq!((used, shown[0], shown[5]), (6, STOP | 46, STOP | 51));
    assert!(!gic.has_ends(0));
}
