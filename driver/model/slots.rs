// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Memory slots: which guest ranges are backed by which addresses of the VM's owner.

use super::addr::{Gfn, PageRange};
use super::refusal::{invalid, Errno, Refusal, Result};
use super::store::Store;
use crate::abi::{uapi, PAGE_SHIFT, PAGE_SIZE};

/// Slot numbers are below this, and so is the number of slots. v13 had 10; clients number theirs
/// sparsely up to 512.
pub const MAX_SLOTS: u32 = 1024;

/// A memory slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub id: u32,
    /// What the guest sees.
    pub range: PageRange,
    /// First address in the owner's address space; page aligned, and the end does not wrap.
    pub hva: u64,
    /// One of `MEM_REGION_*`, forwarded to the hypervisor.
    pub purpose: u32,
}

impl Slot {
    /// The owner's address that backs a frame of the slot.
    pub fn hva_of(&self, gfn: Gfn) -> u64 {
        self.hva.wrapping_add(gfn.gpa().wrapping_sub(self.range.start().gpa()))
    }

    /// The frames of the slot that the owner's addresses from `start` up to `end` back.
    pub fn backed_by(&self, start: u64, end: u64) -> Option<PageRange> {
        let first = start.saturating_sub(self.hva) >> PAGE_SHIFT;
        let behind = end.saturating_sub(self.hva).div_ceil(PAGE_SIZE);
        let (_, rest) = self.range.split_at(Gfn(self.range.start().0.saturating_add(first)));
        rest?.split_at(Gfn(self.range.start().0.saturating_add(behind))).0
    }
}

/// What a SET_USER_MEMORY_REGION asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Have this slot.
    Set(Slot),
    /// Have no slot of this number.
    Delete(u32),
}

impl Request {
    /// Takes the argument apart. `ipa_bits` is the width of guest addresses.
    pub fn parse(region: &uapi::UserspaceMemoryRegion, ipa_bits: u32) -> Result<Self> {
        if region.slot >= MAX_SLOTS {
            return Err(invalid("memory slot number is not below 1024"));
        }
        if region.memory_size == 0 {
            return Ok(Self::Delete(region.slot));
        }
        let purpose = Self::purpose(region.flags)?;
        let range = PageRange::from_bytes(region.guest_phys_addr, region.memory_size)?;
        if range.end().gpa() > 1u64.checked_shl(ipa_bits).unwrap_or(u64::MAX) {
            return Err(invalid("memory slot ends beyond the guest's address size"));
        }
        if range.pages() > uapi::MEM_MAX_NR_PAGES {
            return Err(invalid("memory slot has more than 2^31 - 1 pages"));
        }
        let hva = region.userspace_addr;
        if hva & (PAGE_SIZE - 1) != 0 || hva.checked_add(range.bytes()).is_none() {
            return Err(invalid("userspace_addr is not page aligned or wraps"));
        }
        Ok(Self::Set(Slot { id: region.slot, range, hva, purpose }))
    }

    /// Checks the flags. Read-only slots cannot be had: no hypercall of the ABI maps without write
    /// permission.
    fn purpose(flags: u32) -> Result<u32> {
        match flags {
            uapi::MEM_REGION_OTHER
            | uapi::MEM_REGION_GUEST_MEM
            | uapi::MEM_REGION_PROTECT_FW
            | uapi::MEM_REGION_STATIC_SWIOTLB => Ok(flags),
            _ if flags & uapi::MEM_REGION_READONLY != 0 => {
                Err(Refusal::new(Errno::OpNotSupp, "the hypervisor cannot map memory read-only"))
            }
            _ => Err(invalid("memory slot flags are not 0, 1, 2 or 4")),
        }
    }
}

/// What setting a slot means for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addition {
    /// The slot is new.
    New,
    /// The very same slot exists.
    Same,
}

/// A VM's slots.
///
/// # Invariants
///
/// Sorted by guest range; no two ranges overlap, no two ids are equal.
pub struct SlotTable<S>(S);

impl<S: Store<Slot>> SlotTable<S> {
    /// A table over an empty store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Position of the first slot that ends behind the frame.
    fn position(&self, gfn: Gfn) -> usize {
        self.0.entries().partition_point(|slot| slot.range.end() <= gfn)
    }

    /// The slot that contains a frame, in O(log n).
    pub fn find(&self, gfn: Gfn) -> Option<&Slot> {
        self.0.entries().get(self.position(gfn)).filter(|slot| slot.range.contains(gfn))
    }

    /// The slot that contains the range's first frame, if there is one, and the first part of the
    /// range: as far as it is in that slot, or in none.
    pub fn at(&self, range: PageRange) -> (Option<&Slot>, PageRange) {
        let next = self.0.entries().get(self.position(range.start()));
        let found = next.filter(|slot| slot.range.contains(range.start()));
        let end = match (found, next) {
            (Some(slot), _) => slot.range.end(),
            (None, Some(next)) => next.range.start(),
            (None, None) => range.end(),
        };
        (found, range.split_at(end).0.unwrap_or(range))
    }

    /// The slot of a number.
    pub fn by_id(&self, id: u32) -> Option<&Slot> {
        self.0.entries().iter().find(|slot| slot.id == id)
    }

    /// All slots, by address.
    pub fn slots(&self) -> &[Slot] {
        self.0.entries()
    }

