// SPDX-License-Identifier: Apache-2.0
//! What the program at EL1 stands on.

use crate::el2::{console, smc};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

/// Syndrome of the last exception that the program took, and its address.
#[no_mangle]
static SELFTEST_ESR: AtomicU64 = AtomicU64::new(0);

// Every synchronous exception is noted, and the instruction skipped. Interrupts stay masked.
global_asm!(
    r#"
    .section .text.selftest, "ax"
    .balign 2048
    .global selftest_vectors
selftest_vectors:
    .rept 16
    .balign 128
    stp     x0, x1, [sp, #-16]!
    mrs     x0, esr_el1
    adrp    x1, SELFTEST_ESR
    str     x0, [x1, :lo12:SELFTEST_ESR]
    mrs     x0, elr_el1
    add     x0, x0, #4
    msr     elr_el1, x0
    ldp     x0, x1, [sp], #16
    eret
    .endr
    "#
);

extern "C" {
    static selftest_vectors: u8;
}

/// The value of VBAR_EL1.
pub fn vectors() -> u64 {
    // CAST: an address, which is the same in the copy.
    &raw const selftest_vectors as u64
}

/// Calls the hypervisor.
pub fn hvc(function: u64, arguments: &[u64]) -> [u64; 4] {
    let mut x = [0u64; 8];
    x[0] = function;
    x.iter_mut().skip(1).zip(arguments).for_each(|(x, argument)| *x = *argument);
    let [mut x0, mut x1, mut x2, mut x3, x4, x5, x6, x7] = x;
    // SAFETY: SMCCC: only x0 to x17 change. The calls give away pages that hold no Rust object.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            inout("x4") x4 => _, inout("x5") x5 => _, inout("x6") x6 => _, inout("x7") x7 => _,
            out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
            out("x14") _, out("x15") _, out("x16") _, out("x17") _,
        );
    }
    [x0, x1, x2, x3]
}

/// Calls the hypervisor and gives the status only.
pub fn status(function: u32, arguments: &[u64]) -> i32 {
    let [x0, ..] = hvc(u64::from(function), arguments);
    // CAST: the driver reads the low half.
    x0 as i32
}

/// Loads a word from any address: the word, or the syndrome of the exception.
pub fn load(address: u64) -> Result<u64, u64> {
    SELFTEST_ESR.store(0, Ordering::Relaxed);
    let value: u64;
    // SAFETY: a load; if it faults, the exception handler above skips it.
    unsafe { asm!("ldr {0}, [{1}]", inout(reg) 0u64 => value, in(reg) address, options(readonly)) };
    match SELFTEST_ESR.load(Ordering::Relaxed) {
        0 => Ok(value),
        esr => Err(esr),
    }
}

/// Stores a word to any address outside of the program: nothing, or the syndrome.
pub fn store(address: u64, value: u64) -> Result<(), u64> {
    SELFTEST_ESR.store(0, Ordering::Relaxed);
    // SAFETY: the addresses that tests use hold no Rust object; a fault is skipped as above.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address) };
    match SELFTEST_ESR.load(Ordering::Relaxed) {
        0 => Ok(()),
        esr => Err(esr),
    }
}

/// Sets the low half of SIMD register 8.
pub fn set_d8(value: u64) {
    // SAFETY: Rust code here is built for the soft-float target and does not use the register.
    unsafe {
        asm!(".arch_extension fp", "fmov d8, {}", ".arch_extension nofp", in(reg) value);
    }
}

/// The low half of SIMD register 8.
pub fn d8() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe {
        asm!(".arch_extension fp", "fmov {}, d8", ".arch_extension nofp", out(reg) value);
    }
    value
}

/// Counts and prints results as KTAP.
pub struct Report {
    number: u32,
    failed: u32,
}

impl Report {
    /// The start of the output.
    pub fn new() -> Self {
        print(format_args!("KTAP version 1\n"));
        Self { number: 0, failed: 0 }
    }

    /// One result.
    pub fn check(&mut self, name: &str, passed: bool) {
        self.number += 1;
        self.failed += u32::from(!passed);
        let not = if passed { "" } else { "not " };
        print(format_args!("{not}ok {} {name}\n", self.number));
    }

    /// One result: two values that should be equal.
    pub fn equal<T: PartialEq + core::fmt::Debug>(&mut self, name: &str, is: T, expected: T) {
        if is != expected {
            print(format_args!("# {name}: {is:x?}, expected {expected:x?}\n"));
        }
        self.check(name, is == expected);
    }

    /// The end of the output, and of the machine.
    pub fn finish(self) -> ! {
        print(format_args!("1..{}\n", self.number));
        print(format_args!("# selftest: {} failed of {}\n", self.failed, self.number));
        power_off()
    }
}

/// Prints.
pub fn print(arguments: core::fmt::Arguments<'_>) {
    console::emergency(arguments);
}

/// Ends the machine.
pub fn power_off() -> ! {
    smc::call([smc::SYSTEM_OFF, 0, 0, 0]);
    loop {
        refhyp::lock::relax();
    }
}

/// Stores to a device register.
pub fn store32(address: u64, value: u32) {
    // SAFETY: a device's register; the tests' devices write no memory.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Loads from a device register.
pub fn load32(address: u64) -> u32 {
    // SAFETY: as above.
    unsafe { (address as *const u32).read_volatile() }
}
