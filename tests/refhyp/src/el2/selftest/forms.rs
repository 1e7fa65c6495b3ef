// SPDX-License-Identifier: Apache-2.0
//! Every form of load and store that the hardware describes, at an address without memory; and
//! those that it does not describe.

use super::el1::Report;
use super::guests::{boot, place, run_on, stored};
use super::vmm::Vm;
use core::arch::global_asm;
use gzvm_abi::run::{self, Exception, Mmio};

global_asm!(
    r#"
    .section .rodata.selftest_forms, "a"
    .macro form instruction:vararg
    mov     x1, #-1
    \instruction
    str     x1, [x19, #8]
    .endm
    .balign 8
    // Loads in all forms, each followed by what the register has then; stores in all forms; a pair.
    .global guest_forms
guest_forms:
    mov     x19, #0x10000000
    form    ldrb    w1, [x19]
    form    ldrsb   w1, [x19]
    form    ldrsb   x1, [x19]
    form    ldrh    w1, [x19]
    form    ldrsh   w1, [x19]
    form    ldrsh   x1, [x19]
    form    ldr     w1, [x19]
    form    ldrsw   x1, [x19]
    form    ldr     x1, [x19]
    form    ldr     xzr, [x19]
    form    ldar    w1, [x19]
    movz    x1, #0x7788
    movk    x1, #0x5566, lsl #16
    movk    x1, #0x3344, lsl #32
    movk    x1, #0x1122, lsl #48
    strb    w1, [x19]
    strh    w1, [x19]
    str     w1, [x19]
    str     x1, [x19]
    str     wzr, [x19]
    str     xzr, [x19]
    stlr    w1, [x19]
    add     x20, x19, #0x18
    ldp     x1, x2, [x20]
1:  b       1b
    .global guest_forms_end
guest_forms_end:
    // Writes the address register back, which no syndrome describes.
    .balign 8
    .global guest_writeback
guest_writeback:
    mov     x19, #0x10000000
    add     x19, x19, #0x28
    ldr     x1, [x19], #8
1:  b       1b
    .global guest_writeback_end
guest_writeback_end:
    .previous
    "#
);

extern "C" {
    static guest_forms: u8;
    static guest_forms_end: u8;
    static guest_writeback: u8;
    static guest_writeback_end: u8;
}

/// What the device answers: each byte negative, each different.
const DATA: u64 = 0x8182_8384_8586_8788;

/// Size of each load, and what the register has then.
const LOADS: [(&str, u64, u64); 11] = [
    ("ldrb w", 1, 0x88),
    ("ldrsb w", 1, 0xffff_ff88),
    ("ldrsb x", 1, 0xffff_ffff_ffff_ff88),
    ("ldrh w", 2, 0x8788),
    ("ldrsh w", 2, 0xffff_8788),
    ("ldrsh x", 2, 0xffff_ffff_ffff_8788),
    ("ldr w", 4, 0x8586_8788),
    ("ldrsw x", 4, 0xffff_ffff_8586_8788),
    ("ldr x", 8, DATA),
    ("ldr xzr", 8, u64::MAX),
    ("ldar w", 4, 0x8586_8788),
];

/// Size and data of each store.
const STORES: [(&str, u64, u64); 7] = [
    ("strb w", 1, 0x88),
    ("strh w", 2, 0x7788),
    ("str w", 4, 0x5566_7788),
    ("str x", 8, 0x1122_3344_5566_7788),
    ("str wzr", 4, 0),
    ("str xzr", 8, 0),
    ("stlr w", 4, 0x5566_7788),
];

/// The address of a fault that the host cannot help with.
fn fault(vm: &Vm, vcpu: &super::vmm::Vcpu) -> Option<u64> {
    let reason = run_on(vm, vcpu);
    (reason == run::EXIT_EXCEPTION).then(|| vcpu.page().payload::<Exception>().fault_gpa)
}

/// All tests of this file.
pub fn run(report: &mut Report) {
    place(&raw const guest_forms, &raw const guest_forms_end);
    let vm = Vm::new();
    let vcpu = boot(&vm);
    for (name, size, value) in LOADS {
        let reason = run_on(&vm, &vcpu);
        let mmio: Mmio = vcpu.page().payload();
        let seen = (reason, mmio.is_write, mmio.size, mmio.phys_addr);
        report.equal(name, seen, (run::EXIT_MMIO, 0, size, 0x1000_0000));
        vcpu.set_payload(1, DATA);
        report.equal(name, stored(&vm, &vcpu), Some((8, value)));
    }
    for (name, size, data) in STORES {
        let seen = stored(&vm, &vcpu);
        let mmio: Mmio = vcpu.page().payload();
        report.equal(name, (seen, mmio.size), (Some((0, data)), size));
    }
    report.equal("ldp is a fault", fault(&vm, &vcpu), Some(0x1000_0018));
    vm.destroy();
    place(&raw const guest_writeback, &raw const guest_writeback_end);
    let vm = Vm::new();
    let vcpu = boot(&vm);
    report.equal("ldr with write-back is a fault", fault(&vm, &vcpu), Some(0x1000_0028));
    vm.destroy();
}
