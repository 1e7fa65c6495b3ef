// SPDX-License-Identifier: Apache-2.0
//! Guest programs for benchmarks, in the manner of [`gzvm_device_test::guest`]: x20 is the report
//! address, arguments are in x0 to x7. Marks are those of [`crate::window`].

use gzvm_device_test::program;

program!(
    /// Writes x0 times 4 bytes to x1, reports, and again.
    write_burst,
    "1: mov x3, x0"
    "2: str w2, [x1]"
    "subs x3, x3, #1"
    "b.ne 2b"
    "str x0, [x20]"
    "b 1b"
);

program!(
    /// Reads x0 times 4 bytes from x1, reports, and again.
    read_burst,
    "1: mov x3, x0"
    "2: ldr w2, [x1]"
    "subs x3, x3, #1"
    "b.ne 2b"
    "str x0, [x20]"
    "b 1b"
);

program!(
    /// Asks x0 times for the version of PSCI, which the hypervisor answers; reports, and again.
    call_burst,
    "mov x4, x0"
    "1: mov x5, x4"
    "2: movz w0, #0x8400, lsl #16"
    "hvc #0"
    "subs x5, x5, #1"
    "b.ne 2b"
    "str x4, [x20]"
    "b 1b"
);

program!(
    /// Reads a word at each step of x2 from x0 to x1 and reports.
    touch,
    "1: ldr x3, [x0]"
    "add x0, x0, x2"
    "cmp x0, x1"
    "b.lo 1b"
    "2: str x0, [x20]"
    "b 2b"
);

program!(
    /// Serves the shared interrupt x0 (GIC id, below 64): x1 is the distributor, x2 this vCPU's
    /// redistributor, x5 a doorbell that is rung after the end of each. Waits in WFI, or with x6 not
    /// 0 without leaving the CPU. Ends counting when it sees the interrupt.
    serve,
    "gic_cpu 2, 4"
    "gic_distributor 1, 4"
    "gic_interrupt 0, 1, 2, 7, 8, 9"
    // Edge-triggered.
    "mov w9, #0xaaaaaaaa"
    "str w9, [x1, #0xc08]"
    "str w9, [x1, #0xc0c]"
    "dsb sy"
    "str xzr, [x20]"
    "1: cbnz x6, 2f"
    "wfi"
    "b 3f"
    "2: yield"
    "3: gic_take 0, 4, 1b"
    "isb"
    "hint #0x73"
    "isb"
    "gic_end 0"
    "str w0, [x5]"
    "b 1b"
);

program!(
    /// Two vCPUs hand an SGI to and fro, as in [`gzvm_device_test::guest::ping_pong`]. x0: rounds, x1:
    /// distributor, x2: redistributors, x4: four words, x5: address of this program, x6: not 0 to wait
    /// without leaving the CPU, x7: not 0 to end counting at the sender. Reports when both are ready and
    /// after each x0 rounds. Counting begins before the first sends an SGI, and ends when it was sent
    /// or where it is seen.
    volley,
    "b 10f"
    // Second vCPU, at offset 4: x0 is the context.
    "mov x4, x0"
    "ldr x2, [x4, #8]"
    "ldp x6, x7, [x4, #16]"
    "bl 40f"
    "mov x8, #1"
    "str x8, [x4]"
    "dsb sy"
    "mov x21, #1"
    "1: bl 60f"
    "bl 50f"
    "b 1b"
    // First vCPU.
    "10: mov x23, x0"
    "gic_distributor 1, 8"
    "add x8, x2, #0x20, lsl #12"
    "str xzr, [x4]"
    "str x8, [x4, #8]"
    "stp x6, x7, [x4, #16]"
    "bl 40f"
    "dsb sy"
    "mov x19, x4"
    "mov x24, x5"
    "mov x25, x6"
    "mov x26, x7"
    // PSCI CPU_ON(mpidr 1, program + 4, words).
    "movz w0, #0x0003"
    "movk w0, #0xc400, lsl #16"
    "mov x1, #1"
    "add x2, x24, #4"
    "mov x3, x19"
    "hvc #0"
    "mov x4, x19"
    "mov x6, x25"
    "mov x7, x26"
    "mov x21, #2"
    "11: yield"
    "ldr x8, [x4]"
    "cbz x8, 11b"
    "12: str x23, [x20]"
    "mov x27, x23"
    "13: bl 50f"
    "bl 60f"
    "subs x27, x27, #1"
    "b.ne 13b"
    "b 12b"
    // This vCPU's interface: SGI 1.
    "40: gic_cpu 2, 8"
    "mov x8, #1"
    "gic_interrupt 8, 1, 2, 9, 10, 11"
    "ret"
    // Sends SGI 1 to the vCPUs in the list x21.
    "50: cmp x21, #1"
    "b.eq 52f"
    "isb"
    "hint #0x72"
    "isb"
    "52: gic_send 21, 8"
    "cbz x7, 51f"
    "isb"
    "hint #0x73"
    "isb"
    "51: ret"
    // Waits for an SGI and ends it.
    "60: cbnz x6, 61f"
    "wfi"
    "b 62f"
    "61: yield"
    "62: gic_take 8, 9, 60b"
    "cbnz x7, 63f"
    "isb"
    "hint #0x73"
    "isb"
    "63: gic_end 8"
    "ret"
);

