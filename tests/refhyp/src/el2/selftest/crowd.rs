// SPDX-License-Identifier: Apache-2.0
//! As many VMs and vCPUs as there can be at once, and a VM that wants more than its share.

use super::el1::{status, Report};
use super::guests::place;
use super::vmm::{audit, Vm, BACKING, BUFFER, GUEST_BASE};
use core::arch::global_asm;
use gzvm_abi::hvc::{self as id, tuple};
use gzvm_abi::{reg, run, uapi, PAGE_SIZE};

global_asm!(
    r#"
    .section .rodata.selftest_crowd, "a"
    .balign 8
    .global guest_one
guest_one:
    mov     x19, #0x10000000
    str     x0, [x19]
1:  wfi
    b       1b
    .global guest_one_end
guest_one_end:
    .previous
    "#
);

extern "C" {
    static guest_one: u8;
    static guest_one_end: u8;
}

/// VMs at once.
const VMS: usize = 64;
/// vCPUs of a VM.
const VCPUS: u16 = 16;
/// Where the vCPUs' pages are; those of the tests' common VM are elsewhere.
const PAGES: u64 = 0x5c00_0000;
/// Guest memory that needs a table for each of its pages that is used.
const SPARSE: u64 = 0x8_0000_0000;
const STRIDE: u64 = 2 << 20;
const STEPS: u64 = 1 << 14;

/// All tests of this file.
pub fn run(report: &mut Report) {
    let before = audit();
    place(&raw const guest_one, &raw const guest_one_end);
    all_at_once(report);
    report.equal("crowd: audit", audit(), before);
    greedy(report);
    report.equal("greed: audit", audit(), before);
}

/// 64 VMs that share their code, of which each says who it is.
fn all_at_once(report: &mut Report) {
    let vms = [(); VMS].map(|()| Vm::new());
    let mut passed = 0;
    for (n, vm) in (0..).zip(&vms) {
        let x1 = tuple(vm.id, 0);
        let create = status(id::CREATE_VCPU, &[x1, PAGES + n * 2 * PAGE_SIZE]);
        let mapped = vm.populate(GUEST_BASE);
        let set = |register, value| status(id::SET_ONE_REG, &[x1, register, value]);
        let ready = [create, mapped, set(reg::PC, GUEST_BASE), set(reg::x(0), n)];
        passed += u32::from(ready == [0; 4]);
    }
    report.equal("crowd: 64 VMs with a vCPU each", passed, 64);
    let mut said = 0;
    for (n, vm) in (0..).zip(&vms) {
        let vcpu = super::vmm::Vcpu { x1: tuple(vm.id, 0), pages: PAGES + n * 2 * PAGE_SIZE };
        said += u32::from(super::guests::stored(vm, &vcpu) == Some((0, n)));
    }
    report.equal("crowd: each runs", said, 64);
    for vm in vms {
        vm.destroy();
    }
    let vm = Vm::new();
    let vcpus = (0..VCPUS).map(|index| vm.add_vcpu(index));
    let idle = vcpus.filter(|vcpu| vcpu.run() == run::EXIT_IDLE).count();
    report.equal("crowd: 16 vCPUs, of which 15 are off", idle, 15);
    let more = status(id::CREATE_VCPU, &[tuple(vm.id, VCPUS), BUFFER]);
    report.equal("crowd: no 17th", more, id::ERR_INVALID_ARGS);
    vm.destroy();
}

/// A VM that spreads over more tables than are its own.
fn greedy(report: &mut Report) {
    let (vm, other) = (Vm::new(), Vm::new());
    vm.add_region(1, SPARSE, STEPS * STRIDE / PAGE_SIZE, uapi::MEM_REGION_GUEST_MEM);
    let map = |step: u64| {
        let gfn = (SPARSE + step * STRIDE) / PAGE_SIZE;
        status(id::MAP_GUEST, &[vm.x1(), 1, BACKING / PAGE_SIZE, gfn, 1])
    };
    let stop = (0..STEPS).map(map).position(|status| status != 0).unwrap_or(0);
    let stop = u64::try_from(stop).unwrap_or(0);
    report.check("greed: some tables are there for a VM", stop > 64);
    report.equal("greed: no more than its share", map(stop), id::ERR_NO_MEMORY);
    report.equal("greed: a second time too", map(stop + 1), id::ERR_NO_MEMORY);
    report.equal("greed: what is there can be used", map(stop - 1), 0);
    report.equal("greed: others have theirs", other.populate(GUEST_BASE), 0);
    other.destroy();
    vm.destroy();
}
