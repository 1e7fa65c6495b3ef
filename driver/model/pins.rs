// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Records of what backs the guest. A run of pages that are consecutive for guest and host alike
//! takes one record. Pages of many runs are in a table with an entry each.

use super::addr::Pfn;

/// A page that is pinned and mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The host's frame.
    pub pfn: Pfn,
    /// When it, or a page of the same record, was mapped last: the VM's mapping count after that.
    pub mapped_at: u64,
}

impl Mapped {
    /// May the page be unpinned because a vCPU that entered the guest when the mapping count was
    /// `entered_at` came back with a relinquish call for it?
    ///
    /// The hypervisor unmapped the page before that exit, but another vCPU may have faulted it
    /// back in meanwhile. Only a mapping that was complete before the vCPU entered the guest is
    /// surely older than the unmapping; any other page stays pinned, which is always safe.
    pub fn surely_unmapped(&self, entered_at: u64) -> bool {
        self.mapped_at <= entered_at
    }
}

/// The most runs of which each has a record of its own: with more, one record and a table of so
/// many bytes take less memory.
pub const fn most_runs(record_bytes: usize, table_bytes: usize) -> usize {
    1 + table_bytes / record_bytes
}

/// The first entries of a table from index `from` on that have a page, without a gap: where they
/// begin, and how many they are.
pub fn stretch(len: usize, from: usize, has: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let start = (from..len).find(|at| has(*at))?;
    let end = (start..len).find(|at| !has(*at)).unwrap_or(len);
    Some((start, end - start))
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_pins))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn stale_relinquish_keeps_the_pin() {
        // Entered at count 5; the page was mapped again (6) while the vCPU was in the guest.
        let mapped = |mapped_at| Mapped { pfn: Pfn(7), mapped_at };
        assert!(mapped(5).surely_unmapped(5));
        assert!(!mapped(6).surely_unmapped(5));
    }

    #[test]
    fn stretches_end_at_gaps() {
        const PAGES: [bool; 6] = [true, true, false, false, true, false];
        let first = |from| stretch(PAGES.len(), from, |at| PAGES[at]);
        assert_eq!(first(0), Some((0, 2)));
        assert_eq!(first(1), Some((1, 1)));
        assert_eq!(first(2), Some((4, 1)));
        assert_eq!(first(5), None);
        assert_eq!(first(9), None);
    }

    #[test]
    fn w30_a_single_run_needs_no_table() {
        assert_eq!(most_runs(64, 0), 1);
        assert_eq!(most_runs(64, 512 * 8), 65);
    }
}
