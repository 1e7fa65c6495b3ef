// SPDX-License-Identifier: Apache-2.0
//! The controller as a guest and the hardware see it.

use super::*;

const DIST: u64 = 0x3fff_0000;
const REDIST: u64 = 0x3ffb_0000;
const SGI: u64 = 0x1_0000;

/// A controller with two vCPUs on which everything is enabled.
fn controller() -> Vgic {
    let mut gic = Vgic::new();
    assert!(gic.place_distributor(DIST) && gic.place_redistributors(REDIST));
    gic.add_vcpu(0);
    gic.add_vcpu(1);
    gic.store(DIST, 4, 0b10);
    for word in 1..9 {
        gic.store(DIST + 0x80 + word * 4, 4, 0xffff_ffff);
        gic.store(DIST + 0x100 + word * 4, 4, 0xffff_ffff);
    }
    for vcpu in 0..2 {
        gic.store(REDIST + vcpu * 0x2_0000 + SGI + 0x80, 4, 0xffff_ffff);
        gic.store(REDIST + vcpu * 0x2_0000 + SGI + 0x100, 4, 0xffff_ffff);
    }
    gic
}

fn ids(lists: &Lists) -> Vec<u32> {
    lists.lr[..lists.used].iter().map(|lr| *lr as u32).collect()
}

/// What the hardware does when the guest takes and ends an interrupt.
fn set_state(lists: &mut Lists, index: usize, state: u64) {
    lists.lr[index] = lists.lr[index] & !(3 << 62) | state << 62;
}

#[test]
fn identification_says_what_is_there() {
    let gic = controller();
    assert_eq!(gic.load(DIST + 4, 4) & 0x1f, 8);
    assert_eq!(gic.load(DIST, 4), 0x52);
    assert_eq!(gic.load(DIST + 0xffe8, 4) >> 4 & 0xf, 3);
    assert_eq!(gic.load(REDIST + 8, 8), 0);
    assert_eq!(gic.load(REDIST + 0x2_0008, 8), 1 << 32 | 1 << 8 | 1 << 4);
    assert!(gic.covers(REDIST + 0x3_ffff) && !gic.covers(REDIST - 1));
    assert!(!gic.covers(DIST + 0x1_0000));
    // A range that only ends, or only begins, in a frame, or encloses one.
    assert!(gic.overlaps(DIST - 0x1000, 0x2000) && gic.overlaps(DIST + 0xf000, 0x2000));
    assert!(gic.overlaps(0x1000, u64::MAX - 0x1000));
    assert!(!gic.overlaps(DIST + 0x1_0000, 0x1000));
}

#[test]
fn a_pulse_is_delivered_once() {
    let mut gic = controller();
    assert_eq!(gic.pulse(7), Some(Wake { targets: 1, kicks: 0, asleep: 1 }));
    assert!(gic.has_pending(0) && !gic.has_pending(1));
    let mut lists = gic.enter(0, 3, 4);
    assert_eq!(ids(&lists), [39]);
    // Pulsed again while it is being handled: pending once more, and the CPU must be kicked.
    set_state(&mut lists, 0, 0b10);
    assert_eq!(gic.pulse(7), Some(Wake { targets: 1, kicks: 1 << 3, asleep: 0 }));
    gic.leave(0, &lists, 0);
    assert!(!gic.has_pending(0), "active interrupts are not delivered again");
    let mut lists = gic.enter(0, 3, 4);
    assert_eq!(lists.lr[0] >> 62, 0b11);
    set_state(&mut lists, 0, 0b01);
    gic.leave(0, &lists, 0);
    let mut lists = gic.enter(0, 3, 4);
    set_state(&mut lists, 0, 0);
    gic.leave(0, &lists, 0);
    assert_eq!(gic.enter(0, 3, 4).used, 0);
}

#[test]
fn interrupts_out_of_range_are_refused() {
    let mut gic = controller();
    assert_eq!(gic.pulse(256), None);
    assert!(gic.pulse(255).is_some());
    assert_eq!(gic.load(DIST + 0x8000, 4), 0);
    gic.store(DIST + 0x7ff8, 8, u64::MAX);
}

#[test]
fn overflow_keeps_the_most_urgent_and_loses_nothing() {
    let mut gic = controller();
    for spi in 0..10u32 {
        gic.store(DIST + 0x400 + 32 + u64::from(spi), 1, u64::from(0xf0 - spi * 8));
        gic.pulse(spi);
    }
    let mut seen = Vec::new();
    while gic.has_pending(0) {
        let mut lists = gic.enter(0, 0, 4);
        assert!(lists.used <= 4);
        assert_eq!(lists.overflow, seen.len() < 6);
        seen.extend(ids(&lists));
        (0..lists.used).for_each(|index| set_state(&mut lists, index, 0));
        gic.leave(0, &lists, 0);
    }
    assert_eq!(seen, (0..10).rev().map(|spi| spi + 32).collect::<Vec<u32>>());
}

#[test]
fn ends_without_a_list_register_are_counted() {
    let mut gic = controller();
    // Five active interrupts, and a pending one that takes a place.
    gic.store(DIST + 0x304, 4, 0b11111);
    gic.pulse(9);
    let mut lists = gic.enter(0, 0, 4);
    assert_eq!(lists.used, 4);
    assert!(lists.overflow);
    assert_eq!(ids(&lists)[0], 41);
    set_state(&mut lists, 0, 0);
    gic.leave(0, &lists, 2);
    assert_eq!(gic.load(DIST + 0x304, 4).count_ones(), 3);
}

