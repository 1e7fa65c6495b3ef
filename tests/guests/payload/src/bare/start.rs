// SPDX-License-Identifier: Apache-2.0
//! The image header, the first page table, and the way from the first instruction to `main`.

use aarch64_rt::{entry, initial_pagetable, InitialPagetable};
use core::slice;

/// Stage 1 descriptor bits (Arm ARM D8.3): a valid block, accessed, not for EL0 to execute.
const BLOCK: usize = 1 | 1 << 10 | 1 << 54;
/// Device memory (index 0 of `aarch64_rt::DEFAULT_MAIR`), never executed.
const DEVICE: usize = BLOCK | 1 << 53;
/// Normal memory (index 1), inner shareable.
const MEMORY: usize = BLOCK | 1 << 2 | 0b11 << 8;
/// What one entry of the table maps: 1 GiB.
const GIB: usize = 1 << 30;

/// More of a device tree than this is not read: the VMM's window for it (crosvm's memory map).
const MAX_DTB_SIZE: usize = 2 << 20;
/// What a device tree begins with (DTSpec 5.2).
const DTB_MAGIC: u32 = 0xd00d_feed;

// Each address is mapped to itself: devices below 2 GiB, the first 2 GiB of RAM above.
initial_pagetable!({
    let mut table = [0; 512];
    table[0] = DEVICE;
    table[1] = DEVICE | GIB;
    table[2] = MEMORY | (2 * GIB);
    table[3] = MEMORY | (3 * GIB);
    InitialPagetable(table)
});

// The header of an arm64 Image (Documentation/arch/arm64/booting.rst). The payload is linked for the
// start of RAM, so it asks to be as close to it as possible, with text_offset 0.
core::arch::global_asm!(
    ".pushsection .init.head, \"ax\"",
    ".global image_header",
    "image_header:",
    "b entry",
    ".long 0",
    ".quad 0",          // text_offset
    ".quad image_size", // from payload.ld
    ".quad 1 << 1",     // little-endian, 4 KiB pages
    ".quad 0, 0, 0",
    ".ascii \"ARM\\x64\"",
    ".long 0",
    ".popsection",
);

entry!(rust_main, 16);

/// Called by the entry code with what the VMM put into x0: the device tree's address.
fn rust_main(dtb: u64, _: u64, _: u64, _: u64) -> ! {
    super::main(device_tree(dtb))
}

/// The device tree's bytes, or none if there is no device tree at the address.
fn device_tree(address: u64) -> &'static [u8] {
    // CAST: usize has 64 bits here.
    let start = core::ptr::with_exposed_provenance::<u32>(address as usize);
    if start.is_null() || !start.is_aligned() {
        return &[];
    }
    // SAFETY: By the boot protocol x0 holds the device tree's address; the page table maps all of
    // RAM, and nothing in the payload writes outside of its own image.
    let [magic, size] = unsafe { [start.read(), start.add(1).read()] }.map(u32::from_be);
    // CAST: usize has 64 bits here.
    let size = size as usize;
    if magic != DTB_MAGIC || size > MAX_DTB_SIZE {
        return &[];
    }
    // SAFETY: As above; the header says how long the device tree is.
    unsafe { slice::from_raw_parts(start.cast(), size) }
}
