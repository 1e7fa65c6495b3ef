// SPDX-License-Identifier: Apache-2.0
//! ENABLE_CAP.

use super::slots::frames;
use super::{status_of, Hypervisor, Status};
use crate::firmware::WINDOW;
use crate::hostcall::{Answer, Call};
use crate::hw::Hardware;
use crate::memory::Progress;
use crate::stage2::IPA_BITS;
use crate::vgic::SPIS;
use crate::vm::{Phase, State, Vm, Window, MAX_VCPUS};
use gzvm_abi::{cap, ext, hvc, BLOCK_SIZE};

/// Pages that become a VM's own in one slice of SET_PROTECTED_VM.
const PROTECT_SLICE: u32 = 32;
/// Pages that the host should map in a call: no more than interrupts may wait for.
const BATCH: u64 = 64;

impl<H: Hardware> Hypervisor<'_, H> {
    pub(super) fn enable_cap(&self, call: &Call) -> Result<Answer, Status> {
        let done = Answer::ok(0, 0, 0);
        match call.x(2) {
            cap::QUERY_HYP_BATCH_PAGES => Ok(Answer::ok(BATCH, 0, 0)),
            cap::QUERY_DESTROY_BATCH_PAGES => {
                Ok(Answer::ok(hvc::DEFAULT_DESTROY_BATCH_PAGES, 0, 0))
            }
            cap::ENABLE_DEMAND_PAGING | cap::ENABLE_IDLE => self.live(call.vm()).map(|_| done),
            cap::BLOCK_BASED_DEMAND_PAGING => self.set_mailbox(call),
            cap::PROTECTED_VM => match call.x(3) {
                cap::PVM_SET_PVMFW_GPA => self.set_firmware(call),
                cap::PVM_GET_PVMFW_SIZE => {
                    self.live(call.vm())?;
                    Ok(Answer::ok(self.firmware.map_or(0, |firmware| firmware.size), 0, 0))
                }
                cap::PVM_SET_PROTECTED_VM => self.set_protected(call),
                _ => Err(hvc::ERR_INVALID_ARGS),
            },
            ext::DISCOVER if !self.options.strict => {
                Ok(Answer::ok(self.extensions(), ext::MAGIC, 0))
            }
            ext::QUERY_LIMITS if !self.options.strict => Ok(Answer::ok(limits(), 0, 0)),
            ext::UNMAP_RANGE if self.offers(ext::UNMAP) => self.unmap_range(call),
            ext::REMOVE_REGION if self.offers(ext::UNMAP) => self.remove_region(call),
            ext::QUERY_RANGE_STATE if self.offers(ext::RANGE_STATE) => self.range_state(call),
            ext::TEST_AUDIT if self.offers(ext::TEST) => {
                let audit = self.memory.lock().audit(&self.hw);
                Ok(Answer::ok(audit.wrong, audit.used, audit.vms))
            }
            ext::TEST_FAULT if self.offers(ext::TEST) => self.set_fault(call),
            _ => Err(hvc::ERR_INVALID_ARGS),
        }
    }

    /// Takes the VM's one mailbox, for good.
    fn set_mailbox(&self, call: &Call) -> Result<Answer, Status> {
        let (_, _, mut state) = self.live(call.vm())?;
        if call.x(3) != BLOCK_SIZE || state.mailbox != 0 || call.x(4) == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        self.memory.lock().pin(call.x(4), 1).map_err(status_of)?;
        state.mailbox = call.x(4);
        Ok(Answer::ok(0, 0, 0))
    }

    fn set_protected(&self, call: &Call) -> Result<Answer, Status> {
        let id = call.vm().ok_or(hvc::ERR_INVALID_ARGS)?;
        let (slot, _, mut state) = self.find(id, &[Phase::Live, Phase::Protecting])?;
        if state.protected {
            return Ok(Answer::ok(0, 0, 0));
        }
        if state.ran {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        self.protect(slot, &mut state)
    }

    /// Makes the VM protected, and notes where its firmware goes: it is loaded, and the first
    /// vCPU's start set, when that is first run.
    fn set_firmware(&self, call: &Call) -> Result<Answer, Status> {
        let id = call.vm().ok_or(hvc::ERR_INVALID_ARGS)?;
        let (slot, _, mut state) = self.find(id, &[Phase::Live, Phase::Protecting])?;
        self.firmware.ok_or(hvc::ERR_NOT_SUPPORTED)?;
        let (gfn, pages) = frames(call.x(4), WINDOW)?;
        if state.firmware.is_some_and(|window| window.gfn == gfn) {
            return match state.protected {
                true => Ok(Answer::ok(0, 0, 0)),
                false => self.protect(slot, &mut state),
            };
        }
        let region = state.region_of_range(gfn, pages).ok_or(hvc::ERR_INVALID_ARGS)?;
        if state.phase != Phase::Live || state.protected || state.ran || !region.is_firmware() {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        state.firmware = Some(Window { gfn, loaded: 0 });
        self.protect(slot, &mut state)
    }

    fn protect(&self, slot: usize, state: &mut State) -> Result<Answer, Status> {
        state.phase = Phase::Protecting;
        let pool = |ipa: u64| {
            state.region(ipa / crate::hw::PAGE_SIZE).is_some_and(|region| region.is_pool())
        };
        let progress = self.memory.lock().protect(&self.hw, slot, PROTECT_SLICE, pool);
        match progress.map_err(status_of)? {
            Progress::More => Ok(Answer::Again),
            Progress::Done => {
                state.phase = Phase::Live;
                state.protected = true;
                Ok(Answer::ok(0, 0, 0))
            }
        }
    }
}

/// The answer to [`ext::QUERY_LIMITS`].
fn limits() -> u64 {
    // CAST: widening of small constants.
    MAX_VCPUS as u64 | (SPIS as u64) << 16 | u64::from(IPA_BITS) << 32 | 1 << 40
}

// A VM that was never used must be all zero, so that the table of VMs needs no space in the image.
const _: () = assert!(size_of::<Vm>() < 64 << 10);
