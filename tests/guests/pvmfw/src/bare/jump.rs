// SPDX-License-Identifier: Apache-2.0
//! The way out: MMU and caches off, as the arm64 boot protocol wants it, and into the payload.

use core::arch::asm;

/// SCTLR_EL1: the bits that are one in every implementation (Arm ARM D19.2.118), with MMU, data and
/// instruction cache off.
const SCTLR_OFF: u64 = 0x30d0_0980;
/// Bytes of a cache line; the smallest that there is does for all.
const LINE: usize = 16;

/// Starts what is at `entry` with the device tree's address in x0 and nothing else in registers.
pub(super) fn jump(entry: u64, tree: &[u8]) -> ! {
    let range = tree.as_ptr_range();
    // SAFETY: Cleaning cache lines by address changes no memory contents; the addresses are the
    // tree's.
    unsafe {
        asm!(
            "0: dc cvac, {at}",
            "add {at}, {at}, {line}",
            "cmp {at}, {end}",
            "b.lo 0b",
            "dsb sy",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            line = const LINE,
            options(nostack),
        );
    }
    // SAFETY: The firmware's page table maps its own code to the same addresses, so it goes on
    // without it. Nothing of the firmware is used afterwards.
    unsafe {
        asm!(
            "msr sctlr_el1, x9",
            "isb",
            "tlbi vmalle1",
            "ic iallu",
            "dsb sy",
            "isb",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, xzr",
            "br x8",
            in("x9") SCTLR_OFF,
            in("x8") entry,
            in("x0") range.start,
            options(noreturn),
        )
    }
}
