// SPDX-License-Identifier: Apache-2.0
//! Exception vectors and the switch between EL2 and EL1.
//!
//! There are two vector tables. While the host runs, an exception is a call to
//! [`super::host::exception`] with the host's registers on the stack. While a guest runs, it is the
//! return from [`enter_guest`].

use core::arch::global_asm;
use core::mem::offset_of;
use refhyp::context::{Fp, Regs};

const REGS: usize = size_of::<Regs>();
const PC: usize = offset_of!(Regs, pc);
const FPSR: usize = offset_of!(Fp, fpsr);

const _: () = {
    assert!(offset_of!(Regs, x) == 0 && REGS % 16 == 0);
    assert!(offset_of!(Regs, pstate) == PC + 8);
    assert!(offset_of!(Fp, v) == 0 && offset_of!(Fp, fpcr) == FPSR + 8);
};

global_asm!(
    r#"
    .macro save_x2_to_x30 base
    stp     x2, x3, [\base, #16]
    stp     x4, x5, [\base, #32]
    stp     x6, x7, [\base, #48]
    stp     x8, x9, [\base, #64]
    stp     x10, x11, [\base, #80]
    stp     x12, x13, [\base, #96]
    stp     x14, x15, [\base, #112]
    stp     x16, x17, [\base, #128]
    stp     x18, x19, [\base, #144]
    stp     x20, x21, [\base, #160]
    stp     x22, x23, [\base, #176]
    stp     x24, x25, [\base, #192]
    stp     x26, x27, [\base, #208]
    stp     x28, x29, [\base, #224]
    str     x30, [\base, #240]
    .endm

    .macro load_x2_to_x30 base
    ldp     x2, x3, [\base, #16]
    ldp     x4, x5, [\base, #32]
    ldp     x6, x7, [\base, #48]
    ldp     x8, x9, [\base, #64]
    ldp     x10, x11, [\base, #80]
    ldp     x12, x13, [\base, #96]
    ldp     x14, x15, [\base, #112]
    ldp     x16, x17, [\base, #128]
    ldp     x18, x19, [\base, #144]
    ldp     x20, x21, [\base, #160]
    ldp     x22, x23, [\base, #176]
    ldp     x24, x25, [\base, #192]
    ldp     x26, x27, [\base, #208]
    ldp     x28, x29, [\base, #224]
    ldr     x30, [\base, #240]
    .endm

    .macro own kind
    .balign 128
    mov     x0, #\kind
    b       own_exception_entry
    .endm

    .macro from_host kind
    .balign 128
    sub     sp, sp, #{regs}
    stp     x0, x1, [sp]
    mov     x1, #\kind
    b       host_exception_entry
    .endm

    .macro from_guest kind
    .balign 128
    stp     x0, x1, [sp, #-16]!
    mov     x1, #\kind
    b       guest_exception_entry
    .endm

    .section .text.vectors, "ax"
    .balign 2048
    .global host_vectors
host_vectors:
    own 0
    own 1
    own 2
    own 3
    own 4
    own 5
    own 6
    own 7
    from_host 0
    from_host 1
    from_host 2
    from_host 3
    own 12
    own 13
    own 14
    own 15

    .balign 2048
    .global guest_vectors
guest_vectors:
    own 0
    own 1
    own 2
    own 3
    own 4
    own 5
    own 6
    own 7
    from_guest 0
    from_guest 1
    from_guest 2
    from_guest 3
    own 12
    own 13
    own 14
    own 15

own_exception_entry:
    bl      {own_exception}

host_exception_entry:
    save_x2_to_x30 sp
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [sp, #{pc}]
    mov     x0, sp
    bl      {host_exception}
    mov     x0, sp
    // Falls through: goes on with the registers at x0, and frees that part of the stack.

    .global resume_host
resume_host:
    ldp     x2, x3, [x0, #{pc}]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    load_x2_to_x30 x0
    add     sp, x0, #{regs}
    ldp     x0, x1, [x0]
    eret
    dsb     nsh
    isb

    // u64 enter_guest(Regs *x0): runs the guest until an exception, whose kind is the result.
    .global enter_guest
enter_guest:
    sub     sp, sp, #112
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     x29, x30, [sp, #96]
    str     x0, [sp]
    ldp     x2, x3, [x0, #{pc}]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    load_x2_to_x30 x0
    ldp     x0, x1, [x0]
    eret
    dsb     nsh
    isb

guest_exception_entry:
    // On the stack: the guest's x0 and x1, then the pointer to its registers.
    ldr     x0, [sp, #16]
    save_x2_to_x30 x0
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #{pc}]
    mov     x0, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp, #96]
    add     sp, sp, #112
    ret

    // Code at EL2 does not use these registers: it is built for the soft-float target.
    .arch_extension fp
    .arch_extension simd

    // void fp_save(Fp *x0)
    .global fp_save
fp_save:
    stp     q0, q1, [x0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x0, #64]
    stp     q6, q7, [x0, #96]
    stp     q8, q9, [x0, #128]
    stp     q10, q11, [x0, #160]
    stp     q12, q13, [x0, #192]
    stp     q14, q15, [x0, #224]
    stp     q16, q17, [x0, #256]
    stp     q18, q19, [x0, #288]
    stp     q20, q21, [x0, #320]
    stp     q22, q23, [x0, #352]
    stp     q24, q25, [x0, #384]
    stp     q26, q27, [x0, #416]
    stp     q28, q29, [x0, #448]
    stp     q30, q31, [x0, #480]
    mrs     x1, fpsr
    mrs     x2, fpcr
    str     x1, [x0, #{fpsr}]
    str     x2, [x0, #{fpsr} + 8]
    ret

    // void fp_load(const Fp *x0)
    .global fp_load
fp_load:
    ldp     q0, q1, [x0]
    ldp     q2, q3, [x0, #32]
    ldp     q4, q5, [x0, #64]
    ldp     q6, q7, [x0, #96]
    ldp     q8, q9, [x0, #128]
    ldp     q10, q11, [x0, #160]
    ldp     q12, q13, [x0, #192]
    ldp     q14, q15, [x0, #224]
    ldp     q16, q17, [x0, #256]
    ldp     q18, q19, [x0, #288]
    ldp     q20, q21, [x0, #320]
    ldp     q22, q23, [x0, #352]
    ldp     q24, q25, [x0, #384]
    ldp     q26, q27, [x0, #416]
    ldp     q28, q29, [x0, #448]
    ldp     q30, q31, [x0, #480]
    ldr     x1, [x0, #{fpsr}]
    ldr     x2, [x0, #{fpsr} + 8]
    msr     fpsr, x1
    msr     fpcr, x2
    ret
    .arch_extension nosimd
    .arch_extension nofp
    "#,
    regs = const REGS,
    pc = const PC,
    fpsr = const FPSR,
    own_exception = sym super::panic::own_exception,
    host_exception = sym super::host::exception,
);

extern "C" {
    static host_vectors: u8;
    static guest_vectors: u8;
    fn resume_host(regs: *const Regs) -> !;
    fn enter_guest(regs: *mut Regs) -> u64;
    fn fp_save(fp: *mut Fp);
    fn fp_load(fp: *const Fp);
}

/// Why a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A synchronous exception; ESR_EL2 says which.
    Sync,
    /// A physical interrupt.
    Irq,
    /// A system error.
    SError,
}

/// The value of VBAR_EL2 while the host runs.
pub fn host_table() -> u64 {
    // CAST: an address, in an identity map.
    &raw const host_vectors as u64
}

/// The value of VBAR_EL2 while a guest runs.
pub fn guest_table() -> u64 {
    // CAST: an address, in an identity map.
    &raw const guest_vectors as u64
}

/// Starts the host with these registers. The stack below is given up.
pub fn start_host(regs: &Regs) -> ! {
    // SAFETY: `regs` is on this CPU's stack, above what the host's exceptions will use: their
    // frames grow down from its end. Everything else at EL2 stays as the host vectors expect.
    unsafe { resume_host(regs) }
}

/// Runs a guest with these registers until an exception. VBAR_EL2 is [`guest_table`]'s.
pub fn run(regs: &mut Regs) -> Exit {
    // SAFETY: the guest runs at EL1 or EL0 (`Regs::pstate` never names EL2, see `context.rs`)
    // behind its stage 2; registers that Rust expects preserved are put back.
    match unsafe { enter_guest(regs) } {
        0 => Exit::Sync,
        3 => Exit::SError,
        _ => Exit::Irq,
    }
}

/// Saves the FP and SIMD registers.
pub fn save_fp(fp: &mut Fp) {
    // SAFETY: writes exactly an `Fp`.
    unsafe { fp_save(fp) }
}

/// Loads the FP and SIMD registers, which code at EL2 does not use.
pub fn load_fp(fp: &Fp) {
    // SAFETY: reads exactly an `Fp`.
    unsafe { fp_load(fp) }
}
