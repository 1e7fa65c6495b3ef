// SPDX-License-Identifier: Apache-2.0
//! All pages of a guest, in slices: protection and teardown.

use super::{Error, Memory, Progress};
use crate::hw::{Hardware, Invalidate, PAGE_SIZE};
use crate::page::Page;
use crate::stage2::{span, Leaf, Stage2, IPA_END, ROOT_PAGES};

/// What a slice's work costs, in about 40 instructions: a look at a descriptor of level 1, at one of
/// another level, a page that changes hands, a table that is built for it.
const ROOT_LOOK: u32 = 1;
const LOOK: u32 = 3;
const PAGE: u32 = 36;
const TABLE: u32 = 100;

fn look(level: u32) -> u32 {
    if level == 1 {
        ROOT_LOOK
    } else {
        LOOK
    }
}

impl Memory<'_> {
    /// Makes the pages mapped so far the VM's own, except where `stays_shared` says so; at most
    /// `budget` pages a call. A page that is in use elsewhere loses its mapping instead, so that
    /// the guest faults there and the host must give another.
    pub fn protect(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        budget: u32,
        stays_shared: impl Fn(u64) -> bool,
    ) -> Result<Progress, Error> {
        let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
        let (s2, mut ipa) = self.guest(vm).map(|g| (g.s2, g.cursor))?;
        let mut left = budget.saturating_mul(PAGE);
        while ipa < IPA_END && left > 0 {
            let walk = s2.walk(hw, ipa);
            left = left.saturating_sub(look(walk.level));
            if let (Leaf::Mapped(pa), false) = (walk.leaf, stays_shared(ipa)) {
                left = left.saturating_sub(PAGE);
                let tables = self.pool.left();
                if self.seize(hw, vm, owner, pa / PAGE_SIZE).is_err() {
                    s2.clear_leaf(hw, ipa, 0);
                }
                let built = u32::try_from(tables - self.pool.left()).unwrap_or(u32::MAX);
                left = left.saturating_sub(built.saturating_mul(TABLE));
            }
            ipa = (ipa & !(span(walk.level) - 1)) + span(walk.level);
        }
        hw.publish();
        hw.invalidate(self.host.space(), Invalidate::All);
        hw.invalidate(s2.space(), Invalidate::All);
        let done = ipa >= IPA_END;
        if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
            guest.cursor = if done { 0 } else { ipa };
        }
        Ok(if done { Progress::Done } else { Progress::More })
    }

    /// Turns a page shared with the VM into its own. In any case it is not shared any more.
    fn seize(&mut self, hw: &impl Hardware, vm: usize, owner: u8, pfn: u64) -> Result<(), Error> {
        if matches!(self.pages.get(pfn), Page::Guest { vm, .. } if vm == owner) {
            return Ok(());
        }
        self.pages.apply(pfn, Page::unshare)?;
        self.count(vm, false, |n| n.saturating_sub(1));
        self.host.make_room(hw, &mut self.pool, pfn * PAGE_SIZE, 3)?;
        self.pages.apply(pfn, |page| page.donate(owner))?;
        self.hide(hw, pfn);
        self.count(vm, true, |n| n + 1);
        Ok(())
    }

    /// Prepares [`Self::teardown`]: the VM will not run again.
    pub fn begin_teardown(&mut self, hw: &impl Hardware, vm: usize) {
        if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
            guest.cursor = 0;
            hw.invalidate(guest.s2.space(), Invalidate::All);
        }
    }

    /// Returns at most `budget` pages of a VM that runs nowhere and will not run again. When it is
    /// done, the slot is free.
    pub fn teardown(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        budget: u32,
    ) -> Result<Progress, Error> {
        let (s2, mut ipa) = self.guest(vm).map(|g| (g.s2, g.cursor))?;
        let mut left = budget.max(1).saturating_mul(PAGE);
        while ipa < IPA_END && left > 0 {
            let walk = s2.walk(hw, ipa);
            left = left.saturating_sub(look(walk.level));
            if let Leaf::Mapped(pa) = walk.leaf {
                left = left.saturating_sub(PAGE);
                s2.clear_leaf(hw, ipa, 0);
                self.release(hw, vm, pa / PAGE_SIZE);
            }
            ipa = (ipa & !(span(walk.level) - 1)) + span(walk.level);
            self.leave_tables(hw, vm, s2, ipa, walk.level);
        }
        if ipa < IPA_END {
            if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
                guest.cursor = ipa;
            }
            return Ok(Progress::More);
        }
        hw.publish();
        hw.invalidate(s2.space(), Invalidate::All);
        for page in 0..ROOT_PAGES {
            hw.wipe_page(s2.space().root + page * PAGE_SIZE);
        }
        if let Some(slot) = self.guests.get_mut(vm) {
            *slot = None;
        }
        Ok(Progress::Done)
    }

    /// Frees the tables that a teardown at `next` has just left.
    fn leave_tables(&mut self, hw: &impl Hardware, vm: usize, s2: Stage2, next: u64, level: u32) {
        for (parent, table_level) in [(2, 3), (1, 2)] {
            if level >= table_level && next.is_multiple_of(span(parent)) {
                let inside = next - 1;
                if s2.drop_table(hw, &mut self.pool, inside, parent) {
                    if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
                        guest.tables = guest.tables.saturating_sub(1);
                    }
                }
            }
        }
    }
}
