// SPDX-License-Identifier: Apache-2.0
//! B6 and B7: how VMs begin and end.

use std::fs;
use std::thread;
use std::time::Duration;

use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::Mapping;
use gzvm_device_test::sys;

use crate::delay;
use crate::guests;
use crate::memory::Backing;
use crate::window::{Report, Row};

const MIB: u64 = 1 << 20;

/// What is done before the guest's first instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    Lazy,
    Prefault,
    Protected,
}

/// B6.
pub fn begin(report: &mut Report) {
    for (start, how) in [
        (Start::Lazy, "lazy"),
        (Start::Prefault, "all memory populated by the VMM"),
        (Start::Protected, "protected, lazy"),
    ] {
        // Populating is the kernel's work alone.
        let most = if start == Start::Prefault { 1024 } else { u64::MAX };
        for mib in sizes(16).filter(|mib| *mib <= most) {
            create(report, start, how, mib);
        }
    }
}

/// What a VM that is to end has.
const WAYS: [(Backing, bool, &str); 3] = [
    (Backing::InOrder, false, "4 KiB pages"),
    (Backing::Huge, false, "huge pages"),
    (Backing::InOrder, true, "protected, 4 KiB pages"),
];

/// B7.
pub fn end(report: &mut Report) {
    for (backing, protected, how) in WAYS {
        for mib in sizes(8) {
            destroy(report, backing, protected, how, mib);
        }
    }
    for mib in sizes(8) {
        for _ in 0..2 {
            kill(report, mib);
        }
    }
    delays(report);
}

/// Guest sizes in MiB that fit into `sixteenths` of the machine's free memory.
fn sizes(sixteenths: u64) -> impl Iterator<Item = u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let room = kib / 1024 / 16 * sixteenths;
    [64, 256, 1024, 4096].into_iter().filter(move |mib| mib + 64 < room)
}

fn create(report: &mut Report, start: Start, how: &str, mib: u64) {
    let what = format!("create to first instruction, {mib} MiB, {how}");
    for _ in 0..2 {
        let memory = Mapping::anonymous(mib * MIB);
        memory.load(0, guests::touch());
        let row = Row::new("B6", &what, 1);
        report.window(row, || {
            if start == Start::Prefault {
                memory.populate();
            }
            let machine = Machine::bare(memory);
            machine.add_ram().expect("memory slot");
            machine.add_gic(1);
            if start == Start::Protected {
                machine.protect().expect("protection");
            }
            // The first thing it does is a report.
            let mut vcpu = machine.boot_vcpu(&[RAM, RAM, 4]);
            vcpu.report();
            // What comes now is not its beginning.
            crate::window::off();
            drop(vcpu);
        });
    }
}

/// A VM that has been given all of its memory.
fn full(backing: Backing, protected: bool, mib: u64) -> (Machine, gzvm_device_test::machine::Vcpu) {
    let machine = Machine::bare(backing.mapping((mib - 2) * MIB));
    machine.ram.load(0, guests::touch());
    machine.add_ram().expect("memory slot");
    if protected {
        machine.protect().expect("protection");
    }
    let mut vcpu = machine.boot_vcpu(&[RAM, RAM + machine.ram.size(), 2 * MIB]);
    vcpu.report();
    (machine, vcpu)
}

fn destroy(report: &mut Report, backing: Backing, protected: bool, how: &str, mib: u64) {
    let what = format!("destroy, {mib} MiB, {how}");
    for _ in 0..2 {
        let (machine, vcpu) = full(backing, protected, mib);
        let Machine { device, vm, ram } = machine;
        report.window(Row::new("B7", &what, 1), || {
            drop(vcpu);
            drop(vm);
        });
        drop((device, ram));
    }
}

/// For how long destroying keeps others from the CPU.
fn delays(report: &mut Report) {
    const MIB: u64 = 256;
    let mut say = |what: &str, ns| {
        let what = format!("longest time that a real-time thread did not get the CPU, {what}");
        report.value("B7", &what, ns, "ns");
    };
    say("10 ms of nothing", delay::longest(|| thread::sleep(Duration::from_millis(10))).0);
    for (backing, protected, how) in WAYS {
        let (machine, vcpu) = full(backing, protected, MIB);
        let Machine { device, vm, ram } = machine;
        let (ns, ()) = delay::longest(|| {
            drop(vcpu);
            drop(vm);
        });
        say(&format!("destroy, {MIB} MiB, {how}"), ns);
        drop((device, ram));
    }
}

fn kill(report: &mut Report, mib: u64) {
    let what = format!("SIGKILL to exit of a VMM with {mib} MiB of 4 KiB pages");
    let mut pipe = [0; 2];
    // SAFETY: two new descriptors into a live array.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0, "pipe");
    let child = sys::spawn(|| {
        let _all = full(Backing::InOrder, false, mib);
        // SAFETY: one byte of a live array; the descriptor is the pipe's.
        unsafe { libc::write(pipe[1], [1u8].as_ptr().cast(), 1) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    });
    let mut ready = [0u8];
    // SAFETY: as above.
    let got = unsafe { libc::read(pipe[0], ready.as_mut_ptr().cast(), 1) };
    assert_eq!(got, 1, "the child has a VM");
    report.window(Row::new("B7", &what, 1), || {
        // SAFETY: our own child, which is not waited for yet.
        unsafe { libc::kill(child, libc::SIGKILL) };
        sys::wait_for(child)
    });
    for fd in pipe {
        // SAFETY: ours, and not used any more.
        unsafe { libc::close(fd) };
    }
}
