// SPDX-License-Identifier: Apache-2.0
//! Single pages of a guest that change hands: shown, hidden, returned, guarded.

use super::{Error, Memory};
use crate::hw::{Hardware, Invalidate, PAGE_SIZE};
use crate::page::Page;
use crate::stage2::{Leaf, GUARD_MAPPED};

impl Memory<'_> {
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
    pub(super) fn release(&mut self, hw: &impl Hardware, vm: usize, pfn: u64) {
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
}
