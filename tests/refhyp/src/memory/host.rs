// SPDX-License-Identifier: Apache-2.0
//! The host's side: its identity map, and what happens when it touches what it gave away.

use super::{Error, Memory};
use crate::hw::{Hardware, Invalidate, PAGE_SIZE};
use crate::page::Page;
use crate::stage2::{span, Kind, Leaf};

/// An access of the host that stage 2 stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAccess {
    /// The address, page aligned or not.
    pub ipa: u64,
    /// By user mode itself; a table walk on its behalf is the kernel's.
    pub user: bool,
    /// An instruction fetch.
    pub fetch: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// Let the instruction run again.
    Retry,
    /// Give the host a synchronous external abort.
    Abort,
}

impl Memory<'_> {
    /// Maps a page-aligned range of the host's address space to itself, in the largest pieces.
    /// For the time before the host runs.
    pub fn map_identity(
        &mut self,
        hw: &impl Hardware,
        start: u64,
        end: u64,
        kind: Kind,
    ) -> Result<(), Error> {
        let mut at = start;
        while at < end {
            let fits = |level: &u32| at.is_multiple_of(span(*level)) && span(*level) <= end - at;
            let level = (1..=3).find(fits).ok_or(Error::Address)?;
            self.host.make_room(hw, &mut self.pool, at, level)?;
            self.host.set_leaf(hw, at, level, at, kind);
            at += span(level);
        }
        hw.publish();
        Ok(())
    }

    /// Decides about an access of the host that faulted (design: an access to a protected VM's
    /// page reveals nothing and is survivable).
    ///
    /// User mode gets an abort, which its kernel turns into SIGBUS. For the kernel itself an abort
    /// would be fatal, and a translation fault would loop; so its data accesses find a scratch
    /// page in that place until the page returns.
    pub fn host_fault(&mut self, hw: &impl Hardware, access: HostAccess) -> HostFault {
        let page = access.ipa & !(PAGE_SIZE - 1);
        if page >= crate::stage2::IPA_END {
            return HostFault::Abort;
        }
        let state = self.pages.get(page / PAGE_SIZE);
        match self.host.walk(hw, page).leaf {
            // Mapped after all: another CPU was between break and make, or mapped it since. Only
            // fetches can be forbidden by a mapping, and never from the host's own memory.
            Leaf::Mapped(_) if !access.fetch || state.host_sees() => HostFault::Retry,
            Leaf::Mapped(_) => HostFault::Abort,
            Leaf::Absent(_) => match state {
                Page::Guest { open: false, .. } if !access.user && !access.fetch => {
                    // What was written there on behalf of another process is not for this one.
                    hw.wipe_page(self.scratch);
                    self.host.set_leaf(hw, page, 3, self.scratch, Kind::Data);
                    hw.publish();
                    HostFault::Retry
                }
                _ => HostFault::Abort,
            },
        }
    }

    /// Takes one page out of the host's address space; the caller invalidates. Room was made.
    pub(super) fn hide(&mut self, hw: &impl Hardware, pfn: u64) {
        self.host.clear_leaf(hw, pfn * PAGE_SIZE, 0);
    }

    /// Puts one page back into the host's address space.
    pub(super) fn reveal(&mut self, hw: &impl Hardware, pfn: u64) {
        let pa = pfn * PAGE_SIZE;
        match self.host.walk(hw, pa).leaf {
            Leaf::Mapped(to) if to == pa => return,
            Leaf::Mapped(_) => {
                self.host.clear_leaf(hw, pa, 0);
                hw.publish();
                hw.invalidate(self.host.space(), Invalidate::Page(pa));
            }
            Leaf::Absent(_) => (),
        }
        self.host.set_leaf(hw, pa, 3, pa, Kind::Memory);
        hw.publish();
    }
}
