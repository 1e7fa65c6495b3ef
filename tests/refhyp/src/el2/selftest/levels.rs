// SPDX-License-Identifier: Apache-2.0
//! Lines with a true level, reports of their ends, and ends in two steps.

use super::el1::{hvc, load, Report};
use super::guests::{boot, place, run_on, stored};
use super::vmm::{Vcpu, Vm};
use core::arch::global_asm;
use gzvm_abi::run::{self, HwState};
use gzvm_abi::{ext, hvc as id, PAGE_SIZE};

global_asm!(
    r#"
    .section .rodata.selftest_levels, "a"
    .balign 8
    // Takes and ends interrupts twice; then makes six active at once and deactivates them, the
    // last first, saying each time which are left.
    .global guest_levels
guest_levels:
    mov     x19, #0x10000000
    mov     x18, #0x3fff0000
    mov     w0, #2
    str     w0, [x18]               // group 1 on
    mov     w0, #-1
    str     w0, [x18, #0x84]
    str     w0, [x18, #0x104]
    mov     x17, #0x3ffb0000
    add     x17, x17, #0x10000
    str     w0, [x17, #0x80]
    str     w0, [x17, #0x100]
    mov     x1, #0xf0
    msr     S3_0_C4_C6_0, x1        // ICC_PMR_EL1
    mov     x1, #1
    msr     S3_0_C12_C12_7, x1      // ICC_IGRPEN1_EL1
    isb
    mov     x21, #2
1:  str     xzr, [x19]              // ready
    mrs     x1, S3_0_C12_C12_0      // ICC_IAR1_EL1
    str     x1, [x19, #8]           // taken
    msr     S3_0_C12_C12_1, x1      // ICC_EOIR1_EL1: the end
    isb
    subs    x21, x21, #1
    b.ne    1b
    mrs     x1, S3_0_C12_C12_0
    str     x1, [x19, #16]          // none
    mov     x1, #2
    msr     S3_0_C12_C12_4, x1      // ICC_CTLR_EL1: ends in two steps
    isb
    mov     w0, #0x3f
    str     w0, [x18, #0x204]
    mov     x21, #6
2:  mrs     x1, S3_0_C12_C12_0
    msr     S3_0_C12_C12_1, x1      // the priority drops
    isb
    subs    x21, x21, #1
    b.ne    2b
    mov     x21, #37
3:  ldr     w1, [x18, #0x304]
    str     x1, [x19, #24]          // active now
    msr     S3_0_C12_C11_1, x21     // ICC_DIR_EL1
    isb
    sub     x21, x21, #1
    cmp     x21, #31
    b.ne    3b
    ldr     w1, [x18, #0x304]
    str     x1, [x19, #24]          // none is left
5:  wfi
    b       5b
    .global guest_levels_end
guest_levels_end:
    .previous
    "#
);

extern "C" {
    static guest_levels: u8;
    static guest_levels_end: u8;
}

/// The first list register that the last exit shows, and how many there are.
fn shown(vcpu: &Vcpu) -> (u64, Option<u64>) {
    let page = vcpu.pages + PAGE_SIZE;
    // The program's own memory; the count is in the first word's low half.
    let count = load(page).unwrap_or(0) & 0xffff_ffff;
    // CAST: a small number.
    (count, load(page + core::mem::offset_of!(HwState, lr) as u64).ok())
}

/// All tests of this file, for hypervisors that offer the extension.
pub fn run(report: &mut Report) {
    place(&raw const guest_levels, &raw const guest_levels_end);
    let vm = Vm::new();
    let vcpu = boot(&vm);
    let line = |number: u64, level: u64, kind: u64| {
        let [x0, x1, ..] = hvc(u64::from(id::IRQ_LINE), &[vcpu.x1, number, level, kind]);
        (x0, x1)
    };
    for (name, kind, number, intid) in [
        ("level: SPI 4", ext::IRQ_KIND_SPI_LEVEL, 4, 36),
        ("level: PPI 22", ext::IRQ_KIND_PPI_LEVEL, 22, 22),
    ] {
        report.equal("level: ready", stored(&vm, &vcpu), Some((0, 0)));
        report.equal(name, line(number, 1, kind | ext::IRQ_KIND_REPORT_END), (0, 1));
        report.equal("level: taken", stored(&vm, &vcpu), Some((8, intid)));
        // Interrupts of the host may come first.
        let mut exit = run::EXIT_IRQ;
        for _ in 0..1000 {
            exit = vcpu.run();
            if exit != run::EXIT_IRQ || shown(&vcpu).0 != 0 {
                break;
            }
        }
        report.equal("level: the end is an exit", exit, run::EXIT_IRQ);
        report.equal("level: and reported", shown(&vcpu), (1, Some(intid | 1 << 41)));
        report.equal("level: low", line(number, 0, kind), (0, 0));
    }
    report.equal("level: not pending again", stored(&vm, &vcpu), Some((16, 1023)));
    // The last one first: it has no list register, nor is it the first of those that have none.
    for left in [0x3f, 0x1f, 0x0f, 0x07, 0x03, 0x01, 0] {
        report.equal("two steps: active", stored(&vm, &vcpu), Some((24, left)));
    }
    report.equal("two steps: waits", run_on(&vm, &vcpu), run::EXIT_IDLE);
    vm.destroy();
}
