// SPDX-License-Identifier: Apache-2.0
//! The guests' side: address spaces and mapping.

use super::{Error, GuestSpace, Memory, Progress, Usage};
use crate::hw::{Hardware, Invalidate, Space, PAGE_SIZE};
use crate::page::{Page, Refusal};
use crate::stage2::{Kind, Leaf, Leaves, Stage2, IPA_END, ROOT_PAGES};

/// Tables that one slice of preparations builds.
const TABLES_PER_SLICE: u64 = 6;

impl GuestSpace {
    /// Builds tables down to the page, within the quota.
    pub(super) fn make_room(
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
        self.reserve(hw, vm, gfn, pfns, private, u64::MAX)?;
        self.move_pages(hw, vm, gfn, pfns, |page| match private {
            true => page.donate(owner),
            false => page.share(),
        })?;
        if private {
            self.hide_all(hw, vm, gfn, pfns)?;
        }
        self.commit(hw, vm, gfn, pfns, private)
    }

    /// Builds the tables that mapping these pages needs, a slice of them a call. That changes no
    /// owner and no translation.
    pub fn make_room(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
    ) -> Result<Progress, Error> {
        self.reserve(hw, vm, gfn, pfns, private, TABLES_PER_SLICE)
    }

    /// The frames of a call that are not mapped yet.
    fn absent<'p>(
        &self,
        hw: &'p impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &'p [u64],
    ) -> Result<impl Iterator<Item = (u64, u64)> + 'p, Error> {
        let mut leaves = Leaves::new(self.guest(vm)?.s2, hw);
        let absent =
            move |(gfn, _): &(u64, u64)| matches!(leaves.get(gfn * PAGE_SIZE), Leaf::Absent(_));
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
        let mut leaves = Leaves::new(self.guest(vm)?.s2, hw);
        for (done, (at, pfn)) in (gfn..).zip(pfns.iter().copied()).enumerate() {
            let result = match leaves.get(at * PAGE_SIZE) {
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

    /// Builds tables that mapping the pages needs, until about so many are built.
    fn reserve(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
        tables: u64,
    ) -> Result<Progress, Error> {
        let mut of_guest = Leaves::new(self.guest(vm)?.s2, hw);
        let mut of_host = Leaves::new(self.host, hw);
        let before = self.pool.left();
        for (at, pfn) in (gfn..).zip(pfns.iter().copied()) {
            let (at, pa) = (at * PAGE_SIZE, pfn.saturating_mul(PAGE_SIZE));
            if !of_guest.has_room(at) {
                let guest =
                    self.guests.get_mut(vm).and_then(Option::as_mut).ok_or(Error::Address)?;
                guest.make_room(hw, &mut self.pool, self.quota, at)?;
            }
            // What is not the host's to give will be refused.
            let given = private && self.pages.get(pfn) == Page::FREE;
            if given && !of_host.has_room(pa) {
                self.host.make_room(hw, &mut self.pool, pa, 3)?;
            }
            if before - self.pool.left() >= tables {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
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
        let mut of_host = Leaves::new(self.host, hw);
        for (_, pfn) in self.absent(hw, vm, gfn, pfns)? {
            of_host.clear(pfn * PAGE_SIZE);
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
        let mut leaves = Leaves::new(self.guest(vm)?.s2, hw);
        let mut mapped = 0;
        for (at, pfn) in self.absent(hw, vm, gfn, pfns)? {
            hw.clean_page(pfn * PAGE_SIZE);
            leaves.set(at * PAGE_SIZE, pfn * PAGE_SIZE, Kind::Memory);
            mapped += 1;
        }
        hw.publish();
        self.count(vm, private, |n| n + mapped);
        Ok(())
    }

    pub(super) fn count(&mut self, vm: usize, private: bool, change: impl Fn(u64) -> u64) {
        if let Some(guest) = self.guests.get_mut(vm).and_then(Option::as_mut) {
            let counter = if private { &mut guest.private } else { &mut guest.shared };
            *counter = change(*counter);
        }
    }
}