program!(
    /// Starts all vCPUs (x0 of them, this program at x5, a word of memory at x4); then each reads an
    /// order of five words from the report address and the words behind it: so many writes to that
    /// address, then reads from there to there in such steps. Reports, and again.
    orders,
    "b 10f"
    // Others, at offset 4: x0 is the context.
    "ldr x20, [x0]"
    "b 20f"
    "10: str x20, [x4]"
    "mov x21, x0"
    "mov x22, #1"
    "add x23, x5, #4"
    "mov x24, x4"
    "11: cmp x22, x21"
    "b.hs 20f"
    // PSCI CPU_ON(mpidr, program + 4, word).
    "movz w0, #0x0003"
    "movk w0, #0xc400, lsl #16"
    "mov x1, x22"
    "mov x2, x23"
    "mov x3, x24"
    "hvc #0"
    "add x22, x22, #1"
    "b 11b"
    "20: ldr x10, [x20]"
    "ldr x11, [x20, #8]"
    "ldr x12, [x20, #16]"
    "ldr x13, [x20, #24]"
    "ldr x14, [x20, #32]"
    "21: cbz x10, 22f"
    "str w10, [x11]"
    "sub x10, x10, #1"
    "b 21b"
    "22: cmp x12, x13"
    "b.hs 23f"
    "ldr x9, [x12]"
    "add x12, x12, x14"
    "b 22b"
    "23: str x0, [x20]"
    "b 20b"
);

program!(
    /// Waits x0 ticks by the virtual timer in WFI, for ever; reports that it starts.
    ticker,
    "str x0, [x20]"
    "1: mrs x4, cntvct_el0"
    "add x5, x4, x0"
    "msr cntv_cval_el0, x5"
    "mov x6, #1"
    "msr cntv_ctl_el0, x6"
    "isb"
    "2: wfi"
    "mrs x6, cntv_ctl_el0"
    "tbz x6, #2, 2b"
    "b 1b"
);

program!(
    /// Starts all vCPUs (x0 of them, this program at x5, two words of memory at x4); then neighbours
    /// hand an SGI to and fro, waiting in WFI. x2: redistributors. Each reads from the report address
    /// how often, does it, reports, and again.
    rallies,
    "b 10f"
    // Others, at offset 4: x0 is the context.
    "mov x4, x0"
    "ldp x20, x2, [x4]"
    "b 20f"
    "10: stp x20, x2, [x4]"
    "gic_distributor 1, 8"
    "dsb sy"
    "mov x21, x0"
    "mov x22, #1"
    "add x23, x5, #4"
    "mov x24, x4"
    "mov x25, x2"
    "11: cmp x22, x21"
    "b.hs 12f"
    // PSCI CPU_ON(mpidr, program + 4, words).
    "movz w0, #0x0003"
    "movk w0, #0xc400, lsl #16"
    "mov x1, x22"
    "mov x2, x23"
    "mov x3, x24"
    "hvc #0"
    "add x22, x22, #1"
    "b 11b"
    "12: mov x2, x25"
    // This vCPU's number, its redistributor, its neighbour's bit in a list.
    "20: mrs x6, mpidr_el1"
    "and x6, x6, #0xff"
    "add x2, x2, x6, lsl #17"
    "eor x7, x6, #1"
    "mov x8, #1"
    "lsl x21, x8, x7"
    "gic_cpu 2, 8"
    "mov x8, #1"
    "gic_interrupt 8, 1, 2, 9, 10, 11"
    "30: ldr x10, [x20]"
    "tbnz x6, #0, 40f"
    // The first of a pair serves.
    "31: gic_send 21, 8"
    "bl 50f"
    "sub x10, x10, #1"
    "cbnz x10, 31b"
    "b 45f"
    "40: bl 50f"
    "gic_send 21, 8"
    "sub x10, x10, #1"
    "cbnz x10, 40b"
    "45: str x0, [x20]"
    "b 30b"
    // Waits for an SGI and ends it.
    "50: gic_take 8, 9, 51f"
    "gic_end 8"
    "ret"
    "51: wfi"
    "b 50b"
);