#[test]
fn software_interrupts_reach_whom_they_name() {
    let mut gic = controller();
    let wake = gic.send_sgi(0, 5 << 24 | 0b10);
    assert_eq!(wake, Wake { targets: 2, kicks: 0, asleep: 2 });
    assert_eq!(ids(&gic.enter(1, 0, 4)), [5]);
    assert_eq!(gic.send_sgi(0, 1 << 40 | 6 << 24).kicks, 1);
    assert_eq!(gic.send_sgi(0, 7 << 24 | 0b01), Wake::default());
    assert!(gic.has_pending(0));
    assert_eq!(gic.send_sgi(0, 7 << 24 | 1 << 16 | 0b10), Wake::default());
}

#[test]
fn routes_decide_who_gets_a_shared_interrupt() {
    let mut gic = controller();
    gic.store(DIST + 0x6000 + 8 * 40, 8, 1);
    assert_eq!(gic.load(DIST + 0x6000 + 8 * 40, 8), 1);
    assert_eq!(gic.pulse(8).map(|w| w.targets), Some(2));
    gic.store(DIST + 0x6000 + 8 * 41, 8, 0x77);
    assert_eq!(gic.pulse(9), Some(Wake::default()));
    gic.store(DIST + 0x6000 + 8 * 41, 8, 0);
    assert!(gic.has_pending(0), "pending although nobody was there at first");
}

#[test]
fn the_timer_is_a_hardware_interrupt_and_follows_its_line() {
    let mut gic = controller();
    gic.set_line(0, VIRTUAL_TIMER, true);
    let mut lists = gic.enter(0, 0, 4);
    assert!(lists.timer);
    assert_eq!(lists.lr[0] >> 61, 0b011);
    assert_eq!((lists.lr[0] >> 32) & 0x1fff, 27);
    set_state(&mut lists, 0, 0b01);
    gic.leave(0, &lists, 0);
    gic.set_line(0, VIRTUAL_TIMER, false);
    assert!(!gic.has_pending(0));
}

#[test]
fn disabled_interrupts_wait() {
    let mut gic = controller();
    gic.store(DIST + 0x184, 4, 1 << 3);
    gic.pulse(3);
    assert!(!gic.has_pending(0));
    assert_eq!(gic.store(DIST + 0x104, 4, 1 << 3).asleep, 1);
    gic.store(DIST, 4, 0);
    assert!(!gic.has_pending(0));
}

#[test]
fn private_registers_are_not_in_the_distributor() {
    let mut gic = controller();
    gic.store(DIST + 0x200, 4, 0xffff_ffff);
    assert!(!gic.has_pending(0));
    assert_eq!(gic.load(DIST + 0x100, 4), 0);
    assert_eq!(gic.load(REDIST + SGI + 0x100, 4), 0xffff_ffff);
    assert_eq!(gic.load(REDIST + SGI + 0xc00, 4), 0xaaaa_aaaa);
}

#[test]
fn a_level_that_falls_is_not_taken_any_more() {
    let mut gic = controller();
    let level = |high| Level { high, report_end: false };
    assert_eq!(gic.set_level(Line::Shared(7), level(true)).map(|w| w.asleep), Some(1));
    let lists = gic.enter(0, 3, 4);
    assert_eq!(ids(&lists), [39]);
    let wake = gic.set_level(Line::Shared(7), level(false));
    assert_eq!(wake, Some(Wake { targets: 0, kicks: 1 << 3, asleep: 0 }));
    gic.leave(0, &lists, 0);
    assert!(!gic.has_pending(0));
    for line in
        [Line::Shared(256), Line::Private(0, 15), Line::Private(0, 27), Line::Private(0, 32)]
    {
        assert_eq!(gic.set_level(line, level(true)), None, "{line:?}");
    }
    assert!(gic.set_level(Line::Private(1, 31), level(true)).is_some() && gic.has_pending(1));
}

#[test]
fn timers_stay_level_triggered() {
    let mut gic = controller();
    gic.store(REDIST + SGI + 0xc04, 4, 0xffff_ffff);
    assert_eq!(gic.load(REDIST + SGI + 0xc04, 4), 0xaaaa_aaaa & !(2 << 22 | 2 << 28));
}

#[test]
fn another_vcpu_can_deactivate_and_that_is_an_end() {
    let mut gic = controller();
    let level = Level { high: true, report_end: true };
    gic.set_level(Line::Shared(7), level).expect("a line");
    let mut lists = gic.enter(0, 3, 4);
    set_state(&mut lists, 0, 0b10);
    gic.set_level(Line::Shared(7), Level { high: false, ..level }).expect("a line");
    assert_eq!(gic.deactivate(1, 39), Wake { targets: 0, kicks: 1 << 3, asleep: 0 });
    gic.leave(0, &lists, 0);
    assert_eq!(gic.load(DIST + 0x304, 4), 0);
    assert_eq!(gic.take_end(0), Some(39));
}

#[test]
fn a_shared_interrupt_that_moves_is_in_one_place() {
    let mut gic = controller();
    gic.pulse(7);
    let lists = gic.enter(0, 3, 4);
    let wake = gic.store(DIST + 0x6000 + 8 * 39, 8, 1);
    assert_eq!(wake.kicks, 1 << 3);
    assert_eq!(gic.enter(1, 2, 4).used, 0, "vCPU 0 still has it");
    let moved = gic.leave(0, &lists, 0);
    assert_eq!(moved, Wake { targets: 2, kicks: 1 << 2, asleep: 0 });
    gic.leave(1, &Lists::default(), 0);
    assert_eq!(ids(&gic.enter(1, 2, 4)), [39]);
}
