// SPDX-License-Identifier: Apache-2.0
//! Interrupts: lines, eventfds, and vCPUs that wake each other.

use std::time::Duration;

use gzvm_abi::{ext, uapi};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{self, GIC_DIST, REPORT};
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::{signals, sys, tests};

const MIB: u64 = 1 << 20;
/// Shared interrupt used by the tests, numbered from 0.
const SPI: u32 = 9;
/// The same as the GIC numbers it.
const INTID: u64 = 32 + SPI as u64;
/// Longer than anything takes on a slow machine.
const LONG: Duration = Duration::from_secs(20);

/// A VM whose vCPU 0 takes the tests' shared interrupt and has set its GIC up.
fn taker() -> (Machine, Vcpu) {
    taker_of(INTID, false)
}

/// A VM whose vCPU 0 takes an interrupt; it reports that between acknowledging and ending it, too, if
/// asked to.
fn taker_of(intid: u64, twice: bool) -> (Machine, Vcpu) {
    let machine = Machine::new(MIB, guest::take_irq());
    machine.add_gic(1);
    let arguments = [intid, GIC_DIST, guest::gic_redist(1), u64::from(twice)];
    let mut vcpu = machine.boot_vcpu(&arguments);
    assert_eq!(vcpu.report(), 0, "the guest is ready");
    (machine, vcpu)
}

/// No interrupt comes any more.
fn assert_quiet(vcpu: &mut Vcpu) {
    signals::handle(0);
    let target = signals::Target::this();
    std::thread::scope(|scope| {
        scope.spawn(move || target.signal_after(Duration::from_millis(300)));
        assert!(matches!(vcpu.run(), Err(libc::EINTR)), "another interrupt");
    });
}

fn irqfd(machine: &Machine, event: &Event, flags: u32, resample: Option<&Event>) {
    let number = |event: &Event| u32::try_from(event.fd()).expect("descriptor");
    let mut argument = uapi::Irqfd {
        fd: number(event),
        gsi: SPI,
        flags,
        resamplefd: resample.map_or(0, number),
        pad: [0; 16],
    };
    assert_eq!(sys::ioctl(&machine.vm, uapi::IRQFD, &mut argument), Ok(0));
}

fn w14_a_raised_line_wakes_a_sleeping_vcpu() {
    const ROUNDS: u64 = 100;
    let (machine, mut vcpu) = taker();
    let (taken, next) = std::sync::mpsc::channel();
    let raise = || machine.raise(SPI).expect("IRQ_LINE");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                // Some arrive while the vCPU sleeps, some on its way there.
                std::thread::sleep(Duration::from_micros(100 * (round % 40)));
                raise();
                // The next one only when this one was taken: two pulses in a row may be one.
                if next.recv().is_err() {
                    return;
                }
            }
        });
        for _ in 0..ROUNDS {
            assert_eq!(vcpu.report(), INTID);
            taken.send(()).expect("the other thread waits");
        }
        drop(taken);
    });
}

fn irqfds_inject() {
    let (machine, mut vcpu) = taker();
    let event = Event::new();
    irqfd(&machine, &event, 0, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            event.signal();
        });
        assert_eq!(vcpu.report(), INTID);
    });
    assert_eq!(event.take(), 0, "the kernel took the count");
    // Several signals before the guest looks are one interrupt.
    event.signal();
    event.signal();
    assert_eq!(vcpu.report(), INTID);
    irqfd(&machine, &event, uapi::IRQFD_FLAG_DEASSIGN, None);
    event.signal();
    assert_eq!(event.take(), 1, "nobody listens any more");
}

fn w17_an_eventfd_that_was_signalled_before_injects_at_once() {
    let (machine, mut vcpu) = taker();
    let event = Event::new();
    event.signal();
    irqfd(&machine, &event, 0, None);
    assert_eq!(vcpu.report(), INTID);
    assert_eq!(event.take(), 0);
}

fn closed_eventfds_make_room_for_new_ones() {
    let (machine, mut vcpu) = taker();
    for _ in 0..20 {
        let event = Event::new();
        irqfd(&machine, &event, 0, None);
        event.signal();
        drop(event);
        assert_eq!(vcpu.report(), INTID);
    }
}

fn w16_resample_is_signalled_after_the_guest_had_its_chance() {
    let (machine, mut vcpu) = taker();
    let (event, resample) = (Event::new(), Event::new());
    irqfd(&machine, &event, uapi::IRQFD_FLAG_RESAMPLE, Some(&resample));
    for _ in 0..10 {
        assert_eq!(resample.take(), 0);
        event.signal();
        assert_eq!(vcpu.report(), INTID);
        assert!(resample.wait(LONG) > 0, "no resample after the interrupt was taken");
    }
}

fn w18_ioeventfds_of_one_address_differ_by_value() {
    let machine = Machine::new(MIB, guest::count());
    let (even, any) = (Event::new(), Event::new());
    let assign = |event: &Event, addr, len, value: Option<u64>| {
        let mut argument = uapi::Ioeventfd {
            datamatch: value.unwrap_or(0),
            addr,
            len,
            fd: event.fd(),
            flags: if value.is_some() { uapi::IOEVENTFD_FLAG_DATAMATCH } else { 0 },
            pad: [0; 36],
        };
        sys::ioctl(&machine.vm, uapi::IOEVENTFD, &mut argument)
    };
    assert_eq!(assign(&even, REPORT, 8, Some(2)), Ok(0));
    assert_eq!(assign(&even, REPORT, 8, Some(4)), Ok(0), "another value at one address");
    assert_eq!(assign(&any, REPORT, 8, Some(4)), Err(libc::EEXIST));
    assert_eq!(assign(&any, REPORT, 0, None), Err(libc::EEXIST), "any length and value");
    assert_eq!(assign(&any, REPORT + 8, 0, None), Ok(0));
    let mut vcpu = machine.boot_vcpu(&[0]);
    let seen: Vec<u64> = (0..4).map(|_| vcpu.report()).collect();
    assert_eq!(seen, [0, 1, 3, 5], "matched writes stay in the kernel");
    assert_eq!((even.take(), any.take()), (2, 0));
}

