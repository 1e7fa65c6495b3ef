// SPDX-License-Identifier: Apache-2.0
//! What the least costs: the measure for all other rows.

use gzvm_abi::run::Run;
use gzvm_abi::uapi;
use gzvm_device_test::events::Event;
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::sys;

use crate::guests;
use crate::window::{Report, Row};

const EVENTS: u64 = 2000;
const MIB: u64 = 1 << 20;

fn row(what: &str) -> Row<'_> {
    Row::new("C", what, EVENTS)
}

/// All of them.
pub fn rows(report: &mut Report) {
    repeat(report, "nothing", || {
        std::hint::black_box(());
    });
    // SAFETY: has no arguments and no effect.
    repeat(report, "system call (getppid)", || unsafe {
        std::hint::black_box(libc::getppid());
    });
    let event = Event::new();
    repeat(report, "eventfd write and read, nobody waits", || {
        event.signal();
        event.take();
    });
    let machine = Machine::new(2 * MIB, guests::call_burst());
    repeat(report, "ioctl of a VM that does nothing (unknown number)", || {
        let answer = sys::ioctl_raw(&machine.vm, uapi::RUN, 0);
        debug_assert_eq!(answer, Err(libc::ENOTTY));
        std::hint::black_box(answer).ok();
    });
    repeat(report, "CHECK_EXTENSION", || {
        sys::check_extension(&machine.vm, gzvm_abi::cap::VM_GPA_SIZE).expect("CHECK_EXTENSION");
    });
    let mut config = uapi::DtbConfig { dtb_addr: RAM + MIB, dtb_size: 4096 };
    repeat(report, "ioctl with an empty hypercall (SET_DTB_CONFIG)", || {
        sys::ioctl(&machine.vm, uapi::SET_DTB_CONFIG, &mut config).expect("SET_DTB_CONFIG");
    });
    let mut vcpu = machine.boot_vcpu(&[EVENTS]);
    let mut leave = Run { immediate_exit: 1, ..Run::default() };
    repeat(report, "RUN with immediate_exit", || {
        let answer = sys::ioctl(&vcpu.fd, uapi::RUN, &mut leave);
        std::hint::black_box(answer).ok();
    });
    vcpu.report();
    report.twice(row("hypercall of a guest that EL2 answers (PSCI_VERSION)"), || {
        vcpu.report();
    });
}

fn repeat(report: &mut Report, what: &str, mut f: impl FnMut()) {
    // Once for caches and lazily made things.
    f();
    report.twice(row(what), || {
        for _ in 0..EVENTS {
            f();
        }
    });
}
