// SPDX-License-Identifier: Apache-2.0
//! The real machine, as the decisions see it.

use super::sysreg::{dsb, isb, read, write};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use refhyp::dt::Range;
use refhyp::hw::{Hardware, Invalidate, Space, PAGE_SIZE};

/// All RAM, and the part of it that holds Rust objects: image and ownership table.
static RAM_START: AtomicU64 = AtomicU64::new(0);
static RAM_END: AtomicU64 = AtomicU64::new(0);
static OBJECTS_START: AtomicU64 = AtomicU64::new(0);
static OBJECTS_END: AtomicU64 = AtomicU64::new(0);

/// Says where RAM is, and where in it Rust objects are.
pub fn set_ranges(ram: Range, objects: Range) {
    OBJECTS_START.store(objects.start, Ordering::Relaxed);
    OBJECTS_END.store(objects.end, Ordering::Relaxed);
    RAM_START.store(ram.start, Ordering::Relaxed);
    RAM_END.store(ram.end, Ordering::Release);
}

/// The machine. There is one, so its value carries nothing.
#[derive(Clone, Copy, Debug)]
pub struct Real;

/// A pointer to `len` bytes of physical memory that holds no Rust object.
///
/// # Panics
///
/// If any of the bytes is not RAM or belongs to the program.
fn pointer(pa: u64, len: u64) -> *mut u8 {
    let end = pa.checked_add(len);
    let inside = end.is_some_and(|end| {
        let object =
            pa < OBJECTS_END.load(Ordering::Relaxed) && OBJECTS_START.load(Ordering::Relaxed) < end;
        RAM_START.load(Ordering::Relaxed) <= pa && end <= RAM_END.load(Ordering::Acquire) && !object
    });
    assert!(inside, "physical address {pa:#x} is not the hypervisor's to use");
    // CAST: an address, in an identity map.
    pa as *mut u8
}

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// How many whole words `len` bytes have that can be accessed as such: none where the first is not
/// aligned.
fn words_at(pa: u64, len: usize) -> usize {
    if pa % 8 == 0 {
        len / WORD
    } else {
        0
    }
}

/// Bytes in the smallest data cache line (CTR_EL0.DminLine).
fn cache_line() -> u64 {
    4 << ((read!("ctr_el0") >> 16) & 0xf)
}

fn clean_and_invalidate(pa: u64, len: u64) {
    let line = cache_line();
    let mut at = pa & !(line - 1);
    while at < pa + len {
        // Four at a time: this loop is most of what mapping a page costs. Lines behind the end may
        // be cleaned, too.
        // SAFETY: cache maintenance by address changes no contents.
        unsafe {
            asm!(
                "dc civac, {0}",
                "dc civac, {1}",
                "dc civac, {2}",
                "dc civac, {3}",
                in(reg) at,
                in(reg) at + line,
                in(reg) at + 2 * line,
                in(reg) at + 3 * line,
                options(nostack)
            );
        }
        at += 4 * line;
    }
    dsb();
}

/// Bytes that one instruction zeroes (DCZID_EL0), if it may be used.
fn zero_block() -> Option<u64> {
    let id = read!("dczid_el0");
    (id & 0x10 == 0).then_some(4 << (id & 0xf))
}

impl Hardware for Real {
    fn read(&self, pa: u64) -> u64 {
        let word: *const u64 = pointer(pa, 8).cast();
        assert!(word.is_aligned(), "unaligned word at {pa:#x}");
        // SAFETY: mapped RAM without Rust objects in it, aligned; others may write at the same
        // time, which a volatile access stands.
        unsafe { word.read_volatile() }
    }

    fn write(&self, pa: u64, value: u64) {
        let word: *mut u64 = pointer(pa, 8).cast();
        assert!(word.is_aligned(), "unaligned word at {pa:#x}");
        // SAFETY: as in `read`.
        unsafe { word.write_volatile(value) };
    }

    fn copy_in(&self, pa: u64, bytes: &mut [u8]) {
        // CAST: widening.
        let from = pointer(pa, bytes.len() as u64);
        let (words, rest) = bytes.split_at_mut(words_at(pa, bytes.len()) * WORD);
        for (index, word) in words.chunks_exact_mut(WORD).enumerate() {
            // SAFETY: inside of the range that `pointer` has checked, and aligned, as `words_at`
            // says; volatile as in `read`.
            let value = unsafe { from.cast::<u64>().add(index).read_volatile() };
            word.copy_from_slice(&value.to_ne_bytes());
        }
        for (offset, byte) in (words.len()..).zip(rest) {
            // SAFETY: inside of the range that `pointer` has checked; volatile as in `read`.
            *byte = unsafe { from.add(offset).read_volatile() };
        }
    }

    fn copy_out(&self, pa: u64, bytes: &[u8]) {
        // CAST: widening.
        let to = pointer(pa, bytes.len() as u64);
        let (words, rest) = bytes.split_at(words_at(pa, bytes.len()) * WORD);
        for (index, word) in words.chunks_exact(WORD).enumerate() {
            let value = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            // SAFETY: inside of the range that `pointer` has checked, and aligned, as `words_at`
            // says; volatile as in `read`.
            unsafe { to.cast::<u64>().add(index).write_volatile(value) };
        }
        for (offset, byte) in (words.len()..).zip(rest) {
            // SAFETY: inside of the range that `pointer` has checked; volatile as in `read`.
            unsafe { to.add(offset).write_volatile(*byte) };
        }
    }

