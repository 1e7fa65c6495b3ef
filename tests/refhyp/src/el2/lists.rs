// SPDX-License-Identifier: Apache-2.0
//! The hardware's list registers and the rest of the virtual CPU interface (IHI 0069H 12.4).

use super::sysreg::{isb, read, write};
use refhyp::vgic::{Lists, MAX_LISTS};
use refhyp::vm::CpuInterface;

/// ICH_HCR_EL2: the interface is on.
const ENABLE: u64 = 1;
/// ICH_HCR_EL2: stop the guest when at most one list register is still in use.
const UNDERFLOW: u64 = 1 << 1;
/// ICH_HCR_EL2: stop the guest when it ended an interrupt that had no list register.
const UNLISTED_END: u64 = 1 << 2;
/// ICH_HCR_EL2: stop the guest when no list register is pending.
const NONE_PENDING: u64 = 1 << 3;
/// ICH_HCR_EL2: the guest's deactivations trap.
const TRAP_DEACTIVATION: u64 = 1 << 14;
/// ICH_VTR_EL2: that is possible.
const CAN_TRAP_DEACTIVATION: u64 = 1 << 19;
/// ICH_VMCR_EL2: the guest ends interrupts in two steps, the second being a deactivation.
const TWO_STEPS: u64 = 1 << 9;

/// Calls `$with` with the index and name of each list register.
macro_rules! list_registers {
    ($with:ident) => {
        $with!(
            0 "S3_4_C12_C12_0", 1 "S3_4_C12_C12_1", 2 "S3_4_C12_C12_2", 3 "S3_4_C12_C12_3",
            4 "S3_4_C12_C12_4", 5 "S3_4_C12_C12_5", 6 "S3_4_C12_C12_6", 7 "S3_4_C12_C12_7",
            8 "S3_4_C12_C13_0", 9 "S3_4_C12_C13_1", 10 "S3_4_C12_C13_2", 11 "S3_4_C12_C13_3",
            12 "S3_4_C12_C13_4", 13 "S3_4_C12_C13_5", 14 "S3_4_C12_C13_6", 15 "S3_4_C12_C13_7"
        )
    };
}

fn write_one(index: usize, value: u64) {
    macro_rules! arms {
        ($($i:literal $name:literal),*) => {
            match index { $($i => write!($name, value),)* _ => () }
        };
    }
    list_registers!(arms);
}

fn read_one(index: usize) -> u64 {
    macro_rules! arms {
        ($($i:literal $name:literal),*) => {
            match index { $($i => read!($name),)* _ => 0 }
        };
    }
    list_registers!(arms)
}

/// How many list registers there are.
pub fn count() -> usize {
    // CAST: five bits.
    ((read!("S3_4_C12_C11_1") & 0x1f) as usize + 1).min(MAX_LISTS)
}

/// Puts interrupts into the hardware and turns the interface on.
///
/// The hardware counts ends of interrupts that it has no list register for, and they come most
/// urgent first; but deactivations come in any order, so they have to say which one they mean.
pub fn write(lists: &Lists) {
    for (index, lr) in lists.lr.iter().enumerate().take(count()) {
        write_one(index, if index < lists.used { *lr } else { 0 });
    }
    let more = if lists.overflow { UNDERFLOW | UNLISTED_END } else { 0 };
    let next = if lists.more_pending { NONE_PENDING } else { 0 };
    let can_trap = read!("S3_4_C12_C11_1") & CAN_TRAP_DEACTIVATION != 0;
    let two_steps = read!("S3_4_C12_C11_7") & TWO_STEPS != 0;
    let trap = if can_trap && two_steps { TRAP_DEACTIVATION } else { 0 };
    write!("S3_4_C12_C11_0", ENABLE | more | next | trap);
}

/// Takes interrupts back from the hardware and turns the interface off; returns how many
/// interrupts without a list register were ended, as far as that did not trap.
pub fn read(lists: &mut Lists) -> u64 {
    let control = read!("S3_4_C12_C11_0");
    for (index, lr) in lists.lr.iter_mut().enumerate().take(lists.used) {
        *lr = read_one(index);
    }
    write!("S3_4_C12_C11_0", 0);
    isb();
    match control & TRAP_DEACTIVATION {
        0 => control >> 27 & 0x1f,
        _ => 0,
    }
}

/// Loads a vCPU's priorities and masks.
pub fn load(interface: &CpuInterface) {
    write!("S3_4_C12_C11_7", interface.vmcr);
    write!("S3_4_C12_C8_0", interface.ap0r);
    write!("S3_4_C12_C9_0", interface.ap1r);
}

/// Saves a vCPU's priorities and masks.
pub fn save(interface: &mut CpuInterface) {
    interface.vmcr = read!("S3_4_C12_C11_7");
    interface.ap0r = read!("S3_4_C12_C8_0");
    interface.ap1r = read!("S3_4_C12_C9_0");
}
