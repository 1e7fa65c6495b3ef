// SPDX-License-Identifier: Apache-2.0
//! Small guests: a few instructions that do one thing each and say so by storing to an address
//! without memory.

use super::el1::{d8, load, set_d8, status, Report};
use super::vmm::{audit, fill, Vcpu, Vm, BACKING, GUEST_BASE};
use core::arch::global_asm;
use gzvm_abi::run::{self, Event, Exception, Hypercall, Mmio, EXCEPTION_PAGE_FAULT};
use gzvm_abi::{guest, hvc, reg};

global_asm!(
    r#"
    .section .rodata.selftest_guests, "a"
    .balign 8
    // Loads, stores, a SIMD register, calls, power-off. x19: 0x10000000, where no memory is.
    .global guest_plain
guest_plain:
    mov     x1, #0x300000
    msr     cpacr_el1, x1           // SIMD does not trap
    isb
    mov     x19, #0x10000000
    mov     x1, #0x1234
    str     w1, [x19]
    ldrsb   x2, [x19, #8]
    str     x2, [x19, #16]
    .arch_extension fp
    fmov    d8, x2
    .arch_extension nofp
    movz    w0, #0xff01
    movk    w0, #0x8600, lsl #16
    hvc     #0
    str     w0, [x19, #24]
    mov     x20, #0x80000000
    add     x20, x20, #0x8000
    mov     x1, #0x55
    str     x1, [x20]
    movz    w0, #1
    movk    w0, #0x8600, lsl #16
    mov     x1, #0
    hvc     #0
    str     x3, [x19, #32]
    movz    w0, #0x0008
    movk    w0, #0x8400, lsl #16
    hvc     #0
1:  b       1b
    .global guest_plain_end
guest_plain_end:

    .balign 2048                    // as its vectors
    // Writes a secret to its second page, shares and hides its third page, relinquishes it.
    .global guest_private
guest_private:
    mov     x19, #0x10000000
    mov     x20, #0x80000000
    add     x20, x20, #0x1000
    movz    x21, #0x5ec7
    movk    x21, #0x5ec7, lsl #32
    str     x21, [x20]
    str     wzr, [x19]              // 1: the secret is there
    ldr     x1, [x20]
    str     x1, [x19, #8]           // 2: still there
    add     x22, x20, #0x1000
    str     x21, [x22]
    movz    w0, #0x0003
    movk    w0, #0xc600, lsl #16
    mov     x1, x22
    hvc     #0
    str     x0, [x19, #16]          // 3: shared
    movz    w0, #0x0004
    movk    w0, #0xc600, lsl #16
    mov     x1, x22
    hvc     #0
    str     x0, [x19, #24]          // 4: hidden
    movz    w0, #0x0009
    movk    w0, #0xc600, lsl #16
    mov     x1, x22
    mov     x2, #0
    mov     x3, #0
    hvc     #0                      // 5: relinquished
    str     x0, [x19, #32]          // 6
    movz    w0, #0x0006
    movk    w0, #0xc600, lsl #16
    hvc     #0
    adr     x1, 2f
    msr     vbar_el1, x1
    movz    w0, #0x0007
    movk    w0, #0xc600, lsl #16
    mov     x1, x19
    hvc     #0
    str     x0, [x19, #40]          // 7: allowed by the guard
    add     x19, x19, #0x10000
    str     x0, [x19]               // not allowed: an abort of its own
1:  b       1b
    .balign 2048
2:  .space  0x200
    movz    w0, #0x0009
    movk    w0, #0x8400, lsl #16
    hvc     #0                      // 8: reset
    .global guest_private_end
guest_private_end:

    .balign 8
    // Starts its second vCPU, interrupts it, waits for SPI 3 and for its timer.
    .global guest_interrupts
guest_interrupts:
    mov     x19, #0x10000000
    mov     x18, #0x3fff0000
    mov     w0, #2
    str     w0, [x18]               // group 1 on
    mov     w0, #-1
    str     w0, [x18, #0x84]
    str     w0, [x18, #0x104]
    mov     x18, #0x3ffb0000
    add     x17, x18, #0x10000
    str     w0, [x17, #0x80]
    str     w0, [x17, #0x100]
    mov     x1, #0xf0
    msr     S3_0_C4_C6_0, x1        // ICC_PMR_EL1
    mov     x1, #1
    msr     S3_0_C12_C12_7, x1      // ICC_IGRPEN1_EL1
    isb
    movz    w0, #0x0003
    movk    w0, #0xc400, lsl #16
    mov     x1, #1
    adr     x2, guest_second
    mov     x3, #0x77
    hvc     #0                      // 1: IPI
    str     x0, [x19]               // 2
    mov     x1, #2
    movk    x1, #0x0500, lsl #16
    msr     S3_0_C12_C11_5, x1      // 3: SGI 5 to vCPU 1: IPI
    isb
    wfi                             // 4: IDLE; then SPI 3
    mrs     x1, S3_0_C12_C12_0      // ICC_IAR1_EL1
    str     x1, [x19, #8]           // 5
    msr     S3_0_C12_C12_1, x1      // ICC_EOIR1_EL1
    mrs     x1, cntvct_el0
    add     x1, x1, #0x4000
    msr     cntv_cval_el0, x1
    mov     x1, #1
    msr     cntv_ctl_el0, x1
    isb
3:  wfi                             // 6: IDLE, perhaps
    mrs     x1, S3_0_C12_C12_0
    cmp     x1, #27
    b.ne    3b
    str     x1, [x19, #16]          // 7
    msr     cntv_ctl_el0, xzr
    isb
    msr     S3_0_C12_C12_1, x1
    mrs     x1, S3_0_C12_C12_0
    str     x1, [x19, #24]          // 8: none
    // The physical timer: EL2 stands in for it.
    mrs     x1, cntpct_el0
    add     x1, x1, #0x4000
    msr     cntp_cval_el0, x1
    mov     x1, #1
    msr     cntp_ctl_el0, x1
    isb
4:  mrs     x1, S3_0_C12_C12_0
    cmp     x1, #30
    b.ne    4b
    str     x1, [x19, #32]          // 9
    msr     cntp_ctl_el0, xzr
    isb
    msr     S3_0_C12_C12_1, x1
1:  wfi
    b       1b
guest_second:
    mov     x19, #0x10000000
    str     x0, [x19]               // 1: the context
    mrs     x1, mpidr_el1
    str     x1, [x19, #8]           // 2
    movz    w0, #0x0002
    movk    w0, #0x8400, lsl #16
    hvc     #0                      // 3: off
    .global guest_interrupts_end
guest_interrupts_end:
    .previous
    "#
);

extern "C" {
    static guest_plain: u8;
    static guest_plain_end: u8;
    static guest_private: u8;
    static guest_private_end: u8;
    static guest_interrupts: u8;
    static guest_interrupts_end: u8;
}

/// Puts a guest's code into the first pages of the default backing.
pub fn place(start: *const u8, end: *const u8) {
    // CAST: addresses of code in this program.
    let words = ((end as u64).saturating_sub(start as u64)).div_ceil(8);
    for word in 0..words {
        // CAST: as above.
        if let Ok(code) = load(start as u64 + word * 8) {
            fill(BACKING + word * 8, &[code]);
        }
    }
}

/// A vCPU that starts at the first page.
pub fn boot(vm: &Vm) -> Vcpu {
    let vcpu = vm.add_vcpu(0);
    vcpu.set(reg::PC, GUEST_BASE);
    vcpu
}

/// Runs until an exit that is not about memory or the host's interrupts.
pub fn run_on(vm: &Vm, vcpu: &Vcpu) -> u32 {
    for _ in 0..1000 {
        match vcpu.run() {
            run::EXIT_IRQ => (),
            run::EXIT_EXCEPTION => {
                let fault: Exception = vcpu.page().payload();
                if fault.exception != EXCEPTION_PAGE_FAULT || vm.populate(fault.fault_gpa) != 0 {
                    return run::EXIT_EXCEPTION;
                }
            }
            reason => return reason,
        }
    }
    0
}

/// Runs until a store to an address without memory; its offset and data.
pub fn stored(vm: &Vm, vcpu: &Vcpu) -> Option<(u64, u64)> {
    let reason = run_on(vm, vcpu);
    let mmio: Mmio = vcpu.page().payload();
    (reason == run::EXIT_MMIO && mmio.is_write == 1)
        .then(|| (mmio.phys_addr.wrapping_sub(0x1000_0000), u64::from_le_bytes(mmio.data)))
}

/// Pages that the audit finds wrong, as far as there is one.
fn wrong_pages() -> u64 {
    audit().map_or(0, |[wrong, ..]| wrong)
}

/// All tests of this file.
pub fn run(report: &mut Report, strict: bool) {
    let before = audit();
    plain(report);
    private(report);
    interrupts(report, strict);
    report.equal("audit after guests", audit(), before);
}

fn plain(report: &mut Report) {
    place(&raw const guest_plain, &raw const guest_plain_end);
    let vm = Vm::new();
    let vcpu = boot(&vm);
    report.equal("first RUN faults on its first page", vcpu.run(), run::EXIT_EXCEPTION);
    let fault: Exception = vcpu.page().payload();
    report.equal("fault address", fault.fault_gpa, GUEST_BASE);
    report.check("reserved words are zero", fault.reserved == [0; 30]);
    report.equal("exit reason in the page", vcpu.page().exit_reason, run::EXIT_EXCEPTION);
    set_d8(0x1122_3344_5566_7788);
    report.equal("store of a word", stored(&vm, &vcpu), Some((0, 0x1234)));
    report.equal("load exits", run_on(&vm, &vcpu), run::EXIT_MMIO);
    vcpu.set_payload(1, 0x80);
    let extended = Some((16, 0xffff_ffff_ffff_ff80));
    report.equal("load of a signed byte", stored(&vm, &vcpu), extended);
    let uid = Some((24, u64::from(guest::GENIEZONE_UID[0])));
    report.equal("UID", stored(&vm, &vcpu), uid);
    report.equal("PTP goes to the host", run_on(&vm, &vcpu), run::EXIT_HYPERCALL);
    let call: Hypercall = vcpu.page().payload();
    report.equal("PTP's id", call.args[0], u64::from(guest::PTP));
    vcpu.set_payload(3, 0xabcd);
    report.equal("PTP's answer", stored(&vm, &vcpu), Some((32, 0xabcd)));
    report.equal("memory was written", load(BACKING + 0x8000), Ok(0x55));
    report.equal("power-off", run_on(&vm, &vcpu), run::EXIT_SYSTEM_EVENT);
    let event: Event = vcpu.page().payload();
    report.equal("power-off's kind", event.kind, run::SYSTEM_EVENT_SHUTDOWN);
    report.equal("the host's SIMD registers are kept", d8(), 0x1122_3344_5566_7788);
    report.equal("audit with a guest", wrong_pages(), 0);
    vm.destroy();
}

fn private(report: &mut Report) {
    const SECRET: u64 = 0x5ec7_0000_5ec7;
    place(&raw const guest_private, &raw const guest_private_end);
    let vm = Vm::new();
    vm.protect();
    let vcpu = boot(&vm);
    report.equal("private: the secret is written", stored(&vm, &vcpu), Some((0, 0)));
    report.equal("private: the host reads zero", load(BACKING + 0x1000), Ok(0));
    fill(BACKING + 0x1000, &[0xbad]);
    report.equal("private: the guest's copy is intact", stored(&vm, &vcpu), Some((8, SECRET)));
    report.equal("private: shared", stored(&vm, &vcpu), Some((16, 0)));
    report.equal("private: the host reads it", load(BACKING + 0x2000), Ok(SECRET));
    report.equal("private: hidden", stored(&vm, &vcpu), Some((24, 0)));
    report.check("private: the host cannot read it", load(BACKING + 0x2000) != Ok(SECRET));
    report.equal("private: audit", wrong_pages(), 0);
    report.equal("private: relinquish exits", run_on(&vm, &vcpu), run::EXIT_HYPERCALL);
    let call: Hypercall = vcpu.page().payload();
    let expected = (u64::from(guest::MEM_RELINQUISH), GUEST_BASE + 0x2000);
    report.equal("private: relinquish's arguments", (call.args[0], call.args[1]), expected);
    report.equal("private: the page came back wiped", load(BACKING + 0x2000), Ok(0));
    report.equal("private: relinquish succeeds", stored(&vm, &vcpu), Some((32, 0)));
    let set = status(hvc::SET_ONE_REG, &[vcpu.x1, reg::PC, 0]);
    report.equal("private: registers are the guest's", set, hvc::ERR_NOT_SUPPORTED);
    report.equal("private: guarded access", stored(&vm, &vcpu), Some((40, 0)));
    report.equal("private: unguarded access", run_on(&vm, &vcpu), run::EXIT_SYSTEM_EVENT);
    let event: Event = vcpu.page().payload();
    report.equal("private: reset", event.kind, run::SYSTEM_EVENT_RESET);
    vm.destroy();
    report.equal("private: pages come back wiped", load(BACKING + 0x1000), Ok(0));
    report.equal("private: code too", load(BACKING), Ok(0));
}

fn interrupts(report: &mut Report, strict: bool) {
    place(&raw const guest_interrupts, &raw const guest_interrupts_end);
    let vm = Vm::new();
    let vcpu = boot(&vm);
    let second = vm.add_vcpu(1);
    report.equal("a vCPU that is off is idle", second.run(), run::EXIT_IDLE);
    report.equal("CPU_ON tells the host", run_on(&vm, &vcpu), run::EXIT_IPI);
    report.equal("CPU_ON names the vCPU", vcpu.page().payload[0], 2 * u64::from(!strict));
    report.equal("CPU_ON succeeds", stored(&vm, &vcpu), Some((0, 0)));
    report.equal("vCPU 1 starts", stored(&vm, &second), Some((0, 0x77)));
    report.equal("vCPU 1's affinity", stored(&vm, &second), Some((8, 0x8000_0001)));
    report.equal("an SGI to an idle vCPU", run_on(&vm, &vcpu), run::EXIT_IPI);
    report.equal("CPU_OFF", run_on(&vm, &second), run::EXIT_IDLE);
    report.equal("WFI", run_on(&vm, &vcpu), run::EXIT_IDLE);
    let pulse = super::el1::hvc(u64::from(hvc::IRQ_LINE), &[vcpu.x1, 3, 1]);
    report.equal("IRQ_LINE names the vCPU", (pulse[0], pulse[1]), (0, u64::from(!strict)));
    report.equal("SPI 3 is taken", stored(&vm, &vcpu), Some((8, 35)));
    let mut seen = None;
    for _ in 0..100_000 {
        match run_on(&vm, &vcpu) {
            run::EXIT_IDLE => (),
            _ => {
                let mmio: Mmio = vcpu.page().payload();
                seen = Some(u64::from_le_bytes(mmio.data));
                break;
            }
        }
    }
    report.equal("the virtual timer is taken", seen, Some(27));
    report.equal("and is over", stored(&vm, &vcpu), Some((24, 1023)));
    report.equal("the physical timer is taken", stored(&vm, &vcpu), Some((32, 30)));
    report.equal("and the guest waits", run_on(&vm, &vcpu), run::EXIT_IDLE);
    vm.destroy();
}
