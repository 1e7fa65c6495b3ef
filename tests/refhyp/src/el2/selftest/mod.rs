// SPDX-License-Identifier: Apache-2.0
//! The self-test (feature `test-hooks`): a host program at EL1 in the place of Linux.
//!
//! It is part of this image, but runs from a copy of it in the host's memory, at the same virtual
//! addresses through EL1's own translation: so it can be plain Rust, and the hypervisor stays as
//! far away from it as from Linux.
//!
//! | file | subject |
//! | --- | --- |
//! | `el1.rs` | what the program stands on: calls, faults, console, results |
//! | `gic.rs` | the host's interrupts, which stop guests |
//! | `vmm.rs` | a VM with its pages and vCPUs, for the tests |
//! | `calls.rs` | host calls, with good and bad arguments |
//! | `guests.rs` | small guests, protected and not |
//! | `forms.rs` | loads and stores without memory, in every form |
//! | `crowd.rs` | all VMs and vCPUs at once, quotas |
//! | `firmware.rs` | a protected VM that starts with firmware |
//! | `levels.rs` | interrupts with levels, reports of ends |
//! | `ranges.rs` | unmapping under a guest |
//! | `stretches.rs` | how long interrupts are off |
//! | `linux.rs`, `guest_tree.rs`, `uart.rs` | a Linux guest (`refhyp.linux-guest`) |

mod calls;
mod crowd;
mod el1;
mod firmware;
mod forms;
mod gic;
mod guest_tree;
mod guests;
mod levels;
mod linux;
mod ranges;
mod stretches;
mod uart;
mod vmm;

pub use firmware::install as install_firmware;

use super::hardware::Real;
use super::sysreg::{isb, write};
use super::{machine, space, vectors};
use refhyp::cmdline::Options;
use refhyp::context::{Regs, SCTLR_RESET, START_PSTATE};
use refhyp::hw::Hardware;

/// What the copy's addresses differ by from the image's.
const DISPLACEMENT: u64 = 0x1000_0000;
/// EL1's tables: level 1, and level 2 of the gigabyte that the image is in.
const LEVEL1: u64 = 0x5000_0000;
const LEVEL2: u64 = LEVEL1 + 0x1000;
/// End of the program's stack.
const STACK: u64 = 0x5020_0000;
/// Where the program sees all memory once more, without the image in the way.
const ALIAS: u64 = 128 << 30;

const GIB: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;
const TABLE: u64 = 0b11;
const NORMAL: u64 = 1 << 10 | 0b11 << 8 | 0b01;
const DEVICE: u64 = 1 << 54 | 1 << 10 | 1 << 2 | 0b01;
/// As for EL2: attribute 0 is memory, 1 is device.
const MAIR: u64 = 0x04ff;
/// 39-bit addresses in the lower half, no upper half, 4 KiB granule, 40-bit output.
const TCR: u64 = 2 << 32 | 1 << 23 | 3 << 12 | 1 << 10 | 1 << 8 | 25;

/// Starts the program instead of Linux.
pub fn start(options: &Options) -> ! {
    copy_image();
    build_tables();
    machine::init_cpu();
    write!("mair_el1", MAIR);
    write!("tcr_el1", TCR);
    write!("ttbr0_el1", LEVEL1);
    write!("sctlr_el1", SCTLR_RESET | 1 << 12 | 1 << 2 | 1);
    write!("cpacr_el1", 3 << 20);
    write!("vbar_el1", el1::vectors());
    write!("sp_el1", STACK);
    isb();
    let program = if options.linux_guest { linux::main } else { main };
    // CAST: a function's address, which is the same in the copy.
    let mut regs = Regs { pc: program as *const () as u64, ..Regs::default() };
    regs.pstate = START_PSTATE;
    regs.x[0] = u64::from(options.protected);
    regs.x[1] = u64::from(options.strict) | u64::from(options.measure) << 1;
    vectors::start_host(&regs)
}

/// Copies what the image file holds, and clears what follows it.
fn copy_image() {
    let image = space::image();
    let file_end = space::image_file_end();
    for pa in (image.start..image.end.next_multiple_of(8)).step_by(8) {
        let word = if pa < file_end {
            // SAFETY: a word of the image, aligned; its start and end are multiples of a page.
            unsafe { (pa as *const u64).read_volatile() }
        } else {
            0
        };
        Real.write(pa + DISPLACEMENT, word);
    }
}

fn build_tables() {
    let image = space::image();
    Real.wipe_page(LEVEL1);
    Real.wipe_page(LEVEL2);
    Real.write(LEVEL1, DEVICE);
    Real.write(LEVEL1 + 8, LEVEL2 | TABLE);
    Real.write(LEVEL1 + 16, 2 * GIB | NORMAL);
    for gigabyte in 0..4 {
        Real.write(LEVEL1 + (ALIAS / GIB + gigabyte) * 8, gigabyte * GIB | NORMAL);
    }
    for index in 0..512 {
        let address = GIB + index * BLOCK;
        let of_image = address + BLOCK > image.start && address < image.end;
        let pa = if of_image { address + DISPLACEMENT } else { address };
        Real.write(LEVEL2 + index * 8, pa | NORMAL);
    }
    Real.publish();
}

/// The program: all tests, then power-off.
extern "C" fn main(_protected: u64, modes: u64) -> ! {
    let (strict, measure) = (modes & 1, modes & 2);
    gic::init();
    let mut report = el1::Report::new();
    calls::run(&mut report, strict != 0);
    guests::run(&mut report, strict != 0);
    forms::run(&mut report);
    crowd::run(&mut report);
    firmware::run(&mut report);
    if strict == 0 {
        ranges::run(&mut report);
        levels::run(&mut report);
    }
    if measure != 0 {
        stretches::run(&mut report);
    }
    report.finish()
}
