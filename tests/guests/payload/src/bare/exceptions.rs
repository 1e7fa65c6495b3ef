// SPDX-License-Identifier: Apache-2.0
//! What ends a run early: exceptions and panics. Both say why and reset the VM.

use super::console::Console;
use super::stop;
use aarch64_rt::{exception_handlers, ExceptionHandlers, RegisterStateRef};
use arm_sysregs::el1::accessors::{read_esr_el1, read_far_el1};
use core::fmt::Write;
use core::panic::PanicInfo;

exception_handlers!(Exceptions);

/// Handlers of exceptions taken at EL1. Interrupts stay masked: the payload waits for them with
/// `wfi` and takes them from the GIC itself.
struct Exceptions;

impl ExceptionHandlers for Exceptions {
    extern "C" fn sync_current(state: RegisterStateRef<'_>) {
        let (syndrome, address) = (read_esr_el1().bits(), read_far_el1().bits());
        panic!("exception at {:#x}: ESR {syndrome:#x}, FAR {address:#x}", state.elr);
    }

    extern "C" fn serror_current(state: RegisterStateRef<'_>) {
        panic!("SError at {:#x}: ESR {:#x}", state.elr, read_esr_el1().bits());
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if let Some(mut console) = Console::take_over() {
        let _ = writeln!(console, "\r\npayload: PANIC: {info}\r");
    }
    let _ = smccc::psci::system_reset::<smccc::Hvc>();
    stop()
}
