// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Destroying a VM in slices: how often the hypervisor may answer "call again".

use super::refusal::check_status;
use crate::abi::hvc;

/// What to do after a DESTROY_VM call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    Again,
    /// The VM is gone.
    Done,
    /// The hypervisor refused with this status, or never came to an end (then it is ERR_BUSY).
    /// Memory it was given must not be used again.
    Failed(i32),
}

/// Calls still allowed.
#[derive(Clone, Copy, Debug)]
pub struct Destruction {
    calls_left: u64,
}

/// Calls allowed beyond what the pages need: page tables, and a hypervisor that takes smaller steps
/// or waits for a vCPU to leave the guest.
const SLACK: u64 = 1 << 16;

impl Destruction {
    /// A VM to which `pages` pages were mapped, with `batch` pages asked for per call.
    pub fn new(pages: u64, batch: u32) -> Self {
        let needed = pages.div_ceil(u64::from(batch.max(1)));
        Self { calls_left: needed.saturating_mul(16).saturating_add(SLACK) }
    }

    /// Decides from the last call's x0.
    pub fn after(&mut self, x0: u64) -> Step {
        match check_status(x0) {
            Ok(()) => Step::Done,
            Err(hvc::ERR_BUSY) if self.calls_left > 0 => {
                self.calls_left -= 1;
                Step::Again
            }
            Err(status) => Step::Failed(status),
        }
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_destroy))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w20_a_busy_hypervisor_does_not_loop_for_ever() {
        let busy = 0xffff_ffdf;
        let mut destruction = Destruction::new(1 << 18, 128);
        let mut calls = 0u64;
        while destruction.after(busy) == Step::Again {
            calls += 1;
            assert!(calls < 1 << 20);
        }
        assert!(calls >= (1 << 18) / 128);
        assert_eq!(destruction.after(busy), Step::Failed(hvc::ERR_BUSY));
        assert_eq!(destruction.after(0), Step::Done);
        assert_eq!(Destruction::new(0, 0).after(1), Step::Failed(1));
    }
}
