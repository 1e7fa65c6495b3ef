// SPDX-License-Identifier: Apache-2.0
//! The memory regions that the host announced for a VM, in the order of their addresses.

/// Memory regions of a VM.
pub const MAX_REGIONS: usize = 512;

/// A range of guest memory that the host announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First guest frame.
    pub gfn: u64,
    /// Frames; 0 in an unused entry.
    pub pages: u64,
    /// What it is for, as the host said (`gzvm_abi::uapi::MEM_REGION_*`).
    pub purpose: u64,
    /// The host's slot number.
    pub slot: u32,
    /// The host has registered it, which makes the slot number valid.
    pub registered: bool,
}

impl Region {
    /// An unused entry.
    pub const NONE: Self = Self { gfn: 0, pages: 0, purpose: 0, slot: 0, registered: false };

    /// Whether a guest frame is in it.
    pub const fn contains(&self, gfn: u64) -> bool {
        gfn >= self.gfn && gfn - self.gfn < self.pages
    }

    /// Whether the hypervisor's firmware may go there.
    pub const fn is_firmware(&self) -> bool {
        // CAST: widening.
        self.purpose == gzvm_abi::uapi::MEM_REGION_PROTECT_FW as u64
    }

    /// Whether its pages stay the host's in a protected VM.
    pub const fn is_pool(&self) -> bool {
        // CAST: widening.
        self.purpose & gzvm_abi::uapi::MEM_REGION_STATIC_SWIOTLB as u64 != 0
    }
}

/// Why a region was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It shares frames with another one.
    Overlaps,
    /// There are [`MAX_REGIONS`] already.
    Full,
}

/// Regions that do not overlap, sorted by address, so that a frame's is found by bisection. A fixed
/// array: nothing is allocated for a VM's configuration, and no VM can use another's part.
#[derive(Debug)]
pub struct Regions {
    used: usize,
    all: [Region; MAX_REGIONS],
}

