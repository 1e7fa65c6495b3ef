// SPDX-License-Identifier: Apache-2.0
//! Stage 2 translation tables: 40-bit addresses, 4 KiB granule, two concatenated roots at level 1
//! (Arm ARM D8.2; VTCR_EL2.T0SZ = 24, SL0 = 1).
//!
//! Leaves change only through [`Stage2::set_leaf`] after [`Stage2::make_room`] has built the tables
//! down to them, so that a caller can reserve everything that may fail before it changes anything.

use crate::hw::{Hardware, Invalidate, Space, PAGE_SIZE};
use crate::pool::Pool;

/// Bits of an intermediate physical address.
pub const IPA_BITS: u32 = 40;
/// First address beyond the address space.
pub const IPA_END: u64 = 1 << IPA_BITS;
/// Adjacent root tables.
pub const ROOT_PAGES: u64 = 2;

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const READ_WRITE: u64 = 0b11 << 6;
const NORMAL: u64 = 0b1111 << 2;
const DEVICE: u64 = 0b0001 << 2;
const NO_EXECUTE: u64 = 0b10 << 53;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Ours, in an invalid descriptor: the guest let accesses to this page reach the host.
pub const GUARD_MAPPED: u64 = 1 << 8;

/// What a leaf allows and how it is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RAM: read, write, execute.
    Memory,
    /// RAM that must not be executed.
    Data,
    /// Registers of devices.
    Device,
}

impl Kind {
    const fn bits(self) -> u64 {
        match self {
            Self::Memory => NORMAL | READ_WRITE | INNER_SHAREABLE | ACCESSED,
            Self::Data => NORMAL | READ_WRITE | INNER_SHAREABLE | ACCESSED | NO_EXECUTE,
            Self::Device => DEVICE | READ_WRITE | ACCESSED | NO_EXECUTE,
        }
    }
}

/// What a walk ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// No mapping; the software bits of the descriptor.
    Absent(u64),
    /// Mapped to this physical address (of the page walked to).
    Mapped(u64),
}

/// The end of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Level of the last descriptor: 1 (1 GiB), 2 (2 MiB) or 3 (4 KiB).
    pub level: u32,
    /// Physical address of the last descriptor.
    pub entry: u64,
    /// The last descriptor.
    pub descriptor: u64,
    /// What it says about the page.
    pub leaf: Leaf,
}

/// No page was left for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTable;

/// log2 of the bytes that one descriptor of a level maps.
const fn shift(level: u32) -> u32 {
    12 + 9 * (3 - level)
}

/// Bytes that one descriptor of a level maps.
pub const fn span(level: u32) -> u64 {
    1 << shift(level)
}

/// One address space.
#[derive(Clone, Copy, Debug)]
pub struct Stage2 {
    space: Space,
}

impl Stage2 {
    /// The address space with zeroed or earlier built roots at `root`, [`ROOT_PAGES`] pages
    /// aligned to their size.
    pub const fn new(space: Space) -> Self {
        Self { space }
    }

    /// What the hardware is told about it.
    pub const fn space(&self) -> Space {
        self.space
    }

    /// The physical address of the descriptor for `ipa` in a table of `level`. The two roots are
    /// adjacent, so an index up to 1023 at level 1 reaches into the second.
    fn slot(table: u64, level: u32, ipa: u64) -> u64 {
        let mask = if level == 1 { 512 * ROOT_PAGES - 1 } else { 511 };
        table + ((ipa >> shift(level)) & mask) * 8
    }

    /// Walks to the descriptor that decides about `ipa`, which is below [`IPA_END`].
    pub fn walk(&self, hw: &impl Hardware, ipa: u64) -> Walk {
        let mut table = self.space.root;
        let mut level = 1;
        loop {
            let entry = Self::slot(table, level, ipa);
            let descriptor = hw.read(entry);
            let leaf = if descriptor & VALID == 0 {
                Leaf::Absent(descriptor)
            } else if level == 3 || descriptor & TABLE_OR_PAGE == 0 {
                let offset = ipa & (span(level) - 1) & !(PAGE_SIZE - 1);
                Leaf::Mapped((descriptor & ADDRESS) + offset)
            } else {
                table = descriptor & ADDRESS;
                level += 1;
                continue;
            };
            return Walk { level, entry, descriptor, leaf };
        }
    }

    /// Builds tables until a descriptor of `level` decides about `ipa`, splitting blocks in the way.
    /// Translations stay what they are. Returns how many tables it took.
    pub fn make_room(
        &self,
        hw: &impl Hardware,
        pool: &mut Pool,
        ipa: u64,
        level: u32,
    ) -> Result<u32, NoTable> {
        let mut taken = 0;
        loop {
            let walk = self.walk(hw, ipa);
            if walk.level >= level {
                return Ok(taken);
            }
            let table = pool.take(hw).ok_or(NoTable)?;
            taken += 1;
            self.split(hw, &walk, table);
        }
    }

