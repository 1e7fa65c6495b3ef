// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Which guest ranges somebody is working on right now: faults of several vCPUs run in parallel,
//! but never two on the same pages, and never while the slot under them goes.

use super::addr::PageRange;
use super::refusal::Result;
use super::store::Store;

/// The ranges being worked on.
///
/// # Invariants
///
/// No two ranges overlap.
pub struct Claims<S>(S);

impl<S: Store<PageRange>> Claims<S> {
    /// Claims over an empty store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// Claims the range; `false` if a part of it is claimed already.
    pub fn claim(&mut self, range: PageRange) -> Result<bool> {
        if self.0.entries().iter().any(|other| other.overlaps(range)) {
            return Ok(false);
        }
        // INVARIANT: the range overlaps none of the others.
        self.0.insert(self.0.entries().len(), range)?;
        Ok(true)
    }

    /// Gives a claimed range up.
    pub fn release(&mut self, range: PageRange) {
        if let Some(at) = self.0.entries().iter().position(|other| *other == range) {
            self.0.remove(at);
        }
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_claims))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::super::addr::Gfn;
    use super::super::store::fixed::Fixed;
    use super::*;

    #[test]
    fn overlapping_claims_wait() {
        let range = |start, pages| match PageRange::new(Gfn(start), pages) {
            Some(range) => range,
            None => panic!("empty"),
        };
        let mut claims = Claims::new(Fixed::<_, 4>::new(range(0, 1)));
        assert_eq!(claims.claim(range(512, 512)), Ok(true));
        assert_eq!(claims.claim(range(1000, 1)), Ok(false));
        assert_eq!(claims.claim(range(1024, 512)), Ok(true));
        claims.release(range(512, 512));
        assert_eq!(claims.claim(range(1000, 1)), Ok(true));
    }
}