impl Regions {
    /// None. All zero bits.
    pub const NONE: Self = Self { used: 0, all: [Region::NONE; MAX_REGIONS] };

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used = 0;
        self.all.fill(Region::NONE);
    }

    /// The regions in use.
    pub fn all(&self) -> &[Region] {
        self.all.get(..self.used).unwrap_or_default()
    }

    /// How many regions begin at or below a frame.
    fn up_to(&self, gfn: u64) -> usize {
        self.all().partition_point(|region| region.gfn <= gfn)
    }

    /// The region that a guest frame is in.
    pub fn at(&self, gfn: u64) -> Option<&Region> {
        let below = self.all().get(self.up_to(gfn).checked_sub(1)?)?;
        below.contains(gfn).then_some(below)
    }

    /// The region that holds all of these frames, of which there must be one.
    pub fn holding(&self, gfn: u64, pages: u64) -> Option<&Region> {
        let last = gfn.checked_add(pages.checked_sub(1)?)?;
        self.at(gfn).filter(|region| region.contains(last))
    }

    /// Whether any of these frames is in a region; their end does not overflow.
    pub fn overlaps(&self, gfn: u64, pages: u64) -> bool {
        let ends_behind = |region: &Region| region.gfn + region.pages > gfn;
        let before = self.up_to((gfn + pages).saturating_sub(1));
        let last = before.checked_sub(1).and_then(|index| self.all().get(index));
        pages != 0 && last.is_some_and(ends_behind)
    }

    /// The region of exactly these frames.
    pub fn exactly(&mut self, gfn: u64, pages: u64) -> Option<&mut Region> {
        let index = self.up_to(gfn).checked_sub(1)?;
        self.all.get_mut(index).filter(|region| region.gfn == gfn && region.pages == pages)
    }

    /// Adds a region, or finds the very same one. The frames' end does not overflow.
    pub fn add(&mut self, gfn: u64, pages: u64) -> Result<&mut Region, NotAdded> {
        if self.exactly(gfn, pages).is_none() {
            if self.overlaps(gfn, pages) {
                return Err(NotAdded::Overlaps);
            }
            let at = self.up_to(gfn);
            let tail = self.all.get_mut(at..=self.used).ok_or(NotAdded::Full)?;
            tail.rotate_right(1);
            if let Some(place) = tail.first_mut() {
                *place = Region { gfn, pages, ..Region::NONE };
            }
            self.used += 1;
        }
        self.exactly(gfn, pages).ok_or(NotAdded::Full)
    }

    /// Removes the region of exactly these frames; false if there is none.
    pub fn remove(&mut self, gfn: u64, pages: u64) -> bool {
        if self.exactly(gfn, pages).is_none() {
            return false;
        }
        let at = self.up_to(gfn).saturating_sub(1);
        if let Some(tail) = self.all.get_mut(at..self.used) {
            tail.rotate_left(1);
            if let Some(last) = tail.last_mut() {
                *last = Region::NONE;
            }
        }
        self.used = self.used.saturating_sub(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn regions_hold_their_frames_and_no_others() {
        let mut regions = Regions::NONE;
        regions.add(10, 5).expect("room");
        assert!(regions.at(14).is_some() && regions.at(15).is_none() && regions.at(9).is_none());
        assert!(regions.holding(10, 5).is_some());
        assert!(regions.holding(10, 6).is_none());
        assert!(regions.holding(10, 0).is_none());
        assert!(regions.holding(11, u64::MAX).is_none());
        assert!(regions.overlaps(14, 1) && regions.overlaps(0, 100) && regions.overlaps(0, 11));
        assert!(!regions.overlaps(15, 1) && !regions.overlaps(5, 5) && !regions.overlaps(12, 0));
    }

    #[test]
    fn there_is_room_for_all_and_no_more() {
        let mut regions = Regions::NONE;
        for n in 0..MAX_REGIONS as u64 {
            // Neither ascending nor descending.
            regions.add((n * 37 % MAX_REGIONS as u64) * 10, 10).expect("room");
        }
        assert_eq!(regions.add(1 << 20, 1).err(), Some(NotAdded::Full));
        assert!(regions.add(370, 10).is_ok(), "the very same one is found");
        assert!(regions.remove(370, 10) && !regions.remove(370, 10));
        assert!(regions.add(370, 4).is_ok(), "announced again with other bounds");
        assert_eq!(regions.add(373, 2).err(), Some(NotAdded::Overlaps));
    }

    proptest! {
        /// Against a plain list that is searched from end to end.
        #[test]
        fn bisection_finds_what_a_search_finds(
            ops in prop::collection::vec((any::<bool>(), 0u64..64, 1u64..8), 1..80)
        ) {
            let mut regions = Regions::NONE;
            let mut list: Vec<(u64, u64)> = Vec::new();
            for (add, gfn, pages) in ops {
                let same = list.iter().position(|r| *r == (gfn, pages));
                let overlaps = list.iter().any(|(g, p)| gfn < g + p && *g < gfn + pages);
                prop_assert_eq!(regions.overlaps(gfn, pages), overlaps);
                if add {
                    prop_assert_eq!(regions.add(gfn, pages).is_ok(), same.is_some() || !overlaps);
                    if !overlaps {
                        list.push((gfn, pages));
                    }
                } else {
                    prop_assert_eq!(regions.remove(gfn, pages), same.is_some());
                    same.map(|index| list.swap_remove(index));
                }
                prop_assert_eq!(regions.all().len(), list.len());
                prop_assert!(regions.all().is_sorted_by_key(|region| region.gfn));
                for frame in 0..72 {
                    let found = list.iter().find(|(g, p)| (*g..g + p).contains(&frame));
                    prop_assert_eq!(regions.at(frame).map(|r| (r.gfn, r.pages)), found.copied());
                }
            }
        }
    }
}