    /// Puts a table in the place of a leaf, with the same meaning. A valid leaf is broken first;
    /// another CPU that faults meanwhile finds the page mapped once it holds the lock, and retries.
    fn split(&self, hw: &impl Hardware, walk: &Walk, table: u64) {
        let old = walk.descriptor;
        let child = walk.level + 1;
        if old & VALID != 0 {
            let kind = if child == 3 { TABLE_OR_PAGE } else { 0 };
            hw.fill_page(table, old | kind, span(child));
        } else if old != 0 {
            // The table is zeroed otherwise.
            hw.fill_page(table, old, 0);
        }
        if old & VALID != 0 {
            hw.write(walk.entry, 0);
            hw.publish();
            hw.invalidate(self.space, Invalidate::All);
        }
        hw.write(walk.entry, table | TABLE_OR_PAGE | VALID);
        hw.publish();
    }

    /// Writes the leaf that decides about `ipa`, which [`Self::make_room`] has brought to `level`.
    ///
    /// A valid descriptor must not be replaced by another valid one: clear, invalidate, then set.
    /// The caller invalidates (many pages at once) and publishes.
    fn write_leaf(&self, hw: &impl Hardware, ipa: u64, level: u32, descriptor: u64) {
        let walk = self.walk(hw, ipa);
        debug_assert_eq!(walk.level, level, "leaf of another size at {ipa:#x}");
        hw.write(walk.entry, descriptor);
    }

    /// Maps one page or block. Nothing is mapped there.
    pub fn set_leaf(&self, hw: &impl Hardware, ipa: u64, level: u32, pa: u64, kind: Kind) {
        let page = if level == 3 { TABLE_OR_PAGE } else { 0 };
        self.write_leaf(hw, ipa, level, (pa & ADDRESS) | kind.bits() | page | VALID);
    }

    /// Removes the mapping of one page and leaves software bits in its place. The caller
    /// invalidates.
    pub fn clear_leaf(&self, hw: &impl Hardware, ipa: u64, software: u64) {
        self.write_leaf(hw, ipa, 3, software & !VALID);
    }

    /// Calls `each` with address and leaf of all pages and blocks from `start` on that are mapped.
    pub fn for_each(&self, hw: &impl Hardware, start: u64, mut each: impl FnMut(u64, Walk)) {
        let mut ipa = start;
        while ipa < IPA_END {
            let walk = self.walk(hw, ipa);
            if let Leaf::Mapped(_) = walk.leaf {
                each(ipa, walk);
            }
            ipa = (ipa & !(span(walk.level) - 1)) + span(walk.level);
        }
    }

    /// The descriptor of `level` for `ipa`, if it leads to a table, and that table.
    fn table_at(&self, hw: &impl Hardware, ipa: u64, level: u32) -> Option<(u64, u64)> {
        let mut table = self.space.root;
        let mut entry = 0;
        for at in 1..=level {
            entry = Self::slot(table, at, ipa);
            let descriptor = hw.read(entry);
            if descriptor & (VALID | TABLE_OR_PAGE) != VALID | TABLE_OR_PAGE {
                return None;
            }
            table = descriptor & ADDRESS;
        }
        Some((entry, table))
    }

    /// Whether there is a table of `level + 1` for `ipa` with nothing in it, not even software bits.
    pub fn is_empty_table(&self, hw: &impl Hardware, ipa: u64, level: u32) -> bool {
        self.table_at(hw, ipa, level)
            .is_some_and(|(_, table)| (0..512).all(|index| hw.read(table + index * 8) == 0))
    }

    /// Takes the emptied table of `level + 1` out of the descriptor of `level` for `ipa` and gives
    /// it back to the pool. Does nothing where there is no table.
    pub fn drop_table(&self, hw: &impl Hardware, pool: &mut Pool, ipa: u64, level: u32) -> bool {
        let Some((entry, table)) = self.table_at(hw, ipa, level) else { return false };
        hw.write(entry, 0);
        hw.publish();
        pool.give(hw, table);
        true
    }
}

/// The single pages of an address space, for many of them in a row: a walk is made once for each
/// table. As long as it is used, no table may come or go.
#[derive(Debug)]
pub struct Leaves<'h, H> {
    s2: Stage2,
    hw: &'h H,
    /// The table of level 3 found last, and the block that it maps.
    table: u64,
    block: Option<u64>,
}

impl<'h, H: Hardware> Leaves<'h, H> {
    /// Those of `s2`.
    pub fn new(s2: Stage2, hw: &'h H) -> Self {
        Self { s2, hw, table: 0, block: None }
    }

    /// Where the descriptor of level 3 for `ipa` is, if there is one.
    fn entry(&mut self, ipa: u64) -> Option<u64> {
        let block = ipa >> shift(2);
        if self.block != Some(block) {
            let walk = self.s2.walk(self.hw, ipa);
            if walk.level != 3 {
                return None;
            }
            self.table = walk.entry & ADDRESS;
            self.block = Some(block);
        }
        Some(Stage2::slot(self.table, 3, ipa))
    }

