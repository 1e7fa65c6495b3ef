// SPDX-License-Identifier: Apache-2.0
//! Memory for `alloc`.

use buddy_system_allocator::LockedHeap;
use core::cell::UnsafeCell;

/// Bytes of the heap.
const SIZE: usize = 1 << 20;
/// The largest block has 2^(this - 1) bytes.
const ORDERS: usize = 24;

#[repr(C, align(4096))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: only the heap accesses it.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; SIZE]));

#[global_allocator]
static HEAP: LockedHeap<ORDERS> = LockedHeap::empty();

/// Gives the heap its memory. To be called once.
pub(super) fn init() {
    let start = MEMORY.0.get();
    // SAFETY: the memory is nobody else's.
    unsafe { HEAP.lock().init(start.expose_provenance(), SIZE) }
}
