// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Taking pages from a guest by UNMAP_RANGE: what to do after each call.

use super::addr::{Gfn, PageRange};
use super::refusal::check_status;
use crate::abi::hvc;

/// What a call of UNMAP_RANGE did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing of the range is mapped any more.
    Done,
    /// Call again for the rest.
    Again,
    /// The hypervisor refused with this status, or never came to an end (then it is ERR_BUSY).
    Failed(i32),
}

/// Calls in a row that may do nothing: the hypervisor waits for a vCPU to leave the guest at most.
const PATIENCE: u32 = 1 << 16;

/// A range on its way out of the guest.
#[derive(Clone, Copy, Debug)]
pub struct Unmapping {
    rest: PageRange,
    patience: u32,
}

impl Unmapping {
    /// A range of which nothing has been unmapped yet.
    pub const fn new(range: PageRange) -> Self {
        Self { rest: range, patience: PATIENCE }
    }

    /// What the next call is about.
    pub const fn rest(&self) -> PageRange {
        self.rest
    }

    /// Decides from the last call's x0 and x1. More pages than asked for count as those asked for.
    pub fn after(&mut self, x0: u64, x1: u64) -> Step {
        match check_status(x0) {
            Ok(()) => Step::Done,
            Err(hvc::ERR_BUSY) => {
                let done = x1.min(self.rest.pages());
                let (done, rest) = self.rest.split_at(Gfn(self.rest.start().0 + done));
                let Some(rest) = rest else { return Step::Done };
                if done.is_some() {
                    self.patience = PATIENCE;
                } else if self.patience == 0 {
                    return Step::Failed(hvc::ERR_BUSY);
                } else {
                    self.patience -= 1;
                }
                self.rest = rest;
                Step::Again
            }
            Err(status) => Step::Failed(status),
        }
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_unmap))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    const BUSY: u64 = 0xffff_ffdf;

    fn range(start: u64, pages: u64) -> PageRange {
        match PageRange::new(Gfn(start), pages) {
            Some(range) => range,
            None => panic!("empty"),
        }
    }

    #[test]
    fn goes_on_behind_what_is_done() {
        let mut unmapping = Unmapping::new(range(100, 50));
        assert_eq!(unmapping.after(BUSY, 20), Step::Again);
        assert_eq!(unmapping.rest(), range(120, 30));
        assert_eq!(unmapping.after(BUSY, 0), Step::Again);
        assert_eq!(unmapping.rest(), range(120, 30));
        assert_eq!(unmapping.after(0, 0), Step::Done);
    }

    #[test]
    fn absurd_progress_is_not_believed() {
        assert_eq!(Unmapping::new(range(100, 50)).after(BUSY, u64::MAX), Step::Done);
        assert_eq!(Unmapping::new(range(100, 50)).after(0xffff_ffe8, 3), Step::Failed(-24));
    }

    #[test]
    fn w20_a_hypervisor_that_does_nothing_is_given_up() {
        let mut unmapping = Unmapping::new(range(0, 1));
        let mut calls = 0u64;
        while unmapping.after(BUSY, 0) != Step::Failed(hvc::ERR_BUSY) {
            calls += 1;
            assert!(calls <= u64::from(PATIENCE));
        }
        assert_eq!(calls, u64::from(PATIENCE));
    }
}
