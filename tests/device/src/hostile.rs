// SPDX-License-Identifier: Apache-2.0
//! Guest programs that mean harm; conventions as in [`crate::guest`].

use crate::guest::program;

program!(
    /// Makes x1 hypercalls: x0 to x7 of each are in a table at x0, 64 bytes a call, and its results
    /// x0 to x3 go there. Reports 0 at the end.
    call_table,
    "mov x10, x0"
    "mov x11, x1"
    "1: cbz x11, 2f"
    "ldp x0, x1, [x10]"
    "ldp x2, x3, [x10, #16]"
    "ldp x4, x5, [x10, #32]"
    "ldp x6, x7, [x10, #48]"
    "hvc #0"
    "stp x0, x1, [x10]"
    "stp x2, x3, [x10, #16]"
    "add x10, x10, #64"
    "sub x11, x11, #1"
    "b 1b"
    "2: str x11, [x20]"
    "3: b 3b"
);

program!(
    /// Gives all pages from x0 to x1 back to the host, its own code among them, and again.
    give_everything_back,
    "mov x10, x0"
    "mov x11, x1"
    "1: mov x9, x11"
    "2: sub x9, x9, #0x1000"
    "movz w0, #0x0009"
    "movk w0, #0xc600, lsl #16"
    "mov x1, x9"
    "mov x2, #0"
    "mov x3, #0"
    "hvc #0"
    "cmp x9, x10"
    "b.hi 2b"
    "b 1b"
);

program!(
    /// Pushes a pair of registers to a stack at x0.
    push,
    "mov sp, x0"
    "stp x1, x2, [sp, #-16]!"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Loads a pair of registers from x0.
    load_pair,
    "ldp x1, x2, [x0]"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Stores to x0 with a change of the base register.
    store_and_step,
    "str x1, [x0], #8"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Stores to x0 exclusively.
    store_exclusive,
    "ldxr x1, [x0]"
    "stxr w2, x1, [x0]"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Has the cache zero and clean what is at x0.
    maintain,
    "dc civac, x0"
    "dc ivac, x0"
    "dc cvau, x0"
    "ic ivau, x0"
    "dc isw, xzr"
    "dc zva, x0"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Goes on at x0.
    jump,
    "br x0"
);

program!(
    /// Goes on in AArch32 state at EL0, which no guest is offered but its CPU may have, and is busy
    /// there for ever.
    enter_aarch32,
    "mov x1, #0x10"
    "msr spsr_el1, x1"
    "adr x1, 1f"
    "msr elr_el1, x1"
    "eret"
    // A32: a branch to itself.
    "1: .inst 0xeafffffe"
);

program!(
    /// Turns its MMU on with tables at x0.
    walk,
    "msr ttbr0_el1, x0"
    // 48-bit addresses, 4 KiB pages, 40-bit output.
    "movz x1, #0x3510"
    "movk x1, #0x2, lsl #32"
    "msr tcr_el1, x1"
    "isb"
    "mrs x1, sctlr_el1"
    "orr x1, x1, #1"
    "msr sctlr_el1, x1"
    "isb"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// With x2 = 1 lets only accesses to the report address reach the host (MMIO guard); then loads
    /// and stores at x1 in some ways, and reports 0x600d. Exceptions go to the vectors at x0.
    guard_itself,
    "msr vbar_el1, x0"
    "isb"
    "mov x11, x1"
    "mov x12, x2"
    "cbz x12, 1f"
    "movz w0, #0x0007"
    "movk w0, #0xc600, lsl #16"
    "mov x1, x20"
    "mov x2, #0"
    "mov x3, #0"
    "hvc #0"
    "movz w0, #0x0006"
    "movk w0, #0xc600, lsl #16"
    "mov x1, #0"
    "hvc #0"
    "1: ldr x5, [x11]"
    "str x5, [x11]"
    "ldrb w5, [x11, #1]"
    "ldp x5, x6, [x11]"
    "stp x5, x6, [x11, #-16]!"
    "movz x0, #0x600d"
    "str x0, [x20]"
    "2: b 2b"
);

program!(
    /// Vectors whose handler for its own exceptions reports ESR_EL1 and skips the instruction. Must
    /// lie at a multiple of 2 KiB.
    vectors,
    ".space 0x200"
    "mrs x28, esr_el1"
    "str x28, [x20]"
    "mrs x28, elr_el1"
    "add x28, x28, #4"
    "msr elr_el1, x28"
    "eret"
);
