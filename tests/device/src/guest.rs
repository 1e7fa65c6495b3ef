// SPDX-License-Identifier: Apache-2.0
//! Guest programs: a few instructions each, started at EL1 without an MMU, all interrupts masked.
//!
//! Common registers: x20 is [`REPORT`], an address without memory: what a program stores there, the
//! test gets as an MMIO exit. Arguments are in x0 to x7.

/// Frequency of the counter, in Hz.
#[cfg(target_arch = "aarch64")]
pub fn counter_hz() -> u64 {
    let hz: u64;
    // SAFETY: reads a register that Linux lets EL0 read.
    unsafe { std::arch::asm!("mrs {}, cntfrq_el0", out(reg) hz) };
    hz
}

/// Frequency of the counter, in Hz: there is none on this architecture.
#[cfg(not(target_arch = "aarch64"))]
pub fn counter_hz() -> u64 {
    1
}

/// Where programs report to.
pub const REPORT: u64 = 0x0900_0000;
/// Where the test machine has its distributor.
pub const GIC_DIST: u64 = 0x3fff_0000;
/// Where the redistributors of a machine with so many vCPUs begin.
pub const fn gic_redist(vcpus: u64) -> u64 {
    GIC_DIST - 0x2_0000 * vcpus
}

/// Assembler macros that guest programs use, defined around each of them by
/// [`program!`](crate::program). Arguments are numbers of registers.
#[doc(hidden)]
#[macro_export]
macro_rules! gic_macros {
    () => {
        r#"
        // Affinity routing, group 1 enabled.
        .macro gic_distributor dist, tmp
        mov w\tmp, #0x12
        str w\tmp, [x\dist]
        .endm

        // This vCPU's part: redistributor awake; CPU interface by system registers, all
        // priorities, group 1.
        .macro gic_cpu redist, tmp
        ldr w\tmp, [x\redist, #0x14]
        and w\tmp, w\tmp, #0xfffffffd
        str w\tmp, [x\redist, #0x14]
        mov x\tmp, #7
        msr S3_0_C12_C12_5, x\tmp
        isb
        mov x\tmp, #0xff
        msr S3_0_C4_C6_0, x\tmp
        mov x\tmp, #1
        msr S3_0_C12_C12_7, x\tmp
        isb
        .endm

        // An interrupt: group 1, enabled; if it is shared, to vCPU 0. Changes the registers a, b and c.
        .macro gic_interrupt id, dist, redist, a, b, c
        and w\a, w\id, #31
        mov w\b, #1
        lsl w\b, w\b, w\a
        lsr x\a, x\id, #5
        add x\c, x\redist, #0x10, lsl #12
        cbz x\a, .Lgic_private\@
        add x\c, x\dist, #6, lsl #12
        str xzr, [x\c, x\id, lsl #3]
        add x\c, x\dist, x\a, lsl #2
        .Lgic_private\@:
        str w\b, [x\c, #0x80]
        str w\b, [x\c, #0x100]
        dsb sy
        .endm

        // The software-generated interrupt 1, to the vCPUs of a list.
        .macro gic_send list, tmp
        movz x\tmp, #0x0100, lsl #16
        orr x\tmp, x\tmp, x\list
        msr S3_0_C12_C11_5, x\tmp
        isb
        .endm

        // Takes the most urgent interrupt; to the label if there is none.
        .macro gic_take id, tmp, none
        mrs x\id, S3_0_C12_C12_0
        movz x\tmp, #1020
        cmp x\id, x\tmp
        b.hs \none
        .endm

        .macro gic_end id
        msr S3_0_C12_C12_1, x\id
        isb
        .endm
        "#
    };
}

/// Defines a function that answers a guest program.
#[cfg(target_arch = "aarch64")]
#[macro_export]
macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $($line:literal)*) => {
        std::arch::global_asm!(
            $crate::gic_macros!(),
            ".pushsection .rodata.guest",
            ".balign 8",
            // Global, because the function below may be inlined into another object file.
            concat!(".global gzvm_guest_", stringify!($name)),
            concat!(".global gzvm_guest_", stringify!($name), "_end"),
            concat!("gzvm_guest_", stringify!($name), ":"),
            $($line,)*
            concat!("gzvm_guest_", stringify!($name), "_end:"),
            ".popsection",
            // The next program defines them again: which ones share an object file is the
            // compiler's choice.
            ".purgem gic_distributor",
            ".purgem gic_cpu",
            ".purgem gic_interrupt",
            ".purgem gic_send",
            ".purgem gic_take",
            ".purgem gic_end",
        );
        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            let (start, end): (*const u8, *const u8);
            // SAFETY: the two symbols are defined right above; taking their addresses has no effect.
            unsafe {
                std::arch::asm!(
                    concat!("adrp {0}, gzvm_guest_", stringify!($name)),
                    concat!("add {0}, {0}, :lo12:gzvm_guest_", stringify!($name)),
                    concat!("adrp {1}, gzvm_guest_", stringify!($name), "_end"),
                    concat!("add {1}, {1}, :lo12:gzvm_guest_", stringify!($name), "_end"),
                    out(reg) start,
                    out(reg) end,
                );
            }
            // SAFETY: the symbols enclose constant data in one section.
            unsafe { std::slice::from_raw_parts(start, end.offset_from(start) as usize) }
        }
    };
}
/// Defines a function that answers a guest program: an empty one on this architecture.
#[cfg(not(target_arch = "aarch64"))]
#[macro_export]
macro_rules! program {
    ($(#[$doc:meta])* $name:ident, $($line:literal)*) => {
        $(#[$doc])*
        ///
        /// Empty on this architecture.
        pub fn $name() -> &'static [u8] {
            &[]
        }
    };
}

pub use crate::program;

program!(
    /// Does nothing for ever.
    spin,
    "1: b 1b"
);

program!(
    /// Reports x0 and counts it up, for ever.
    count,
    "1: str x0, [x20]"
    "add x0, x0, #1"
    "b 1b"
);

program!(
    /// Reads from the report address and reports the answer, for ever.
    echo,
    "1: ldr x0, [x20]"
    "str x0, [x20, #8]"
    "b 1b"
);

program!(
    /// Reads with all widths, sign extension included, from the report address; reports each value.
    read_widths,
    "ldrb w0, [x20]"
    "str x0, [x20]"
    "ldrh w0, [x20]"
    "str x0, [x20]"
    "ldr w0, [x20]"
    "str x0, [x20]"
    "ldr x0, [x20]"
    "str x0, [x20]"
    "ldrsb x0, [x20]"
    "str x0, [x20]"
    "ldrsw x0, [x20]"
    "str x0, [x20]"
    "1: b 1b"
);

program!(
    /// Reports the registers x0 to x7 as they were at entry.
    report_args,
    "str x0, [x20]"
    "str x1, [x20]"
    "str x2, [x20]"
    "str x3, [x20]"
    "str x4, [x20]"
    "str x5, [x20]"
    "str x6, [x20]"
    "str x7, [x20]"
    "1: b 1b"
);

program!(
    /// Makes the hypercall in x0 to x3 again and again, reporting x0 to x3 each time.
    hypercall,
    "mov x10, x0"
    "mov x11, x1"
    "mov x12, x2"
    "mov x13, x3"
    "1: mov x0, x10"
    "mov x1, x11"
    "mov x2, x12"
    "mov x3, x13"
    "hvc #0"
    "str x0, [x20]"
    "str x1, [x20]"
    "str x2, [x20]"
    "str x3, [x20]"
    "b 1b"
);

program!(
    /// Checks that the first word of each page from x0 to x1, in steps of x2, is its address
    /// exclusive-or x3, and writes its complement into the second word. Reports the number of wrong
    /// pages.
    check_pages,
    "mov x5, #0"
    "1: cmp x0, x1"
    "b.hs 3f"
    "ldr x6, [x0]"
    "eor x7, x0, x3"
    "cmp x6, x7"
    "b.eq 2f"
    "add x5, x5, #1"
    "2: mvn x7, x7"
    "str x7, [x0, #8]"
    "add x0, x0, x2"
    "b 1b"
    "3: str x5, [x20]"
    "4: b 4b"
);

program!(
    /// Writes x1 to the addresses that reads from the report address name, reporting what was there
    /// before.
    poke,
    "1: ldr x0, [x20]"
    "ldr x2, [x0]"
    "str x1, [x0]"
    "str x2, [x20, #8]"
    "b 1b"
);

program!(
    /// Starts the second vCPU by PSCI and reports the answer; then both read from the report address
    /// where to read, and report what is there, for ever. x0: address of this program.
    two_readers,
    "b 1f"
    // Second vCPU, at offset 4: x0 is the context, the report address.
    "mov x20, x0"
    "b 2f"
    // PSCI CPU_ON(mpidr 1, program + 4, report address).
    "1: add x2, x0, #4"
    "movz w0, #0x0003"
    "movk w0, #0xc400, lsl #16"
    "mov x1, #1"
    "mov x3, x20"
    "hvc #0"
    "str x0, [x20]"
    "2: ldr x0, [x20]"
    "ldr x2, [x0]"
    "str x2, [x20, #8]"
    "b 2b"
);

program!(
    /// Counts the first word of each page from x0 to x1, in steps of x2, up, for ever.
    hammer,
    "1: mov x3, x0"
    "2: ldr x4, [x3]"
    "add x4, x4, #1"
    "str x4, [x3]"
    "add x3, x3, x2"
    "cmp x3, x1"
    "b.lo 2b"
    "b 1b"
);

program!(
    /// Waits x0 ticks by the virtual timer in WFI, and reports how many ticks it was.
    sleep,
    "mrs x4, cntvct_el0"
    "add x5, x4, x0"
    "msr cntv_cval_el0, x5"
    "mov x6, #1"
    "msr cntv_ctl_el0, x6"
    "isb"
    "1: wfi"
    "mrs x6, cntv_ctl_el0"
    "tbz x6, #2, 1b"
    "mrs x5, cntvct_el0"
    "sub x5, x5, x4"
    "str x5, [x20]"
    "msr cntv_ctl_el0, xzr"
    "2: b 2b"
);

program!(
    /// Waits for interrupts for ever, with no timer armed; reports that it starts.
    wait,
    "str x0, [x20]"
    "1: wfi"
    "b 1b"
);

program!(
    /// Gives the page at the address that a read from the report address names back to the host,
    /// reports the call's result, then what is at its start and writes x1 there.
    relinquish,
    "mov x10, x1"
    "1: ldr x9, [x20]"
    "movz w0, #0x0009"
    "movk w0, #0xc600, lsl #16"
    "mov x1, x9"
    "mov x2, #0"
    "mov x3, #0"
    "hvc #0"
    "str x0, [x20, #8]"
    "ldr x2, [x9]"
    "str x10, [x9]"
    "str x2, [x20, #16]"
    "b 1b"
);

program!(
    /// Gives the page at the address that a read from the report address names back to the host and
    /// reads from it again; then reports what is at the address that a second read names.
    relinquish_and_read,
    "1: ldr x9, [x20]"
    "movz w0, #0x0009"
    "movk w0, #0xc600, lsl #16"
    "mov x1, x9"
    "mov x2, #0"
    "mov x3, #0"
    "hvc #0"
    "ldr x2, [x9]"
    "ldr x11, [x20]"
    "ldr x2, [x11]"
    "str x2, [x20, #8]"
    "b 1b"
);

program!(
    /// Enables the interrupt x0 (GIC interrupt id) in the GIC with the distributor at x1 and this
    /// vCPU's redistributor at x2, reports 0, then reports the id of each interrupt that comes, after
    /// its end; with x3 not 0 also between acknowledging and ending it. Interrupts stay masked in
    /// PSTATE: they only end WFI, and are taken by acknowledging.
    take_irq,
    "gic_cpu 2, 4"
    "gic_distributor 1, 4"
    "gic_interrupt 0, 1, 2, 5, 6, 7"
    "str xzr, [x20]"
    "1: wfi"
    "gic_take 0, 4, 1b"
    "cbz x3, 2f"
    "str x0, [x20]"
    "2: gic_end 0"
    "str x0, [x20]"
    "b 1b"
);

program!(
    /// Two vCPUs play ping-pong by interrupts: the first hits x0 times. x1: distributor, x2: this
    /// vCPU's redistributor, x3: redistributor of the second, x4: a word for the ball, x5: address
    /// of this program. The first starts the second by PSCI, reports each hundredth hit, and 0xffff
    /// at the end. Each waits in WFI for the other's interrupt and looks at the ball after it.
    ping_pong,
    "b 10f"
    // Second vCPU, at offset 4: x0 is the context, the ball's address; x2 must be found again.
    "mov x4, x0"
    "ldr x2, [x4, #8]"
    "ldr x20, [x4, #16]"
    "mov x21, #1"
    "mov x22, #1"
    "bl 40f"
    "1: ldr x6, [x4]"
    "tbz x6, #0, 2f"
    "add x6, x6, #1"
    "str x6, [x4]"
    "dsb sy"
    "bl 50f"
    "b 1b"
    "2: bl 60f"
    "b 1b"
    // First vCPU.
    "10: mov x21, #0"
    "mov x23, x0"
    "str x3, [x4, #8]"
    "str x20, [x4, #16]"
    "gic_distributor 1, 6"
    "bl 40f"
    "str xzr, [x4]"
    "dsb sy"
    // PSCI CPU_ON(mpidr 1, program + 4, ball).
    "movz w0, #0x0003"
    "movk w0, #0xc400, lsl #16"
    "add x2, x5, #4"
    "mov x1, #1"
    "mov x3, x4"
    "mov x19, x4"
    "hvc #0"
    "mov x4, x19"
    "str x0, [x20]"
    "mov x24, #0"
    "11: ldr x6, [x4]"
    "add x6, x6, #1"
    "str x6, [x4]"
    "dsb sy"
    "bl 50f"
    "12: ldr x6, [x4]"
    "tbz x6, #0, 13f"
    "bl 60f"
    "b 12b"
    "13: add x24, x24, #1"
    "cmp x24, x23"
    "b.lo 11b"
    "movz x6, #0xffff"
    "str x6, [x20]"
    "14: wfi"
    "b 14b"
    // Sets this vCPU's interface up; SGI 1 enabled. x2: redistributor.
    "40: gic_cpu 2, 6"
    "mov x6, #1"
    "gic_interrupt 6, 1, 2, 7, 8, 9"
    "ret"
    // Sends SGI 1 to the other vCPU.
    "50: mov x7, #2"
    "lsr x7, x7, x21"
    "gic_send 7, 6"
    "ret"
    // Waits for an interrupt and takes all that are there.
    "60: wfi"
    "61: gic_take 6, 7, 62f"
    "gic_end 6"
    "b 61b"
    "62: ret"
);
