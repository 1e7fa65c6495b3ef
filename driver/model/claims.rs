// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which guest ranges somebody is working on right now: faults of several vCPUs run in parallel,
//! but never two on the same pages, and never while the slot under them goes.
//!
//! Work has two phases. While it is prepared, pages are pinned and memory is allocated, which may
//! wait for anything, other changes of the owner's address space included. While it is committed,
//! pages are mapped and recorded, which waits for the hypervisor alone: who takes pages away from
//! the guest may therefore wait for commits, but never for preparations.

use super::addr::PageRange;
use super::refusal::Result;
use super::store::Store;

/// One claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// What is worked on.
    pub range: PageRange,
    /// Is it being committed?
    pub committing: bool,
}

/// The ranges being worked on.
///
/// # Invariants
///
/// No two ranges overlap.
pub struct Claims<S>(S);

impl<S: Store<Work>> Claims<S> {
    /// Claims over an empty store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Claims the range; `false` if a part of it is claimed already.
    pub fn claim(&mut self, range: PageRange) -> Result<bool> {
        if self.0.entries().iter().any(|other| other.range.overlaps(range)) {
            return Ok(false);
        }
        // INVARIANT: the range overlaps none of the others.
        self.0.insert(self.0.entries().len(), Work { range, committing: false })?;
        Ok(true)
    }

    /// Enters or leaves the committing phase of a claimed range.
    pub fn set_committing(&mut self, range: PageRange, committing: bool) {
        if let Some(at) = self.position(range) {
            // Where one was taken out, there is room.
            if self.0.remove(at).is_some() {
                let _ = self.0.insert(at, Work { range, committing });
            }
        }
    }

    /// Is a part of the range being committed?
    pub fn commits_in(&self, range: PageRange) -> bool {
        self.0.entries().iter().any(|work| work.committing && work.range.overlaps(range))
    }

    /// Gives a claimed range up.
    pub fn release(&mut self, range: PageRange) {
        if let Some(at) = self.position(range) {
            self.0.remove(at);
        }
    }

    fn position(&self, range: PageRange) -> Option<usize> {
        self.0.entries().iter().position(|work| work.range == range)
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_claims))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::super::addr::Gfn;
    use super::super::store::fixed::Fixed;
    use super::*;

    fn range(start: u64, pages: u64) -> PageRange {
        match PageRange::new(Gfn(start), pages) {
            Some(range) => range,
            None => panic!("empty"),
        }
    }

    fn claims() -> Claims<Fixed<Work, 4>> {
        Claims::new(Fixed::new(Work { range: range(0, 1), committing: false }))
    }

    #[test]
    fn overlapping_claims_wait() {
        let mut claims = claims();
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert_eq!(claims.claim(range(1000, 1)), Ok(false));
        assert_eq!(claims.claim(range(1024, 512)), Ok(true));
        claims.release(range(512, 512));
        assert_eq!(claims.claim(range(1000, 1)), Ok(true));
    }

    #[test]
    fn only_commits_are_waited_for() {
        let mut claims = claims();
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert_eq!(claims.claim(range(1024, 512)), Ok(true));
        assert!(!claims.commits_in(range(0, 4096)));
        claims.set_committing(range(1024, 512), true);
        assert!(claims.commits_in(range(0, 4096)));
        assert!(claims.commits_in(range(1535, 1)));
        assert!(!claims.commits_in(range(512, 512)));
        claims.set_committing(range(1024, 512), false);
        assert!(!claims.commits_in(range(0, 4096)));
        assert_eq!(claims.claim(range(1024, 1)), Ok(false));
    }
}
