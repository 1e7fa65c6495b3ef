// SPDX-License-Identifier: Apache-2.0
//! EL2's own address space: an identity map in which nothing is both writable and executable.

use super::sysreg::{dsb, isb, read, write};
use refhyp::dt::Range;

const ENTRIES: usize = 512;

#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// Level 1: 1 GiB each. Level 2: the gigabyte that the image is in. Level 3: the image's 2 MiB.
static mut LEVEL1: Table = Table([0; ENTRIES]);
static mut LEVEL2: Table = Table([0; ENTRIES]);
static mut LEVEL3: Table = Table([0; ENTRIES]);

const TABLE: u64 = 0b11;
const PAGE: u64 = 0b11;
const BLOCK: u64 = 0b01;
/// Access flag; AP[1], reserved as one at EL2.
const COMMON: u64 = 1 << 10 | 1 << 6;
const NORMAL: u64 = COMMON | 0b11 << 8;
const DEVICE: u64 = COMMON | 1 << 2 | NO_EXECUTE;
const READ_ONLY: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 54;

const GIB: u64 = 1 << 30;
const BLOCK_SIZE: u64 = 2 << 20;

/// Attribute 0 is write-back memory, 1 is Device-nGnRE.
const MAIR: u64 = 0x04ff;
/// 39-bit addresses, 4 KiB granule, cached inner shareable walks, 40-bit output.
const TCR: u64 = 1 << 31 | 1 << 23 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 25;
/// Reserved-one bits, instruction and data cache, stack alignment check, write implies
/// execute-never, MMU.
const SCTLR: u64 = 0x30c5_0830 | 1 << 19 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

extern "C" {
    static image_start: u8;
    static text_end: u8;
    static rodata_end: u8;
    #[cfg(feature = "test-hooks")]
    static file_end: u8;
    static image_end: u8;
}

/// Addresses that the linker chose.
pub fn image() -> Range {
    let (start, end) = (&raw const image_start, &raw const image_end);
    // CAST: addresses, in an identity map.
    Range { start: start as u64, end: end as u64 }
}

/// End of what the image file holds; zeroed memory follows.
#[cfg(feature = "test-hooks")]
pub fn image_file_end() -> u64 {
    // CAST: an address, in an identity map.
    &raw const file_end as u64
}

/// Builds the tables. Called once, by the boot CPU, before anything else; memory beyond the first
/// gigabyte of RAM comes later ([`add_memory`]).
pub fn build() {
    // SAFETY: single-threaded start of the boot CPU: nobody else has a reference to the tables.
    let (level1, level2, level3) = unsafe {
        (&mut (*(&raw mut LEVEL1)).0, &mut (*(&raw mut LEVEL2)).0, &mut (*(&raw mut LEVEL3)).0)
    };
    let (text, rodata) = (&raw const text_end, &raw const rodata_end);
    // CAST: addresses, in an identity map.
    let (text, rodata) = (text as u64, rodata as u64);
    let start = image().start;
    let gigabyte = start & !(GIB - 1);
    for (address, entry) in (start..).step_by(4096).zip(level3.iter_mut()) {
        let rights = match address {
            a if a < text => READ_ONLY,
            a if a < rodata => READ_ONLY | NO_EXECUTE,
            _ => NO_EXECUTE,
        };
        *entry = address | NORMAL | rights | PAGE;
    }
    for (address, entry) in (gigabyte..).step_by(2 << 20).zip(level2.iter_mut()) {
        *entry = match address {
            a if a == start => &raw const *level3 as u64 | TABLE,
            _ => address | NORMAL | NO_EXECUTE | BLOCK,
        };
    }
    for (address, entry) in (0..).step_by(1 << 30).zip(level1.iter_mut()) {
        *entry = match address {
            a if a == gigabyte => &raw const *level2 as u64 | TABLE,
            a if a < gigabyte => address | DEVICE | BLOCK,
            _ => 0,
        };
    }
    debug_assert_eq!(start % BLOCK_SIZE, 0);
}

/// Maps RAM that [`build`] did not know of.
pub fn add_memory(memory: Range) {
    // SAFETY: called by the boot CPU alone, before others start; the table is reached only by
    // table walks meanwhile, which see each entry written at once.
    let level1 = unsafe { &mut (*(&raw mut LEVEL1)).0 };
    for (address, entry) in (0..).step_by(1 << 30).zip(level1.iter_mut()) {
        if *entry == 0 && address < memory.end && memory.start < address + GIB {
            *entry = address | NORMAL | NO_EXECUTE | BLOCK;
        }
    }
    dsb();
    isb();
}

/// Turns the MMU and caches on, on this CPU.
pub fn enable() {
    write!("mair_el2", MAIR);
    write!("tcr_el2", TCR);
    // CAST: an address, in an identity map.
    write!("ttbr0_el2", &raw const LEVEL1 as u64);
    isb();
    // SAFETY: the tables map everything that runs and is referenced to itself with the rights it
    // needs, so the program goes on as before.
    unsafe {
        core::arch::asm!(
            "tlbi alle2",
            "dsb sy",
            "isb",
            "msr sctlr_el2, {sctlr}",
            "isb",
            sctlr = in(reg) SCTLR,
            options(nostack)
        );
    }
    debug_assert_eq!(read!("sctlr_el2") & 1, 1);
}
