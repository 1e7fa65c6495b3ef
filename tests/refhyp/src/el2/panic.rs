// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's death.

use super::{console, smc};
use core::panic::PanicInfo;

/// A panic ends the machine: nobody is left to keep guests and host apart.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::dump_log();
    console::emergency(format_args!("refhyp: panic on CPU {}: {info}\n", super::cpu::current()));
    die()
}

/// An exception that EL2 itself took: a defect of the hypervisor.
pub extern "C" fn own_exception(kind: u64) -> ! {
    let (esr, elr, far) = (
        super::sysreg::read!("esr_el2"),
        super::sysreg::read!("elr_el2"),
        super::sysreg::read!("far_el2"),
    );
    panic!("exception {kind} at EL2: esr {esr:#x} elr {elr:#x} far {far:#x}");
}

/// The image was started at the wrong exception level or address.
pub extern "C" fn wrong_start() -> ! {
    console::emergency(format_args!(
        "refhyp: not started at EL2 or not at its address; start it as the kernel of \
         `qemu-system-aarch64 -M virt,virtualization=on,gic-version=3`\n"
    ));
    loop {
        refhyp::lock::relax();
    }
}

/// Ends the machine.
pub fn die() -> ! {
    // A reset, not a power-off: whoever watches must not take this for a clean end.
    smc::call([smc::SYSTEM_RESET, 0, 0, 0]);
    loop {
        refhyp::lock::relax();
    }
}
