// SPDX-License-Identifier: Apache-2.0
//! Unmapping memory under a guest that has used it, and taking its region away.

use super::el1::{hvc, load, Report};
use super::guests::{boot, place, run_on, stored};
use super::vmm::{audit, fill, Vm, BACKING, GUEST_BASE, GUEST_PAGES};
use core::arch::global_asm;
use gzvm_abi::run::{self, Exception};
use gzvm_abi::{ext, hvc as id, uapi, PAGE_SIZE};

global_asm!(
    r#"
    .section .rodata.selftest_ranges, "a"
    .balign 8
    // Reports what its second page holds, again and again.
    .global guest_reader
guest_reader:
    mov     x19, #0x10000000
    mov     x20, #0x80000000
    add     x20, x20, #0x1000
1:  ldr     x1, [x20]
    str     x1, [x19]
    b       1b
    .global guest_reader_end
guest_reader_end:
    .previous
    "#
);

extern "C" {
    static guest_reader: u8;
    static guest_reader_end: u8;
}

/// Address and frame of the page that the guest reads.
const PAGE: u64 = GUEST_BASE + PAGE_SIZE;
const FRAME: u64 = PAGE / PAGE_SIZE;

/// All tests of this file, for hypervisors that offer the extensions.
pub fn run(report: &mut Report) {
    let before = audit();
    let vm = Vm::new();
    let extension = |number: u64, x3: u64, x4: u64| {
        let [x0, x1, x2, _] = hvc(u64::from(id::ENABLE_CAP), &[vm.x1(), number, x3, x4]);
        // CAST: the low half is the status.
        (x0 as i32, x1, x2)
    };
    place(&raw const guest_reader, &raw const guest_reader_end);
    let vcpu = boot(&vm);
    fill(BACKING + PAGE_SIZE, &[0x1111]);
    report.equal("unmap: the guest reads its page", stored(&vm, &vcpu), Some((0, 0x1111)));
    let state = extension(ext::QUERY_RANGE_STATE, FRAME - 1, 8);
    report.equal("unmap: range state, mapped", state, (0, ext::RANGE_SHARED, 2));
    let unmapped = extension(ext::UNMAP_RANGE, FRAME, 1);
    report.equal("unmap: one page", unmapped, (0, 1, 0));
    let state = extension(ext::QUERY_RANGE_STATE, FRAME, 8);
    report.equal("unmap: range state, absent", state, (0, ext::RANGE_ABSENT, 8));
    // What the guest could still read through a stale translation.
    fill(BACKING + PAGE_SIZE, &[0x2222]);
    report.equal("unmap: the guest faults", vcpu.run(), run::EXIT_EXCEPTION);
    let fault: Exception = vcpu.page().payload();
    report.equal("unmap: at that page", fault.fault_gpa, PAGE);
    report.equal("unmap: another page there", vm.map(PAGE, BACKING + 9 * PAGE_SIZE), 0);
    fill(BACKING + 9 * PAGE_SIZE, &[0x3333]);
    report.equal("unmap: which the guest reads", stored(&vm, &vcpu), Some((0, 0x3333)));
    report.equal("unmap: the host keeps the first", load(BACKING + PAGE_SIZE), Ok(0x2222));
    let size = GUEST_PAGES * PAGE_SIZE;
    let refused = (id::ERR_INVALID_ARGS, 0, 0);
    let early = extension(ext::REMOVE_REGION, GUEST_BASE, size);
    report.equal("remove: refused while pages are mapped", early, refused);
    let all = extension(ext::UNMAP_RANGE, GUEST_BASE / PAGE_SIZE, GUEST_PAGES);
    report.equal("remove: unmap all", all, (0, GUEST_PAGES, 0));
    let removed = extension(ext::REMOVE_REGION, GUEST_BASE, size);
    report.equal("remove: the region", removed, (0, 0, 0));
    report.equal("remove: mapping is refused", vm.populate(PAGE), id::ERR_INVALID_ARGS);
    vm.add_region(0, GUEST_BASE, 8, uapi::MEM_REGION_GUEST_MEM);
    report.equal("remove: announced again, smaller", run_on(&vm, &vcpu), run::EXIT_MMIO);
    let beyond = vm.populate(GUEST_BASE + 8 * PAGE_SIZE);
    report.equal("remove: and not beyond it", beyond, id::ERR_INVALID_ARGS);
    report.equal("unmap: audit with the guest", audit().map(|[wrong, ..]| wrong), Some(0));
    vm.destroy();
    report.equal("audit after unmapping", audit(), before);
}
