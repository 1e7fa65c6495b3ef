// SPDX-License-Identifier: Apache-2.0
//! A protected VM that starts with firmware, of which a few instructions stand in for the real one.

use super::el1::{hvc, load, status, Report};
use super::guests::stored;
use super::vmm::{fill, Vm, GUEST_BASE};
use crate::el2::hardware::Real;
use core::arch::global_asm;
use gzvm_abi::run::{self, Exception};
use gzvm_abi::{cap, hvc as id, reg, uapi, PAGE_SIZE};
use refhyp::firmware::{ADDRESS, WINDOW, WINDOW_PAGES};
use refhyp::hw::Hardware;

global_asm!(
    r#"
    .section .rodata.selftest_firmware, "a"
    .balign 8
    // Says where it is, what it was told, and what the host left in the pages behind it.
    .global guest_firmware
guest_firmware:
    b       1f
    .long   0
    .quad   0
    .quad   guest_firmware_end - guest_firmware
    .quad   0, 0, 0, 0
    .ascii  "ARM\x64"
    .long   0
1:  mov     x19, #0x10000000
    adr     x20, guest_firmware
    str     x20, [x19]
    str     x0, [x19, #8]
    str     x1, [x19, #16]
    str     x2, [x19, #24]
    ldr     x1, [x20, #2048]
    str     x1, [x19, #32]
    add     x20, x20, #0x200000
    ldr     x1, [x20]
    str     x1, [x19, #40]
2:  wfi
    b       2b
    .global guest_firmware_end
guest_firmware_end:
    .previous
    "#
);

extern "C" {
    static guest_firmware: u8;
    static guest_firmware_end: u8;
}

/// First guest address of the window: below main memory, as AVF has it.
const START: u64 = GUEST_BASE - WINDOW;
/// Host memory that stands behind it, page for page.
const MEMORY: u64 = 0x5a00_0000;

/// Puts the stand-in where firmware is expected. At EL2, before the host.
pub fn install() {
    let (start, end) = (&raw const guest_firmware, &raw const guest_firmware_end);
    // CAST: addresses in this image, in an identity map.
    let words = (start as u64..end as u64).step_by(8);
    for (to, from) in (ADDRESS..).step_by(8).zip(words) {
        // SAFETY: a word of the image, aligned; the label behind it is, too, or has padding after.
        Real.write(to, unsafe { (from as *const u64).read_volatile() });
    }
}

/// All tests of this file.
pub fn run(report: &mut Report) {
    let own = (&raw const guest_firmware_end as u64) - (&raw const guest_firmware as u64);
    let vm = Vm::new();
    let protect = |sub: u64, x4: u64| {
        let [x0, x1, ..] = hvc(u64::from(id::ENABLE_CAP), &[vm.x1(), cap::PROTECTED_VM, sub, x4]);
        // CAST: the low half is the status.
        (x0 as i32, x1)
    };
    report.equal("firmware: size", protect(cap::PVM_GET_PVMFW_SIZE, 0), (0, own));
    vm.add_region(1, START, WINDOW_PAGES, uapi::MEM_REGION_PROTECT_FW);
    for page in 0..WINDOW_PAGES {
        fill(MEMORY + page * PAGE_SIZE, &[0xbad]);
        fill(MEMORY + page * PAGE_SIZE + 2048, &[0xbad]);
    }
    let map = |page: u64, pages: u64| {
        let (pfn, gfn) = (MEMORY / PAGE_SIZE + page, START / PAGE_SIZE + page);
        status(id::MAP_GUEST, &[vm.x1(), 1, pfn, gfn, pages])
    };
    report.equal("firmware: first pages, by the host", map(0, 3), 0);
    report.equal("firmware: set", protect(cap::PVM_SET_PVMFW_GPA, START), (0, 0));
    let vcpu = vm.add_vcpu(0);
    let pc = status(id::SET_ONE_REG, &[vcpu.x1, reg::PC, GUEST_BASE]);
    report.equal("firmware: the host does not set PC", pc, id::ERR_NOT_SUPPORTED);
    (0..3).for_each(|n| vcpu.set(reg::x(n), 0x1110 + n));
    let mut asked = [0; 3];
    for place in &mut asked {
        if vcpu.run() == run::EXIT_EXCEPTION {
            *place = vcpu.page().payload::<Exception>().fault_gpa;
            let page = (*place).wrapping_sub(START) / PAGE_SIZE;
            map(page, 64 - page % 64);
            (page / 64 + 1..(page / 512 + 1) * 8).for_each(|batch| {
                map(batch * 64, 64);
            });
        }
        if *place == START + 512 * PAGE_SIZE {
            break;
        }
    }
    let missing = [START + 3 * PAGE_SIZE, START + 512 * PAGE_SIZE, 0];
    report.equal("firmware: asks for the rest of its window", asked, missing);
    report.equal("firmware: runs at the window's start", stored(&vm, &vcpu), Some((0, START)));
    for n in 0..3 {
        report.equal("firmware: x0 to x2", stored(&vm, &vcpu), Some((8 + n * 8, 0x1110 + n)));
    }
    report.equal("firmware: nothing behind it", stored(&vm, &vcpu), Some((32, 0)));
    report.equal("firmware: nor in its window", stored(&vm, &vcpu), Some((40, 0)));
    // Where the image has its magic number.
    report.equal("firmware: the host cannot read it", load(MEMORY + 56), Ok(0));
    let again = status(id::DESTROY_VCPU, &[vcpu.x1]);
    report.equal("firmware: DESTROY_VCPU", again, 0);
    let again = status(id::CREATE_VCPU, &[vcpu.x1, vcpu.pages]);
    report.equal("firmware: no second first vCPU", again, id::ERR_NOT_SUPPORTED);
    vm.destroy();
    report.equal("firmware: its pages come back wiped", load(MEMORY), Ok(0));
}
