// SPDX-License-Identifier: Apache-2.0
//! Extensions about ranges of guest memory: what is mapped, unmapping, removing regions.

use super::slots::frames;
use super::{status_of, Hypervisor, Status};
use crate::hostcall::{Answer, Call};
use crate::hw::Hardware;
use crate::memory::Presence;
use crate::vm::Removal;
use gzvm_abi::{ext, hvc};

impl<H: Hardware> Hypervisor<'_, H> {
    /// The state of a range, as far as it is the same.
    pub(super) fn range_state(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, _state) = self.live(call.vm())?;
        let memory = self.memory.lock();
        let (presence, pages) =
            memory.range_state(&self.hw, slot, call.x(3), call.x(4)).map_err(status_of)?;
        let state = match presence {
            Presence::Absent => ext::RANGE_ABSENT,
            Presence::Private => ext::RANGE_PRIVATE,
            Presence::Shared => ext::RANGE_SHARED,
        };
        Ok(Answer::ok(state, pages, 0))
    }

    /// Unmaps a slice of a range of an unprotected VM.
    pub(super) fn unmap_range(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, state) = self.live(call.vm())?;
        if state.protected {
            return Err(hvc::ERR_NOT_SUPPORTED);
        }
        let (gfn, pages) = (call.x(3), call.x(4));
        state.regions.holding(gfn, pages).ok_or(hvc::ERR_INVALID_ARGS)?;
        let done = self.memory.lock().unmap_range(&self.hw, slot, gfn, pages).map_err(status_of)?;
        Ok(if done < pages { Answer::busy(done) } else { Answer::ok(done, 0, 0) })
    }

    /// Removes a region in which nothing is mapped. Looking for that takes several slices; the host
    /// makes the same call again until one of them has an answer.
    pub(super) fn remove_region(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, mut state) = self.live(call.vm())?;
        let (gfn, pages) = frames(call.x(3), call.x(4))?;
        state.regions.exactly(gfn, pages).ok_or(hvc::ERR_INVALID_ARGS)?;
        if state.in_firmware(gfn, pages) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let before = state.removal.take().filter(|removal| removal.gfn == gfn);
        let seen = before.map_or(0, |removal| removal.seen);
        let (presence, more) = self
            .memory
            .lock()
            .range_state(&self.hw, slot, gfn + seen, pages - seen)
            .map_err(status_of)?;
        if presence != Presence::Absent {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        if seen + more < pages {
            state.removal = Some(Removal { gfn, seen: seen + more });
            return Ok(Answer::Again);
        }
        state.regions.remove(gfn, pages);
        Ok(Answer::ok(0, 0, 0))
    }
}
