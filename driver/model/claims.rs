// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which guest ranges somebody is working on right now: faults of several vCPUs run in parallel,
//! but never two on the same pages, and never while the slot under them goes.
//!
//! The owner may change its mappings at the same time. Who brings pages in looks them up first
//! ([`Claims::begin`]) and maps them afterwards ([`Claims::commit`]); a change in between makes the
//! lookup worthless ([`Claims::lose`]), and waits for what is being mapped already
//! ([`Claims::is_committing`]).

use super::addr::PageRange;
use super::refusal::Result;
use super::store::Store;

/// A range that somebody works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    range: PageRange,
    /// What of it was looked up.
    part: PageRange,
    /// Did the owner's mapping change since the pages were looked up?
    lost: bool,
    /// Are pages of it being mapped, so that a change has to wait?
    committing: bool,
}

impl Claim {
    /// A range of which nothing is known yet.
    pub const fn new(range: PageRange) -> Self {
        Self { range, part: range, lost: false, committing: false }
    }
}

/// The ranges being worked on.
///
/// # Invariants
///
/// No two ranges overlap.
pub struct Claims<S>(S);

impl<S: Store<Claim>> Claims<S> {
    /// Claims over an empty store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Claims the range; `false` if a part of it is claimed already.
    pub fn claim(&mut self, range: PageRange) -> Result<bool> {
        if self.in_range(range).next().is_some() {
            return Ok(false);
        }
        // INVARIANT: the range overlaps none of the others.
        self.0.insert(self.0.entries().len(), Claim::new(range))?;
        Ok(true)
    }

    /// Gives a claimed range up.
    pub fn release(&mut self, range: PageRange) {
        if let Some(at) = self.0.entries().iter().position(|claim| claim.range == range) {
            self.0.remove(at);
        }
    }

    /// A part of a claimed range is going to be looked up: earlier changes do not matter.
    pub fn begin(&mut self, range: PageRange, part: PageRange) {
        if let Some(claim) = self.get(range) {
            claim.part = part;
            claim.lost = false;
        }
    }

    /// Pages of a claimed range are going to be mapped, until [`Self::committed`]; `false` if they
    /// have to be looked up again.
    pub fn commit(&mut self, range: PageRange) -> bool {
        let Some(claim) = self.get(range) else { return false };
        claim.committing = !claim.lost;
        claim.committing
    }

    /// What was to be mapped is, and recorded.
    pub fn committed(&mut self, range: PageRange) {
        if let Some(claim) = self.get(range) {
            claim.committing = false;
        }
    }

    /// The owner's mapping behind a range is going to change.
    pub fn lose(&mut self, range: PageRange) {
        for claim in self.0.entries_mut() {
            claim.lost |= claim.part.overlaps(range);
        }
    }

    /// Are pages of the range being mapped, perhaps?
    pub fn is_committing(&self, range: PageRange) -> bool {
        self.in_range(range).any(|claim| claim.committing && claim.part.overlaps(range))
    }

    fn in_range(&self, range: PageRange) -> impl Iterator<Item = &Claim> {
        self.0.entries().iter().filter(move |claim| claim.range.overlaps(range))
    }

    fn get(&mut self, range: PageRange) -> Option<&mut Claim> {
        self.0.entries_mut().iter_mut().find(|claim| claim.range == range)
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

    fn claims() -> Claims<Fixed<Claim, 4>> {
        Claims::new(Fixed::new(Claim::new(range(0, 1))))
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
    fn a_change_after_the_lookup_wins() {
        let mut claims = claims();
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert_eq!(claims.claim(range(1024, 512)), Ok(true));
        claims.lose(range(600, 1));
        assert!(!claims.commit(range(512, 512)));
        assert!(!claims.is_committing(range(600, 1)));
        // Another range.
        assert!(claims.commit(range(1024, 512)));
        claims.begin(range(512, 512), range(512, 512));
        assert!(claims.commit(range(512, 512)));
        claims.release(range(512, 512));
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert!(claims.commit(range(512, 512)));
    }

    #[test]
    fn a_change_beside_what_was_looked_up_does_not_matter() {
        let mut claims = claims();
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        claims.begin(range(512, 512), range(600, 2));
        claims.lose(range(512, 88));
        claims.lose(range(602, 4000));
        assert!(claims.commit(range(512, 512)));
        assert!(!claims.is_committing(range(512, 88)));
        assert!(claims.is_committing(range(601, 1)));
        claims.committed(range(512, 512));
        claims.lose(range(601, 1));
        assert!(!claims.commit(range(512, 512)));
    }

    #[test]
    fn a_change_waits_for_what_is_being_mapped() {
        let mut claims = claims();
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert!(!claims.is_committing(range(0, 4096)));
        assert!(claims.commit(range(512, 512)));
        assert!(claims.is_committing(range(1023, 4096)));
        assert!(!claims.is_committing(range(1024, 4096)));
        claims.committed(range(512, 512));
        assert!(!claims.is_committing(range(0, 4096)));
        assert!(claims.commit(range(512, 512)));
        claims.release(range(512, 512));
        assert!(!claims.is_committing(range(0, 4096)));
    }
}
