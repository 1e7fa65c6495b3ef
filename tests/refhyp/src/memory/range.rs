// SPDX-License-Identifier: Apache-2.0
//! Ranges of guest memory: what is mapped there, and taking it away from an unprotected VM.

use super::{Error, Memory};
use crate::hw::{Hardware, Invalidate, PAGE_SIZE};
use crate::stage2::{span, Leaf, Leaves, Stage2, IPA_END};

/// Pages that one call unmaps at most.
const SLICE: usize = 128;
/// Descriptors that one call looks at.
const LOOKS: u32 = 512;

/// What the host may do with a guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing is mapped.
    Absent,
    /// Mapped, and the host has no access.
    Private,
    /// Mapped, and the host has access.
    Shared,
}

impl Memory<'_> {
    fn presence(&self, leaf: Leaf) -> Presence {
        match leaf {
            Leaf::Absent(_) => Presence::Absent,
            Leaf::Mapped(pa) if self.pages.get(pa / PAGE_SIZE).host_sees() => Presence::Shared,
            Leaf::Mapped(_) => Presence::Private,
        }
    }

    /// The state of guest frame `gfn`, and of how many of the `pages` frames from there on (at
    /// least 1) it is the state too. Bounded: the number may be too small.
    pub fn range_state(
        &self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pages: u64,
    ) -> Result<(Presence, u64), Error> {
        let (start, end) = bounds(gfn, pages)?;
        let s2 = self.guest(vm)?.s2;
        let mut leaves = Leaves::new(s2, hw);
        let (first, level) = leaves.leaf_and_level(start);
        let state = self.presence(first);
        let mut ipa = behind(start, level);
        for _ in 1..LOOKS {
            let (leaf, level) = leaves.leaf_and_level(ipa.min(end - 1));
            if ipa >= end || self.presence(leaf) != state {
                break;
            }
            ipa = behind(ipa, level);
        }
        Ok((state, (ipa.min(end) - start) / PAGE_SIZE))
    }

    /// Takes what is mapped at `pages` guest frames from `gfn` on away from an unprotected VM and
    /// gives it back to the host. Returns how many frames are done, from the first on: at least
    /// one, and all after some calls.
    ///
    /// No CPU can reach a page through the guest's translations any more once it is unshared.
    pub fn unmap_range(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pages: u64,
    ) -> Result<u64, Error> {
        let (start, mut end) = bounds(gfn, pages)?;
        let s2 = self.guest(vm)?.s2;
        let mut leaves = Leaves::new(s2, hw);
        let mut gone = [0; SLICE];
        let mut places = gone.iter_mut();
        let (mut ipa, mut looks, mut last) = (start, LOOKS, start);
        while ipa < end && looks > 0 {
            let (leaf, level) = leaves.leaf_and_level(ipa);
            if level == 3 {
                // Never behind the end of a table: so there is one at most to drop below.
                end = end.min(behind(ipa, 2));
            }
            if let Leaf::Mapped(pa) = leaf {
                let Some(place) = places.next() else { break };
                *place = pa / PAGE_SIZE;
                leaves.clear(ipa);
                last = ipa;
            }
            (ipa, looks) = (behind(ipa, level), looks - 1);
        }
        let count = SLICE - places.len();
        let tables = self.drop_empty_tables(hw, vm, s2, ipa - PAGE_SIZE);
        hw.publish();
        match (count, tables) {
            (0, 0) => (),
            (1, 0) => hw.invalidate(s2.space(), Invalidate::Page(last)),
            _ => hw.invalidate(s2.space(), Invalidate::All),
        }
        gone.iter().take(count).for_each(|pfn| self.release(hw, vm, *pfn));
        Ok((ipa.min(start + pages * PAGE_SIZE) - start) / PAGE_SIZE)
    }

    /// Gives the tables that lead to an address back, as far as nothing is in them; returns how
    /// many. The caller invalidates, while it still holds the pool. Until then a CPU may look into
    /// a table that was given back: the pool's link in it is no valid descriptor.
    fn drop_empty_tables(&mut self, hw: &impl Hardware, vm: usize, s2: Stage2, ipa: u64) -> u64 {
        let mut dropped = 0;
        for parent in [2, 1] {
            if s2.is_empty_table(hw, ipa, parent) && s2.drop_table(hw, &mut self.pool, ipa, parent)
            {
                dropped += 1;
            }
        }
        if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
            guest.tables = guest.tables.saturating_sub(dropped);
        }
        dropped
    }
}

/// Checks a range of at least one frame and gives its addresses.
fn bounds(gfn: u64, pages: u64) -> Result<(u64, u64), Error> {
    let end = gfn.checked_add(pages).filter(|end| pages != 0 && *end <= IPA_END / PAGE_SIZE);
    let end = end.ok_or(Error::Address)?;
    Ok((gfn * PAGE_SIZE, end * PAGE_SIZE))
}

/// The address behind what a descriptor of this level maps.
fn behind(ipa: u64, level: u32) -> u64 {
    (ipa & !(span(level) - 1)) + span(level)
}
