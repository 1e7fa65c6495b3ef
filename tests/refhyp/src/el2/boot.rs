// SPDX-License-Identifier: Apache-2.0
//! The first instructions of each CPU.

use super::cpu::{MAX_CPUS, STACK_SIZE};
use core::arch::global_asm;

/// The boot CPU and the others each get their stack out of this.
#[repr(C, align(4096))]
pub struct Stacks([[u8; STACK_SIZE]; MAX_CPUS]);

#[no_mangle]
static mut STACKS: Stacks = Stacks([[0; STACK_SIZE]; MAX_CPUS]);

// The arm64 Image header (Documentation/arch/arm64/booting.rst) makes QEMU pass the device tree.
// Code at other levels or addresses than expected ends in `wrong_start`, on a stack but without
// anything else.
global_asm!(
    r#"
    .section .text.head, "ax"
    .global image_start
image_start:
    b       1f
    .long   0
    .quad   0               // text offset
    .quad   image_size
    .quad   0x2             // little endian, 4 KiB pages
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

1:  msr     daifset, #0xf
    mov     x19, x0
    adr     x20, image_start
    adrp    x1, {stacks}
    add     x1, x1, :lo12:{stacks}
    add     sp, x1, {stack_size}
    mrs     x1, CurrentEL
    cmp     x1, #8
    b.ne    2f
    ldr     x1, =image_start
    cmp     x1, x20
    b.ne    2f

    ldr     x1, =bss_start
    ldr     x2, =bss_end
3:  stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    3b
    msr     tpidr_el2, xzr
    msr     spsel, #1
    mov     x0, x19
    bl      {main}
2:  bl      {wrong_start}
4:  wfe
    b       4b

    // Secondary CPUs: x0 is their index.
    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    adrp    x1, {stacks}
    add     x1, x1, :lo12:{stacks}
    add     x2, x0, #1
    mov     x3, {stack_size}
    madd    x1, x2, x3, x1
    mov     sp, x1
    msr     tpidr_el2, x0
    bl      {secondary}
5:  wfe
    b       5b
    "#,
    stacks = sym STACKS,
    stack_size = const STACK_SIZE,
    main = sym super::machine::main,
    secondary = sym super::machine::secondary,
    wrong_start = sym super::panic::wrong_start,
);

extern "C" {
    /// Where secondary CPUs start.
    fn secondary_start();
}

/// The physical address where secondary CPUs start.
pub fn secondary_entry() -> u64 {
    // CAST: a function's address, in an identity map.
    secondary_start as *const () as u64
}
