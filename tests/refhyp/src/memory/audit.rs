// SPDX-License-Identifier: Apache-2.0
//! Compares the live translation tables with the ownership table.

use super::Memory;
use crate::hw::{Hardware, PAGE_SIZE};
use crate::page::Page;
use crate::stage2::{span, Leaf};

/// What an audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Pages whose translation and ownership disagree.
    pub wrong: u64,
    /// Pages that are not simply the host's: guests', shared, pinned, and the guests' tables.
    pub used: u64,
    /// Address spaces of VMs.
    pub vms: u64,
}

impl Memory<'_> {
    /// Walks all tables. Takes long; for tests.
    pub fn audit(&self, hw: &impl Hardware) -> Audit {
        let mut audit = Audit::default();
        let shares = self.audit_host(hw, &mut audit);
        let mut mapped_shares = 0;
        for (vm, guest) in self.guests.iter().enumerate() {
            let Some(guest) = guest else { continue };
            audit.vms += 1;
            audit.used += guest.tables;
            guest.s2.for_each(hw, 0, |_, walk| {
                let Leaf::Mapped(pa) = walk.leaf else { return };
                match self.pages.get(pa / PAGE_SIZE) {
                    Page::Guest { vm: owner, .. } if usize::from(owner) == vm => (),
                    Page::Host { shares: 1.., .. } => mapped_shares += 1,
                    _ => audit.wrong += 1,
                }
            });
        }
        audit.wrong += shares.abs_diff(mapped_shares);
        audit
    }

    /// Checks the host's address space against every page; returns the shares in the table.
    fn audit_host(&self, hw: &impl Hardware, audit: &mut Audit) -> u64 {
        let mut shares = 0;
        // A block covers many pages: walk once for all of them.
        let mut block = None;
        for (pfn, state) in self.pages.iter() {
            let pa = pfn * PAGE_SIZE;
            let leaf = match block {
                Some((end, true)) if pa < end => Leaf::Mapped(pa),
                Some((end, false)) if pa < end => Leaf::Absent(0),
                _ => {
                    let walk = self.host.walk(hw, pa);
                    let end = (pa & !(span(walk.level) - 1)) + span(walk.level);
                    block = (walk.level < 3).then_some((end, walk.leaf == Leaf::Mapped(pa)));
                    walk.leaf
                }
            };
            let right = match leaf {
                Leaf::Mapped(to) if to == pa => state.host_sees(),
                Leaf::Mapped(to) => {
                    to == self.scratch && matches!(state, Page::Guest { open: false, .. })
                }
                Leaf::Absent(_) => !state.host_sees(),
            };
            audit.wrong += u64::from(!right);
            match state {
                Page::Guest { .. } => audit.used += 1,
                Page::Host { shares: s, pins } => {
                    shares += u64::from(s);
                    audit.used += u64::from(s != 0 || pins != 0);
                }
                Page::Absent | Page::Hypervisor => (),
            }
        }
        shares
    }
}
