// SPDX-License-Identifier: Apache-2.0
//! B3 and B4: interrupts, to vCPUs that run and to vCPUs that sleep. For a machine with two CPUs: who
//! sends is on the first.

use gzvm_abi::uapi;
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{gic_redist, GIC_DIST, REPORT};
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::sys;

use crate::cpus::Runner;
use crate::window::{off, on, Report, Row};
use crate::{guests, mmio};

/// So many that a tick of the kernel more in one window than in another changes little.
const EVENTS: u64 = 2000;
const MIB: u64 = 1 << 20;
const DOORBELL: u64 = REPORT + 0x1000;
/// The interrupt, as GIC id.
const INTERRUPT: u32 = 40;

/// How the target waits, and in words.
const WAYS: [(bool, &str); 2] = [(true, "idle"), (false, "running")];

/// B3.
pub fn eventfds(report: &mut Report) {
    for (waits, how) in WAYS {
        eventfd(report, waits, how);
    }
}

/// B4.
pub fn between_vcpus(report: &mut Report) {
    for (waits, how) in WAYS {
        for sender in [true, false] {
            sgi(report, waits, how, sender);
        }
    }
}

/// B3: an eventfd that is connected with an interrupt.
fn eventfd(report: &mut Report, waits: bool, how: &str) {
    let machine = Machine::new(2 * MIB, guests::serve());
    machine.add_gic(1);
    let (signal, served) = (Event::new(), Event::new());
    mmio::connect(&machine, &served, DOORBELL);
    let mut irqfd =
        uapi::Irqfd { fd: signal.fd().unsigned_abs(), gsi: INTERRUPT - 32, ..Default::default() };
    sys::ioctl(&machine.vm, uapi::IRQFD, &mut irqfd).expect("IRQFD");
    let spins = u64::from(!waits);
    let mut vcpu =
        machine.boot_vcpu(&[INTERRUPT.into(), GIC_DIST, gic_redist(1), 0, 0, DOORBELL, spins]);
    vcpu.report();
    let runner = Runner::start(vcpu, Some(1));
    let wait = || while served.wait(std::time::Duration::from_secs(10)) == 0 {};
    let sender = format!("eventfd write, vCPU {how}: until the write returns");
    let both = format!("eventfd write, vCPU {how}: its CPU until the guest sees the interrupt");
    for (what, alone) in [(&sender, true), (&both, false)] {
        report.twice(
            Row { cpu: Some(usize::from(!alone)), ..Row::new("B3", what, EVENTS) },
            || {
                off();
                for _ in 0..EVENTS {
                    on();
                    signal.signal();
                    if alone {
                        off();
                    }
                    wait();
                }
            },
        );
    }
    runner.stop();
}

/// B4: interrupts from the first vCPU to the second.
fn sgi(report: &mut Report, waits: bool, how: &str, sender: bool) {
    let machine = Machine::new(2 * MIB, guests::volley());
    machine.add_gic(2);
    let first = machine.boot_vcpu(&[
        EVENTS,
        GIC_DIST,
        gic_redist(2),
        0,
        RAM + MIB,
        RAM,
        u64::from(!waits),
        u64::from(sender),
    ]);
    let mut first = first;
    let second = Runner::start(machine.vcpu(1), Some(1));
    first.report();
    let what = match sender {
        true => format!("SGI, vCPUs {how}: until the sender goes on"),
        false => format!("SGI, vCPUs {how}: until the target sees it"),
    };
    let row = Row { cpu: Some(usize::from(!sender)), ..Row::new("B4", &what, EVENTS) };
    report.twice(row, || {
        off();
        first.report();
    });
    second.stop();
}