    fn wipe_page(&self, pa: u64) {
        let page: *mut u64 = pointer(pa, PAGE_SIZE).cast();
        if let Some(block) = zero_block() {
            for at in (pa..pa + PAGE_SIZE).step_by(block as usize) {
                // SAFETY: zeroes a block inside of the page that `pointer` has checked.
                unsafe { asm!("dc zva, {}", in(reg) at, options(nostack)) };
            }
        } else {
            for word in 0..512 {
                // SAFETY: inside of the page that `pointer` has checked; pages are aligned.
                unsafe { page.add(word).write_volatile(0) };
            }
        }
        clean_and_invalidate(pa, PAGE_SIZE);
    }

    fn fill_page(&self, pa: u64, first: u64, step: u64) {
        let page: *mut u64 = pointer(pa, PAGE_SIZE).cast();
        let mut value = first;
        for word in 0..512 {
            // SAFETY: inside of the page that `pointer` has checked; pages are aligned.
            unsafe { page.add(word).write_volatile(value) };
            value = value.wrapping_add(step);
        }
    }

    fn copy_page(&self, from: u64, to: u64) {
        let source: *const u64 = pointer(from, PAGE_SIZE).cast();
        let target: *mut u64 = pointer(to, PAGE_SIZE).cast();
        for word in 0..512 {
            // SAFETY: inside of the pages that `pointer` has checked; pages are aligned.
            unsafe { target.add(word).write_volatile(source.add(word).read_volatile()) };
        }
        clean_and_invalidate(to, PAGE_SIZE);
    }

    fn clean_page(&self, pa: u64) {
        clean_and_invalidate(pa, PAGE_SIZE);
    }

    fn publish(&self) {
        dsb();
        isb();
    }

    fn invalidate(&self, space: Space, what: Invalidate) {
        let before = read!("vttbr_el2");
        write!("vttbr_el2", vttbr(space));
        dsb();
        isb();
        match what {
            // SAFETY: TLB maintenance changes no contents; EL2's own translations are not meant.
            Invalidate::Page(ipa) => unsafe {
                asm!(
                    "tlbi ipas2e1is, {}",
                    "dsb ish",
                    "tlbi vmalle1is",
                    "dsb ish",
                    "isb",
                    in(reg) ipa >> 12,
                    options(nostack)
                );
            },
            // SAFETY: as above.
            Invalidate::All => unsafe {
                asm!("tlbi vmalls12e1is", "dsb ish", "isb", options(nostack));
            },
        }
        write!("vttbr_el2", before);
        isb();
    }

    fn kick(&self, cpu: usize) {
        super::gic::kick(cpu);
    }

    fn id_register(&self, (crm, op2): (u32, u32)) -> u64 {
        macro_rules! registers {
            ($($crm:literal: $($op2:literal)*;)*) => {
                match (crm, op2) {
                    $($(($crm, $op2) => {
                        read!(concat!("S3_0_C0_C", $crm, "_", $op2))
                    })*)*
                    _ => 0,
                }
            };
        }
        registers!(
            1: 0 1 2 3 4 5 6 7;
            2: 0 1 2 3 4 5 6 7;
            3: 0 1 2 3 4 5 6 7;
            4: 0 1 2 3 4 5 6 7;
            5: 0 1 2 3 4 5 6 7;
            6: 0 1 2 3 4 5 6 7;
            7: 0 1 2 3 4 5 6 7;
        )
    }

    fn counter(&self) -> u64 {
        isb();
        read!("cntpct_el0")
    }

    fn frequency(&self) -> u64 {
        read!("cntfrq_el0")
    }
}

/// The value of VTTBR_EL2 for an address space.
pub fn vttbr(space: Space) -> u64 {
    u64::from(space.vmid) << 48 | space.root
}

/// Drops what translations EL1 may have cached before the hypervisor was there.
pub fn drop_stale_translations() {
    // SAFETY: TLB maintenance changes no contents.
    unsafe { asm!("tlbi alle1", "dsb nsh", "isb", options(nostack)) };
}

/// Drops what translations and instructions this CPU has cached for the current address space.
pub fn drop_local_translations() {
    // SAFETY: TLB and cache maintenance changes no contents.
    unsafe { asm!("tlbi vmalle1", "ic iallu", "dsb nsh", "isb", options(nostack)) };
}

/// A seed from the CPU's own generator (FEAT_RNG), if it has one that works.
pub fn random_seed() -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if (read!("id_aa64isar0_el1") >> 60) & 0xf == 0 {
        return None;
    }
    for word in seed.chunks_exact_mut(8) {
        let (value, failed): (u64, u64);
        // SAFETY: RNDR exists, as the identification register says; the flags are clobbered.
        unsafe {
            asm!("mrs {}, S3_3_C2_C4_0", "cset {}, eq", out(reg) value, out(reg) failed);
        }
        if failed != 0 {
            return None;
        }
        word.copy_from_slice(&value.to_le_bytes());
    }
    Some(seed)
}