    /// Whether a descriptor of level 3 decides about `ipa`.
    pub fn has_room(&mut self, ipa: u64) -> bool {
        self.entry(ipa).is_some()
    }

    /// What is mapped at `ipa`.
    pub fn get(&mut self, ipa: u64) -> Leaf {
        self.leaf_and_level(ipa).0
    }

    /// What is mapped at `ipa`, and the level of the descriptor that says so.
    pub fn leaf_and_level(&mut self, ipa: u64) -> (Leaf, u32) {
        match self.entry(ipa).map(|entry| self.hw.read(entry)) {
            None => {
                let walk = self.s2.walk(self.hw, ipa);
                (walk.leaf, walk.level)
            }
            Some(descriptor) if descriptor & VALID == 0 => (Leaf::Absent(descriptor), 3),
            Some(descriptor) => (Leaf::Mapped(descriptor & ADDRESS), 3),
        }
    }

    /// As [`Stage2::set_leaf`] of level 3.
    pub fn set(&mut self, ipa: u64, pa: u64, kind: Kind) {
        self.write(ipa, (pa & ADDRESS) | kind.bits() | TABLE_OR_PAGE | VALID);
    }

    /// As [`Stage2::clear_leaf`].
    pub fn clear(&mut self, ipa: u64) {
        self.write(ipa, 0);
    }

    fn write(&mut self, ipa: u64, descriptor: u64) {
        let entry = self.entry(ipa);
        debug_assert!(entry.is_some(), "leaf of another size at {ipa:#x}");
        if let Some(entry) = entry {
            self.hw.write(entry, descriptor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHardware;

    fn space(hw: &FakeHardware, pool: &mut Pool) -> Stage2 {
        let root = pool.take_aligned(hw, ROOT_PAGES).expect("root");
        Stage2::new(Space { vmid: 1, root })
    }

    #[test]
    fn both_roots_are_reached() {
        let hw = FakeHardware::new(0x1_0000, 16);
        let mut pool = Pool::new(0x1_0000, 0x2_0000);
        let s2 = space(&hw, &mut pool);
        for ipa in [0, IPA_END - span(1)] {
            s2.set_leaf(&hw, ipa, 1, 0x4000_0000, Kind::Memory);
            assert_eq!(s2.walk(&hw, ipa + 0x1234).leaf, Leaf::Mapped(0x4000_1000));
        }
        assert_eq!(s2.walk(&hw, span(1)).leaf, Leaf::Absent(0));
    }

    #[test]
    fn splitting_keeps_every_translation_and_breaks_before_make() {
        let hw = FakeHardware::new(0x1_0000, 16);
        let mut pool = Pool::new(0x1_0000, 0x2_0000);
        let s2 = space(&hw, &mut pool);
        s2.set_leaf(&hw, 0x4000_0000, 1, 0x4000_0000, Kind::Memory);
        assert_eq!(s2.make_room(&hw, &mut pool, 0x4020_3000, 3), Ok(2));
        assert_eq!(hw.invalidations().len(), 2);
        for ipa in [0x4000_0000, 0x4020_3000, 0x4020_4000, 0x7fff_f000] {
            assert_eq!(s2.walk(&hw, ipa).leaf, Leaf::Mapped(ipa));
        }
        s2.clear_leaf(&hw, 0x4020_3000, GUARD_MAPPED);
        assert_eq!(s2.walk(&hw, 0x4020_3000).leaf, Leaf::Absent(GUARD_MAPPED));
        assert_eq!(s2.walk(&hw, 0x4020_4000).leaf, Leaf::Mapped(0x4020_4000));
    }

    #[test]
    fn no_table_left_is_an_error_and_changes_no_translation() {
        let hw = FakeHardware::new(0x1_0000, 3);
        let mut pool = Pool::new(0x1_0000, 0x1_3000);
        let s2 = space(&hw, &mut pool);
        s2.set_leaf(&hw, 0, 1, 0x4000_0000, Kind::Memory);
        assert_eq!(s2.make_room(&hw, &mut pool, 0x3000, 3), Err(NoTable));
        assert_eq!(s2.walk(&hw, 0x3000).leaf, Leaf::Mapped(0x4000_3000));
    }

    #[test]
    fn tables_go_back_to_the_pool() {
        let hw = FakeHardware::new(0x1_0000, 16);
        let mut pool = Pool::new(0x1_0000, 0x2_0000);
        let s2 = space(&hw, &mut pool);
        let before = pool.left();
        s2.make_room(&hw, &mut pool, 0x8000_0000, 3).expect("room");
        assert!(s2.drop_table(&hw, &mut pool, 0x8000_0000, 2));
        assert!(s2.drop_table(&hw, &mut pool, 0x8000_0000, 1));
        assert!(!s2.drop_table(&hw, &mut pool, 0x8000_0000, 1));
        assert_eq!(pool.left(), before);
    }
}