    /// May the slot be added? A slot is never changed in place: delete it first.
    pub fn check(&self, slot: &Slot) -> Result<Addition> {
        match self.by_id(slot.id) {
            Some(existing) if existing == slot => return Ok(Addition::Same),
            Some(_) => {
                let why = "memory slot exists with other parameters; delete it first";
                return Err(Refusal::new(Errno::Exist, why));
            }
            None => {}
        }
        match self.0.entries().get(self.position(slot.range.start())) {
            Some(next) if next.range.overlaps(slot.range) => {
                Err(Refusal::new(Errno::Exist, "memory slot overlaps another one"))
            }
            _ => Ok(Addition::New),
        }
    }

    /// Adds a slot that [`Self::check`] allows.
    pub fn insert(&mut self, slot: Slot) -> Result<Addition> {
        let addition = self.check(&slot)?;
        if addition == Addition::New {
            // INVARIANT: `check` found neither the id nor an overlap, and everything in front of
            // the position ends before the slot starts.
            self.0.insert(self.position(slot.range.start()), slot)?;
        }
        Ok(addition)
    }

    /// Takes a slot out.
    pub fn remove(&mut self, id: u32) -> Option<Slot> {
        let at = self.0.entries().iter().position(|slot| slot.id == id)?;
        self.0.remove(at)
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_slots))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::super::store::fixed::Fixed;
    use super::*;

    const REGION: uapi::UserspaceMemoryRegion = uapi::UserspaceMemoryRegion {
        slot: 0,
        flags: uapi::MEM_REGION_GUEST_MEM,
        guest_phys_addr: 0x8000_0000,
        memory_size: 0x20_0000,
        userspace_addr: 0x7000_0000,
    };

    fn slot(id: u32, gpa: u64, size: u64) -> Slot {
        let region = uapi::UserspaceMemoryRegion {
            slot: id,
            guest_phys_addr: gpa,
            memory_size: size,
            ..REGION
        };
        match Request::parse(&region, 40) {
            Ok(Request::Set(slot)) => slot,
            _ => panic!("not a slot"),
        }
    }

    fn table() -> SlotTable<Fixed<Slot, 8>> {
        SlotTable::new(Fixed::new(slot(0, 0, 0x1000)))
    }

    #[test]
    fn garbage_is_refused() {
        let bad = |change: fn(&mut uapi::UserspaceMemoryRegion)| {
            let mut region = REGION;
            change(&mut region);
            Request::parse(&region, 40).map_err(|refusal| refusal.errno)
        };
        assert_eq!(bad(|r| r.slot = MAX_SLOTS), Err(Errno::Inval));
        assert_eq!(bad(|r| r.guest_phys_addr += 1), Err(Errno::Inval));
        assert_eq!(bad(|r| r.memory_size += 1), Err(Errno::Inval));
        assert_eq!(bad(|r| r.userspace_addr += 1), Err(Errno::Inval));
        assert_eq!(bad(|r| r.userspace_addr = !0xfff), Err(Errno::Inval));
        assert_eq!(bad(|r| r.guest_phys_addr = 1 << 40), Err(Errno::Inval));
        assert_eq!(bad(|r| r.guest_phys_addr = !0xfff), Err(Errno::Inval));
        assert_eq!(bad(|r| r.flags = 8), Err(Errno::Inval));
        assert_eq!(bad(|r| r.flags = 1 | uapi::MEM_REGION_READONLY), Err(Errno::OpNotSupp));
        assert_eq!(bad(|r| r.memory_size = 0), Ok(Request::Delete(0)));
    }

    #[test]
    fn w25_overlap_and_change_are_refused() {
        let mut table = table();
        assert_eq!(table.insert(slot(3, 0x8000_0000, 0x2000)), Ok(Addition::New));
        assert_eq!(table.insert(slot(3, 0x8000_0000, 0x2000)), Ok(Addition::Same));
        let errno = |r: Result<Addition>| r.map_err(|refusal| refusal.errno);
        assert_eq!(errno(table.insert(slot(3, 0x8000_0000, 0x3000))), Err(Errno::Exist));
        assert_eq!(errno(table.insert(slot(4, 0x8000_1000, 0x1000))), Err(Errno::Exist));
        assert_eq!(errno(table.insert(slot(4, 0x7fff_f000, 0x2000))), Err(Errno::Exist));
        assert_eq!(table.insert(slot(4, 0x7fff_f000, 0x1000)), Ok(Addition::New));
        assert_eq!(table.insert(slot(5, 0x8000_2000, 0x1000)), Ok(Addition::New));
        assert_eq!(table.slots().len(), 3);
        assert!(table.remove(3).is_some());
        assert!(table.remove(3).is_none());
        assert!(table.find(Gfn::containing(0x8000_1000)).is_none());
        assert_eq!(table.find(Gfn::containing(0x8000_2fff)).map(|slot| slot.id), Some(5));
    }

    #[test]
    fn ranges_are_cut_at_the_ends_of_slots() {
        let mut table = table();
        assert_eq!(table.insert(slot(3, 0x8000_1000, 0x2000)), Ok(Addition::New));
        let at = |start, pages| match PageRange::new(Gfn(start), pages) {
            Some(range) => {
                let (slot, part) = table.at(range);
                (slot.map(|slot| slot.id), part.start().0, part.pages())
            }
            None => panic!("a good range"),
        };
        assert_eq!(at(0x8_0000, 9), (None, 0x8_0000, 1));
        assert_eq!(at(0x8_0001, 9), (Some(3), 0x8_0001, 2));
        assert_eq!(at(0x8_0002, 1), (Some(3), 0x8_0002, 1));
        assert_eq!(at(0x8_0003, 9), (None, 0x8_0003, 9));
    }
}