fn two_vcpus_wake_each_other() {
    const ROUNDS: u64 = 300;
    let machine = Machine::new(4 * MIB, guest::ping_pong());
    machine.add_gic(2);
    let (first, second) = (guest::gic_redist(2), guest::gic_redist(2) + uapi::VGIC_REDIST_SIZE);
    let ball = RAM + 2 * MIB;
    let mut boot = machine.boot_vcpu(&[ROUNDS, GIC_DIST, first, second, ball, RAM]);
    let mut other = machine.vcpu(1);
    // The second vCPU never has anything for the VMM.
    let background = move || assert!(matches!(other.run(), Err(libc::EINTR)));
    signals::with_background(background, || {
        assert_eq!(boot.report(), 0, "CPU_ON");
        assert_eq!(boot.report(), 0xffff, "the end of the game");
    });
    assert_eq!(machine.ram.read(2 * MIB), 2 * ROUNDS, "hits");
}

fn w16_resample_is_signalled_at_the_end_of_the_interrupt() {
    let (machine, mut vcpu) = taker_of(INTID, true);
    let (event, resample) = (Event::new(), Event::new());
    irqfd(&machine, &event, uapi::IRQFD_FLAG_RESAMPLE, Some(&resample));
    for _ in 0..10 {
        event.signal();
        assert_eq!(vcpu.report(), INTID, "acknowledged");
        assert_eq!(resample.take(), 0, "not ended yet");
        assert_eq!(vcpu.report(), INTID, "ended");
        assert_eq!(resample.take(), 1);
    }
    assert_quiet(&mut vcpu);
    // A device that still wants attention says so again, until it does not.
    event.signal();
    for left in (0..3).rev() {
        assert_eq!((vcpu.report(), vcpu.report()), (INTID, INTID));
        assert_eq!(resample.take(), 1);
        if left > 0 {
            event.signal();
        }
    }
    assert_quiet(&mut vcpu);
}

fn a_disconnected_resample_irqfd_leaves_no_line_high() {
    let (machine, mut vcpu) = taker();
    let (event, resample) = (Event::new(), Event::new());
    irqfd(&machine, &event, uapi::IRQFD_FLAG_RESAMPLE, Some(&resample));
    event.signal();
    irqfd(&machine, &event, uapi::IRQFD_FLAG_DEASSIGN, None);
    assert_quiet(&mut vcpu);
    assert_eq!(resample.take(), 0);
}

fn w35_lines_have_levels() {
    let (machine, mut vcpu) = taker();
    for _ in 0..3 {
        machine.set_line(uapi::IRQ_TYPE_SPI, SPI, true).expect("high");
        for _ in 0..3 {
            assert_eq!(vcpu.report(), INTID, "as long as it is high");
        }
        machine.set_line(uapi::IRQ_TYPE_SPI, SPI, false).expect("low");
        assert_quiet(&mut vcpu);
    }
}

/// A PPI that is no timer's, numbered from 0.
const PPI: u32 = 4;

fn w35_private_interrupts_can_be_set() {
    let (machine, mut vcpu) = taker_of(16 + u64::from(PPI), false);
    let set = |number, high| machine.set_line(uapi::IRQ_TYPE_PPI, number, high);
    assert_eq!(set(PPI, true), Ok(()));
    for _ in 0..3 {
        assert_eq!(vcpu.report(), 16 + u64::from(PPI));
    }
    assert_eq!(set(PPI, false), Ok(()));
    assert_quiet(&mut vcpu);
    assert_eq!(set(11, true), Err(libc::EINVAL), "the virtual timer's");
    assert_eq!(set(16, true), Err(libc::EINVAL), "no PPI");
    let second = 1 << uapi::IRQ_VCPU_SHIFT;
    assert_eq!(set(second | PPI, true), Err(libc::EINVAL), "no such vCPU");
    assert_quiet(&mut vcpu);
}

fn w35_private_interrupts_are_refused_without_the_extension() {
    let (machine, mut vcpu) = taker();
    // As a shared interrupt's number it would be the tests' own.
    assert_eq!(machine.set_line(uapi::IRQ_TYPE_PPI, SPI, true), Err(libc::EOPNOTSUPP));
    assert_quiet(&mut vcpu);
}

fn main() {
    tests![
        Needs::Device => [
            w14_a_raised_line_wakes_a_sleeping_vcpu,
            irqfds_inject,
            w17_an_eventfd_that_was_signalled_before_injects_at_once,
            closed_eventfds_make_room_for_new_ones,
            w16_resample_is_signalled_after_the_guest_had_its_chance,
            w18_ioeventfds_of_one_address_differ_by_value,
            two_vcpus_wake_each_other,
        ],
        Needs::Extensions(ext::IRQ_KIND) => [
            w16_resample_is_signalled_at_the_end_of_the_interrupt,
            a_disconnected_resample_irqfd_leaves_no_line_high,
            w35_lines_have_levels,
            w35_private_interrupts_can_be_set,
        ],
        Needs::NoExtensions => [w35_private_interrupts_are_refused_without_the_extension],
    ]
}
