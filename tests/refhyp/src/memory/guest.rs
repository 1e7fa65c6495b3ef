// SPDX-License-Identifier: Apache-2.0
//! The guests' side: mapping, sharing, returning and tearing down.

use super::{Error, GuestSpace, Memory, Progress, Usage};
use crate::hw::{Hardware, Invalidate, Space, PAGE_SIZE};
use crate::page::{Page, Refusal};
use crate::stage2::{span, Kind, Leaf, Stage2, GUARD_MAPPED, IPA_END, ROOT_PAGES};

/// Table descriptors that a teardown may look at for one page of its budget.
const LOOKS_PER_PAGE: u32 = 64;

impl GuestSpace {
    /// Builds tables down to the page, within the quota.
    fn make_room(
        &mut self,
        hw: &impl Hardware,
        pool: &mut crate::pool::Pool,
        quota: u64,
        ipa: u64,
    ) -> Result<(), Error> {
        let missing = u64::from(3 - self.s2.walk(hw, ipa).level);
        if missing != 0 && self.tables + missing > quota {
            return Err(Error::NoMemory);
        }
        // A failure half way leaves empty tables, which the next attempt finds.
        let before = pool.left();
        let result = self.s2.make_room(hw, pool, ipa, 3);
        self.tables += before - pool.left();
        result?;
        Ok(())
    }
}

