// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Records of what backs the guest: runs of frames that are consecutive for guest and host alike.

use super::addr::{Gfn, PageRange, Pfn};

/// A run of pinned and mapped pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the guest sees.
    pub range: PageRange,
    /// The host frame behind the first page.
    pub pfn: Pfn,
    /// When it was mapped last: the VM's mapping count after that.
    pub mapped_at: u64,
}

impl Run {
    /// The host frame behind a guest frame of the run.
    pub fn pfn_of(&self, gfn: Gfn) -> Option<Pfn> {
        self.range.contains(gfn).then(|| Pfn(self.pfn.0 + (gfn.0 - self.range.start().0)))
    }

    /// Does `next` continue the run for guest and host, so that both can be one record?
    pub fn continues(&self, next: &Run) -> bool {
        self.range.end() == next.range.start() && self.pfn.0 + self.range.pages() == next.pfn.0
    }

    /// May a page of the run be unpinned because a vCPU that entered the guest when the mapping
    /// count was `entered_at` came back with a relinquish call for it?
    ///
    /// The hypervisor unmapped the page before that exit, but another vCPU may have faulted it
    /// back in meanwhile. Only a mapping that was complete before the vCPU entered the guest is
    /// surely older than the unmapping; any other page stays pinned, which is always safe.
    pub fn surely_unmapped(&self, entered_at: u64) -> bool {
        self.mapped_at <= entered_at
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_pins))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    fn run(start: u64, pages: u64, pfn: u64, mapped_at: u64) -> Run {
        match PageRange::new(Gfn(start), pages) {
            Some(range) => Run { range, pfn: Pfn(pfn), mapped_at },
            None => panic!("empty"),
        }
    }

    #[test]
    fn runs_join_only_if_both_sides_continue() {
        assert!(run(0, 4, 100, 1).continues(&run(4, 1, 104, 2)));
        assert!(!run(0, 4, 100, 1).continues(&run(4, 1, 105, 2)));
        assert!(!run(0, 4, 100, 1).continues(&run(5, 1, 104, 2)));
        assert_eq!(run(10, 4, 100, 1).pfn_of(Gfn(13)), Some(Pfn(103)));
        assert_eq!(run(10, 4, 100, 1).pfn_of(Gfn(14)), None);
    }

    #[test]
    fn stale_relinquish_keeps_the_pin() {
        // Entered at count 5; the page was mapped again (6) while the vCPU was in the guest.
        assert!(run(0, 1, 7, 5).surely_unmapped(5));
        assert!(!run(0, 1, 7, 6).surely_unmapped(5));
    }
}
