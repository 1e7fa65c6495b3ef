// SPDX-License-Identifier: Apache-2.0
//! B1 and B2: accesses of the guest to addresses without memory.

use gzvm_abi::run::EXIT_MMIO;
use gzvm_abi::uapi;
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::REPORT;
use gzvm_device_test::machine::{Exit, Machine, Vcpu};
use gzvm_device_test::sys;

use crate::guests;
use crate::window::{Report, Row};

const EVENTS: u64 = 2000;
const MIB: u64 = 1 << 20;
/// Where the guest writes and reads.
const DOORBELL: u64 = REPORT + 0x1000;

/// B1: writes that signal an eventfd.
pub fn writes(report: &mut Report) {
    ioeventfd(report, 1, "MMIO write that hits an ioeventfd");
    ioeventfd(report, 64, "the same, one of 64 ioeventfds");
}

/// B2: accesses that the VMM answers.
pub fn served(report: &mut Report) {
    let what = "MMIO write served by a user loop of one ioctl";
    one_ioctl(report, what, guests::write_burst());
    let what = "MMIO read served by a user loop of one ioctl";
    one_ioctl(report, what, guests::read_burst());
    safe_handles(report);
}

/// Connects an eventfd with 4-byte writes to an address.
pub fn connect(machine: &Machine, event: &Event, addr: u64) {
    let mut ioeventfd =
        uapi::Ioeventfd { datamatch: 0, addr, len: 4, fd: event.fd(), flags: 0, pad: [0; 36] };
    sys::ioctl(&machine.vm, uapi::IOEVENTFD, &mut ioeventfd).expect("IOEVENTFD");
}

fn ioeventfd(report: &mut Report, count: u64, what: &str) {
    let machine = Machine::new(2 * MIB, guests::write_burst());
    let events: Vec<_> = (0..count).map(|_| Event::new()).collect();
    for (event, index) in events.iter().zip(0..) {
        connect(&machine, event, DOORBELL + 8 * index);
    }
    let mut vcpu = machine.boot_vcpu(&[EVENTS, DOORBELL + 8 * (count - 1)]);
    vcpu.report();
    report.twice(Row::new("B1", what, EVENTS), || {
        vcpu.report();
    });
}

fn one_ioctl(report: &mut Report, what: &str, program: &[u8]) {
    let machine = Machine::new(2 * MIB, program);
    let mut vcpu = machine.boot_vcpu(&[EVENTS, DOORBELL]);
    serve(&mut vcpu);
    report.twice(Row::new("B2", what, EVENTS), || serve(&mut vcpu));
}

/// The least that a VMM can do, until the guest reports.
fn serve(vcpu: &mut Vcpu) {
    loop {
        match sys::ioctl(&vcpu.fd, uapi::RUN, vcpu.run.as_mut()) {
            // The address is the payload's first word.
            Ok(_) if vcpu.run.exit_reason == EXIT_MMIO => match vcpu.run.payload {
                [REPORT, ..] => return,
                _ => vcpu.run.payload[1] = 0x55,
            },
            Err(libc::EINTR) => {}
            other => panic!("no MMIO exit but {other:?}, {:?}", Exit::Other(vcpu.run.exit_reason)),
        }
    }
}

/// The same through the handles that VMMs use.
fn safe_handles(report: &mut Report) {
    let memory = gzvm_device_test::mapping::Mapping::anonymous(2 * MIB);
    memory.load(0, guests::read_burst());
    let vm = gzvm::Gzvm::open().and_then(|gzvm| gzvm.create_vm()).expect("a VM");
    let region = uapi::UserspaceMemoryRegion {
        slot: 0,
        flags: uapi::MEM_REGION_GUEST_MEM,
        guest_phys_addr: gzvm_device_test::machine::RAM,
        memory_size: memory.size(),
        userspace_addr: memory.address(),
    };
    // SAFETY: the mapping outlives the VM, and is accessed by volatile reads and writes only.
    unsafe { vm.set_user_memory_region(&region) }.expect("memory slot");
    let mut vcpu = vm.create_vcpu(0).expect("a vCPU");
    for (id, value) in [
        (gzvm_abi::reg::PC, region.guest_phys_addr),
        (gzvm_abi::reg::PSTATE, 0x3c5),
        (gzvm_abi::reg::x(20), REPORT),
        (gzvm_abi::reg::x(0), EVENTS),
        (gzvm_abi::reg::x(1), DOORBELL),
    ] {
        vcpu.set_reg(id, value).expect("register");
    }
    let mut serve = || loop {
        match vcpu.run() {
            Ok(gzvm::Exit::MmioRead { data, .. }) => data.fill(0x55),
            Ok(gzvm::Exit::MmioWrite { .. }) => return,
            Ok(gzvm::Exit::Interrupted) => {}
            other => panic!("no MMIO exit but {other:?}"),
        }
    };
    serve();
    let what = "MMIO read served through libgzvm's handles";
    report.twice(Row::new("B2", what, EVENTS), serve);
}
