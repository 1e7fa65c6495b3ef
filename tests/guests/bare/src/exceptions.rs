// SPDX-License-Identifier: Apache-2.0
//! What ends a run early: exceptions and panics. Both say why and reset the VM.

use crate::console::Console;
use crate::stop;
use arm_sysregs::el1::accessors::{read_esr_el1, read_far_el1};
use core::fmt::Write;
use core::panic::PanicInfo;

/// A synchronous exception taken at EL1, at the address `elr`.
pub fn synchronous(elr: usize) -> ! {
    let (syndrome, address) = (read_esr_el1().bits(), read_far_el1().bits());
    panic!("exception at {elr:#x}: ESR {syndrome:#x}, FAR {address:#x}");
}

/// An SError taken at EL1, at the address `elr`.
pub fn serror(elr: usize) -> ! {
    panic!("SError at {elr:#x}: ESR {:#x}", read_esr_el1().bits());
}

/// Says why the program named `name` ends, and resets the VM.
pub fn die(name: &str, info: &PanicInfo<'_>) -> ! {
    if let Some(mut console) = Console::take_over() {
        let _ = writeln!(console, "\r\n{name}: PANIC: {info}\r");
    }
    reset()
}

/// Resets the VM.
pub fn reset() -> ! {
    let _ = smccc::psci::system_reset::<smccc::Hvc>();
    stop()
}

/// Turns the VM off.
pub fn power_off() -> ! {
    let _ = smccc::psci::system_off::<smccc::Hvc>();
    stop()
}
