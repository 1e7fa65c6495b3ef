// SPDX-License-Identifier: Apache-2.0
//! The calls that take longest, and how long interrupts were off for each function.

use super::el1::{hvc, print, status, Report};
use super::vmm::{fill, Vm, BUFFER};
use crate::el2::stretch::{OTHERS, QUERY};
use gzvm_abi::hvc as id;
use gzvm_abi::{cap, ext, uapi, BLOCK_SIZE, PAGE_SIZE};

/// Instructions that interrupts may be off for.
const LIMIT: u64 = 100_000;
/// Guest memory for these tests, in tables of its own.
const REGION: u64 = 0x2_0000_0000;
/// Pages of the region, and of host memory from [`MEMORY`] on that is whole blocks before.
const PAGES: u64 = 4096;
const MEMORY: u64 = 0x6000_0000;

fn frame(address: u64) -> u64 {
    address / PAGE_SIZE
}

/// Mapping in all ways, once contiguous and once as scattered as can be; then taking it all away.
fn map_much(report: &mut Report, protected: bool) {
    let vm = Vm::new();
    vm.add_region(1, REGION, PAGES, uapi::MEM_REGION_GUEST_MEM);
    let batch = hvc(u64::from(id::ENABLE_CAP), &[0, cap::QUERY_HYP_BATCH_PAGES])[1];
    let mailbox = [vm.x1(), cap::BLOCK_BASED_DEMAND_PAGING, BLOCK_SIZE, BUFFER + PAGE_SIZE];
    let mut passed = status(id::ENABLE_CAP, &mailbox) == 0;
    let protect = [vm.x1(), cap::PROTECTED_VM, cap::PVM_SET_PROTECTED_VM];
    if protected {
        // With some memory already: a list of frames that are far apart.
        fill(BUFFER, &[256 << 32 | 1, 256, REGION + 2048 * PAGE_SIZE]);
        for n in 0..256 {
            fill(BUFFER + 24 + n * 16, &[MEMORY + (512 * n + 1) * PAGE_SIZE, 1]);
        }
        passed &= status(id::SET_MEMREGION, &[vm.x1(), 8192, BUFFER]) == 0;
        passed &= status(id::ENABLE_CAP, &protect) == 0;
    }
    let map = [vm.x1(), 1, frame(MEMORY) + 512 * 420, frame(REGION), batch];
    passed &= status(id::MAP_GUEST, &map) == 0;
    // One page of each block that the host has.
    for n in 0..batch {
        fill(BUFFER + PAGE_SIZE + n * 8, &[frame(MEMORY) + 512 * (n + 300) + 2]);
    }
    let block = |gpa: u64| status(id::MAP_GUEST_BLOCK, &[vm.x1(), 1, frame(gpa), batch]) == 0;
    passed &= block(REGION + batch * PAGE_SIZE);
    let name = if protected { "many private pages are mapped" } else { "many pages are mapped" };
    report.check(name, passed);
    if !protected {
        let mut at = 0;
        while at < PAGES {
            let unmap = [vm.x1(), ext::UNMAP_RANGE, frame(REGION) + at, PAGES - at];
            at += hvc(u64::from(id::ENABLE_CAP), &unmap)[1].max(1);
        }
    }
    while status(id::DESTROY_VM, &[vm.x1(), u64::MAX]) == id::ERR_BUSY {}
}

/// All tests of this file; after all others, whose calls count too.
pub fn run(report: &mut Report) {
    map_much(report, false);
    map_much(report, true);
    let frequency: u64;
    // SAFETY: reads a register that EL1 may read.
    unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency) };
    for index in 0..=OTHERS {
        let ticks = hvc(u64::from(id::ENABLE_CAP), &[0, QUERY, index])[1];
        // One instruction is a nanosecond.
        let instructions = ticks * (1_000_000_000 / frequency);
        let function = u32::try_from(index).ok().and_then(|index| id::name(id::ID_BASE + index));
        let Some(name) = function.or((index == OTHERS).then_some("all else")) else { continue };
        print(format_args!("# interrupts off, {name}: {instructions} instructions\n"));
        report.check(name, instructions <= LIMIT);
    }
}
