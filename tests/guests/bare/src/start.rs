// SPDX-License-Identifier: Apache-2.0
//! The first page table, and the device tree that a program is given.

use aarch64_rt::InitialPagetable;
use core::slice;

/// Stage 1 descriptor bits (Arm ARM D8.3): a valid block, accessed, not for EL0 to execute.
const BLOCK: usize = 1 | 1 << 10 | 1 << 54;
/// Device memory (index 0 of `aarch64_rt::DEFAULT_MAIR`), never executed.
const DEVICE: usize = BLOCK | 1 << 53;
/// Normal memory (index 1), inner shareable.
const MEMORY: usize = BLOCK | 1 << 2 | 0b11 << 8;
/// What one entry of the table maps: 1 GiB.
const GIB: usize = 1 << 30;
/// 2 GiB of RAM behind the first two: programs look at no more.
const MAPPED_GIBS: usize = 4;

/// Bytes of the device tree's window (crosvm's memory map); more of a device tree is not read.
pub const MAX_DTB_SIZE: usize = 2 << 20;
/// What a device tree begins with (DTSpec 5.2).
const DTB_MAGIC: u32 = 0xd00d_feed;

/// Each address is mapped to itself: devices in the first GiB, memory above. The second GiB has the
/// window of the protected VMs' firmware at its end, and nothing else.
pub const PAGE_TABLE: InitialPagetable = {
    let mut table = [0; 512];
    table[0] = DEVICE;
    let mut gib = 1;
    while gib < MAPPED_GIBS {
        table[gib] = MEMORY | (gib * GIB);
        gib += 1;
    }
    InitialPagetable(table)
};

/// The whole window of the device tree, for a program that changes it; empty if `address` cannot be
/// one. To be called once.
pub fn window(address: u64) -> &'static mut [u8] {
    // CAST: usize has 64 bits here.
    let start = address as usize;
    let in_memory = (2 * GIB..MAPPED_GIBS * GIB).contains(&start);
    if !in_memory || !start.is_multiple_of(MAX_DTB_SIZE) {
        return &mut [];
    }
    let start = core::ptr::with_exposed_provenance_mut(start);
    // SAFETY: By the VMM's memory map the window is all memory, which the page table maps, and the
    // program, which lies elsewhere, asks for it once.
    unsafe { slice::from_raw_parts_mut(start, MAX_DTB_SIZE) }
}

/// Reads 32 bits of a device's registers, which lie in the first GiB.
pub fn read_register(address: u64) -> u32 {
    // CAST: usize has 64 bits here.
    let address = address as usize;
    assert!(address < GIB && address.is_multiple_of(4), "{address:#x} is no device's register");
    // SAFETY: The page table maps the first GiB as device memory, in which no Rust object lies.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

/// The device tree's bytes, or none if there is no device tree at the address.
pub fn device_tree(address: u64) -> &'static [u8] {
    // CAST: usize has 64 bits here.
    let start = core::ptr::with_exposed_provenance::<u32>(address as usize);
    if start.is_null() || !start.is_aligned() {
        return &[];
    }
    // SAFETY: By the boot protocol x0 holds the device tree's address; the page table maps all of
    // RAM, and nothing in a program writes there.
    let [magic, size] = unsafe { [start.read(), start.add(1).read()] }.map(u32::from_be);
    // CAST: usize has 64 bits here.
    let size = size as usize;
    if magic != DTB_MAGIC || size > MAX_DTB_SIZE {
        return &[];
    }
    // SAFETY: As above; the header says how long the device tree is.
    unsafe { slice::from_raw_parts(start.cast(), size) }
}
