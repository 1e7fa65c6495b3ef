// SPDX-License-Identifier: Apache-2.0
//! The host's part of the physical GIC, as an operating system sets it up: enough for interrupts to
//! stop guests. The program itself never takes one.

use super::el1::{load32, store32};
use crate::el2::sysreg::{isb, read, write};

const DISTRIBUTOR: u64 = 0x800_0000;
const REDISTRIBUTOR: u64 = 0x80a_0000;
const SGI_FRAME: u64 = 0x1_0000;
/// The host's physical timer.
const TIMER: u32 = 30;

/// Sets up the distributor, the boot CPU's redistributor and its CPU interface.
pub fn init() {
    // Affinity routing, both groups.
    store32(DISTRIBUTOR, 1 << 4 | 0b11);
    // Wake up.
    store32(REDISTRIBUTOR + 0x14, 0);
    while load32(REDISTRIBUTOR + 0x14) & 0b100 != 0 {
        refhyp::lock::relax();
    }
    store32(REDISTRIBUTOR + SGI_FRAME + 0x80, u32::MAX);
    for word in 0..8 {
        store32(REDISTRIBUTOR + SGI_FRAME + 0x400 + word * 4, 0xa0a0_a0a0);
    }
    store32(REDISTRIBUTOR + SGI_FRAME + 0x100, 1 << TIMER);
    write!("S3_0_C4_C6_0", 0xf0); // ICC_PMR_EL1
    write!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
    isb();
}

/// Makes the host's timer fire after some ticks, which stops a guest that runs then.
pub fn tick_after(ticks: u64) {
    write!("cntp_cval_el0", read!("cntpct_el0").wrapping_add(ticks));
    write!("cntp_ctl_el0", 1);
    isb();
}

/// Stops the host's timer.
pub fn no_tick() {
    write!("cntp_ctl_el0", 0);
    isb();
}
