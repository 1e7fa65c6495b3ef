// SPDX-License-Identifier: Apache-2.0
//! Carrying out the fault plan ([`crate::plan`]). Test builds only: others never come here.

use super::{Hypervisor, Status};
use crate::hostcall::{index, Answer, Call};
use crate::hw::Hardware;
use crate::plan::{Entry, Mode};
use gzvm_abi::{ext, hvc};

/// Ticks that a delayed call spins for.
const DELAY: u64 = 1_000_000;
/// What a lie has in x1 to x3.
const RUBBISH: u64 = 0xbad0_cafe_bad0_cafe;

impl<H: Hardware> Hypervisor<'_, H> {
    /// Answers a call of the host, unless the plan has something else for it.
    pub(super) fn planned_call(&self, call: &Call) -> Answer {
        const ENABLE_CAP: u32 = index(hvc::ENABLE_CAP);
        if call.index == ENABLE_CAP && matches!(call.x(2), ext::TEST_FAULT | ext::TEST_AUDIT) {
            return self.true_call(call);
        }
        let struck = self.plan.lock().strike(call.index);
        match struck {
            None => self.counted_call(call),
            Some((Mode::Refuse, status)) => Answer::status(status),
            Some((Mode::Lie, status)) => self.lying_call(call, status),
            Some((Mode::Delay, _)) => {
                let start = self.hw.counter();
                while self.hw.counter().wrapping_sub(start) < DELAY {
                    crate::lock::relax();
                }
                self.counted_call(call)
            }
        }
    }

    /// The host will make a call again that is not finished: that is no new one.
    pub fn made_again(&self, call: &Call) {
        if cfg!(feature = "test-hooks") {
            self.plan.lock().unfinished(call.index);
        }
    }

    fn counted_call(&self, call: &Call) -> Answer {
        let answer = self.true_call(call);
        if answer == Answer::Again {
            self.made_again(call);
        }
        answer
    }

    /// Does all slices of the call at once: the host must not make it again.
    fn lying_call(&self, call: &Call, status: Status) -> Answer {
        // CAST: sign extension.
        let lie = [status as i64 as u64, RUBBISH, RUBBISH, RUBBISH];
        loop {
            match self.true_call(call) {
                Answer::Again => (),
                Answer::Run { ids, .. } => return Answer::Run { ids, instead: Some(lie) },
                Answer::Done(_) => return Answer::Done(lie),
            }
        }
    }

    /// Changes the plan.
    pub(super) fn set_fault(&self, call: &Call) -> Result<Answer, Status> {
        let mode = Mode::from_abi(call.x(7)).ok_or(hvc::ERR_INVALID_ARGS)?;
        // CAST: a status is 32 bits wide.
        let entry =
            Entry { skip: call.x(4), count: call.x(5), status: call.x(6) as u32 as i32, mode };
        let struck = self.plan.lock().set(call.x(3), entry);
        Ok(Answer::ok(struck.ok_or(hvc::ERR_INVALID_ARGS)?, 0, 0))
    }
}