impl Memory<'_> {
    /// Opens an empty address space for the VM in a free slot.
    pub fn create(&mut self, hw: &impl Hardware, vm: usize) -> Result<Space, Error> {
        let index = u16::try_from(vm).map_err(|_| Error::Address)?;
        let slot = self.guests.get_mut(vm).filter(|s| s.is_none()).ok_or(Error::Address)?;
        let root = self.roots + u64::from(index) * ROOT_PAGES * PAGE_SIZE;
        let space = Space { vmid: index + 1, root };
        *slot = Some(GuestSpace {
            s2: Stage2::new(space),
            tables: ROOT_PAGES,
            private: 0,
            shared: 0,
            cursor: 0,
        });
        hw.invalidate(space, Invalidate::All);
        Ok(space)
    }

    /// The address space of the VM in a slot.
    pub fn guest_space(&self, vm: usize) -> Option<Space> {
        self.guest(vm).ok().map(|guest| guest.s2.space())
    }

    /// What the VM uses.
    pub fn usage(&self, vm: usize) -> Usage {
        self.guest(vm).map_or_else(
            |_| Usage::default(),
            |g| Usage { tables: g.tables, private: g.private, shared: g.shared },
        )
    }

    /// What the VM has at a guest address.
    pub fn lookup(&self, hw: &impl Hardware, vm: usize, ipa: u64) -> Result<Leaf, Error> {
        if ipa >= IPA_END {
            return Err(Error::Address);
        }
        Ok(self.guest(vm)?.s2.walk(hw, ipa).leaf)
    }

    /// Maps host pages at guest frames `gfn`, `gfn` + 1 and so on: given to the VM if `private`,
    /// else shared with it. What is already mapped exactly so is left alone; anything else in the
    /// way, or any page that is not free to be used so, refuses the whole.
    pub fn map(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
    ) -> Result<(), Error> {
        let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
        let count = u64::try_from(pfns.len()).map_err(|_| Error::Address)?;
        let end = gfn.checked_add(count).ok_or(Error::Address)?;
        if end > IPA_END / PAGE_SIZE {
            return Err(Error::Address);
        }
        self.move_pages(hw, vm, gfn, pfns, |page| match private {
            true => page.donate(owner),
            false => page.share(),
        })?;
        if let Err(error) = self.reserve(hw, vm, gfn, pfns, private) {
            self.undo_pages(hw, vm, gfn, pfns, owner, private);
            return Err(error);
        }
        if private {
            self.hide_all(hw, vm, gfn, pfns)?;
        }
        self.commit(hw, vm, gfn, pfns, private)
    }

    /// The frames of a call that are not mapped yet.
    fn absent<'p>(
        &self,
        hw: &'p impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &'p [u64],
    ) -> Result<impl Iterator<Item = (u64, u64)> + 'p, Error> {
        let s2 = self.guest(vm)?.s2;
        let absent = move |(gfn, _): &(u64, u64)| {
            matches!(s2.walk(hw, gfn * PAGE_SIZE).leaf, Leaf::Absent(_))
        };
        Ok((gfn..).zip(pfns.iter().copied()).filter(absent))
    }

    /// Puts all pages of a call through a transition, or none.
    fn move_pages(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        transition: impl Fn(Page) -> Result<Page, Refusal>,
    ) -> Result<(), Error> {
        let s2 = self.guest(vm)?.s2;
        for (done, (at, pfn)) in (gfn..).zip(pfns.iter().copied()).enumerate() {
            let result = match s2.walk(hw, at * PAGE_SIZE).leaf {
                Leaf::Absent(_) => self.pages.apply(pfn, &transition).map_err(Error::from),
                Leaf::Mapped(pa) => self.same_mapping(vm, pa, pfn, &transition),
            };
            if let Err(error) = result {
                let private = matches!(transition(Page::FREE), Ok(Page::Guest { .. }));
                let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
                let moved = pfns.get(..done).unwrap_or_default();
                self.undo_pages(hw, vm, gfn, moved, owner, private);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether an existing mapping is the very one that is asked for.
    fn same_mapping(
        &self,
        vm: usize,
        pa: u64,
        pfn: u64,
        transition: impl Fn(Page) -> Result<Page, Refusal>,
    ) -> Result<(), Error> {
        let private = matches!(transition(Page::FREE), Ok(Page::Guest { .. }));
        let same = pa / PAGE_SIZE == pfn
            && match self.pages.get(pfn) {
                Page::Guest { vm: owner, .. } => private && usize::from(owner) == vm,
                Page::Host { .. } => !private,
                _ => false,
            };
        same.then_some(()).ok_or(Error::Address)
    }

    /// Takes back what [`Self::move_pages`] did, before any translation followed it.
    fn undo_pages(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        owner: u8,
        private: bool,
    ) {
        let Ok(absent) = self.absent(hw, vm, gfn, pfns) else { return };
        for (_, pfn) in absent {
            let back = |page: Page| if private { page.reclaim(owner) } else { page.unshare() };
            let undone = self.pages.apply(pfn, back);
            debug_assert!(undone.is_ok(), "undo of what was not done: {undone:?}");
        }
    }

    /// Builds all tables that mapping the pages needs.
    fn reserve(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
    ) -> Result<(), Error> {
        for (at, pfn) in (gfn..).zip(pfns.iter().copied()) {
            let guest = self.guests.get_mut(vm).and_then(Option::as_mut).ok_or(Error::Address)?;
            guest.make_room(hw, &mut self.pool, self.quota, at * PAGE_SIZE)?;
            if private {
                self.host.make_room(hw, &mut self.pool, pfn * PAGE_SIZE, 3)?;
            }
        }
        Ok(())
    }

    /// Takes newly given pages away from the host.
    fn hide_all(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
    ) -> Result<(), Error> {
        let mut hidden = (0u64, 0u64);
        for (_, pfn) in self.absent(hw, vm, gfn, pfns)? {
            self.hide(hw, pfn);
            hidden = (hidden.0 + 1, pfn);
        }
        hw.publish();
        match hidden {
            (0, _) => (),
            (1, pfn) => hw.invalidate(self.host.space(), Invalidate::Page(pfn * PAGE_SIZE)),
            _ => hw.invalidate(self.host.space(), Invalidate::All),
        }
        Ok(())
    }

    fn commit(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
    ) -> Result<(), Error> {
        let s2 = self.guest(vm)?.s2;
        let mut mapped = 0;
        for (at, pfn) in self.absent(hw, vm, gfn, pfns)? {
            hw.clean_page(pfn * PAGE_SIZE);
            s2.set_leaf(hw, at * PAGE_SIZE, 3, pfn * PAGE_SIZE, Kind::Memory);
            mapped += 1;
        }
        hw.publish();
        self.count(vm, private, |n| n + mapped);
        Ok(())
    }

    fn count(&mut self, vm: usize, private: bool, change: impl Fn(u64) -> u64) {
        if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
            let counter = if private { &mut guest.private } else { &mut guest.shared };
            *counter = change(*counter);
        }
    }

    /// The host frame behind a page of the VM.
    fn frame(&self, hw: &impl Hardware, vm: usize, ipa: u64) -> Result<u64, Error> {
        match self.lookup(hw, vm, ipa)? {
            Leaf::Mapped(pa) => Ok(pa / PAGE_SIZE),
            Leaf::Absent(_) => Err(Error::Address),
        }
    }

    /// The VM lets the host see one of its pages. Pages that the host sees already succeed.
    pub fn open(&mut self, hw: &impl Hardware, vm: usize, ipa: u64) -> Result<(), Error> {
        let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
        let pfn = self.frame(hw, vm, ipa)?;
        if self.pages.get(pfn).host_sees() {
            return Ok(());
        }
        self.pages.apply(pfn, |page| page.open(owner))?;
        self.reveal(hw, pfn);
        self.count(vm, true, |n| n - 1);
        self.count(vm, false, |n| n + 1);
        Ok(())
    }

    /// The VM hides a page from the host again. Pages that were the host's all along are refused.
    pub fn close(&mut self, hw: &impl Hardware, vm: usize, ipa: u64) -> Result<(), Error> {
        let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
        let pfn = self.frame(hw, vm, ipa)?;
        self.pages.apply(pfn, |page| page.close(owner))?;
        self.hide(hw, pfn);
        hw.publish();
        hw.invalidate(self.host.space(), Invalidate::Page(pfn * PAGE_SIZE));
        self.count(vm, true, |n| n + 1);
        self.count(vm, false, |n| n - 1);
        Ok(())
    }

    /// Takes a page out of the VM and gives it back to the host, wiped if it was the VM's.
    pub fn unmap(&mut self, hw: &impl Hardware, vm: usize, ipa: u64) -> Result<(), Error> {
        let pfn = self.frame(hw, vm, ipa)?;
        let s2 = self.guest(vm)?.s2;
        s2.clear_leaf(hw, ipa, 0);
        hw.publish();
        hw.invalidate(s2.space(), Invalidate::Page(ipa & !(PAGE_SIZE - 1)));
        self.release(hw, vm, pfn);
        Ok(())
    }

    /// Ends the VM's use of a page that it does not map any more.
    fn release(&mut self, hw: &impl Hardware, vm: usize, pfn: u64) {
        let Ok(owner) = u8::try_from(vm) else { return };
        match self.pages.get(pfn) {
            state @ Page::Guest { open, .. } if state.reclaim(owner).is_ok() => {
                hw.wipe_page(pfn * PAGE_SIZE);
                let reclaimed = self.pages.apply(pfn, |page| page.reclaim(owner));
                debug_assert!(reclaimed.is_ok());
                self.reveal(hw, pfn);
                self.count(vm, !open, |n| n.saturating_sub(1));
            }
            state => {
                let unshared = self.pages.apply(pfn, Page::unshare);
                debug_assert!(unshared.is_ok(), "mapped page in state {state:?}");
                self.count(vm, false, |n| n.saturating_sub(1));
            }
        }
    }

    /// Lets the guest's accesses to an unmapped page reach the host, or stops that.
    pub fn guard(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        ipa: u64,
        allow: bool,
    ) -> Result<(), Error> {
        if let Leaf::Mapped(_) = self.lookup(hw, vm, ipa)? {
            return Err(Error::Address);
        }
        let guest = self.guests.get_mut(vm).and_then(Option::as_mut).ok_or(Error::Address)?;
        guest.make_room(hw, &mut self.pool, self.quota, ipa)?;
        guest.s2.clear_leaf(hw, ipa, if allow { GUARD_MAPPED } else { 0 });
        Ok(())
    }

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
        let mut left = budget.saturating_mul(LOOKS_PER_PAGE);
        while ipa < IPA_END && left > 0 {
            let walk = s2.walk(hw, ipa);
            left = left.saturating_sub(1);
            if let (Leaf::Mapped(pa), false) = (walk.leaf, stays_shared(ipa)) {
                left = left.saturating_sub(LOOKS_PER_PAGE);
                if self.seize(hw, vm, owner, pa / PAGE_SIZE).is_err() {
                    s2.clear_leaf(hw, ipa, 0);
                }
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
        let mut left = budget.max(1).saturating_mul(LOOKS_PER_PAGE);
        while ipa < IPA_END && left > 0 {
            let walk = s2.walk(hw, ipa);
            left -= 1;
            if let Leaf::Mapped(pa) = walk.leaf {
                left = left.saturating_sub(LOOKS_PER_PAGE);
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
