// SPDX-License-Identifier: Apache-2.0
//! Hypercalls of guests, other than PSCI.

use super::power::answer;
use super::{Next, NOT_SUPPORTED};
use crate::hw::{Hardware, PAGE_SIZE};
use crate::hyp::{Exit, Hypervisor, Running};
use crate::memory::Error;
use crate::psci::is_psci;
use crate::stage2::{Leaf, IPA_END};
use crate::vm::Pending;
use core::sync::atomic::Ordering;
use gzvm_abi::guest as id;

/// SMCCC 1.1.
const SMCCC_VERSION: u64 = 0x1_0001;
/// TRNG 1.0 (Arm DEN0098).
const TRNG_VERSION: u32 = 0x8400_0050;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_UUID: u32 = 0x8400_0052;
const TRNG_RND32: u32 = 0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;
const TRNG_NO_ENTROPY: u64 = -3i64 as u64;
const TRNG_INVALID: u64 = -2i64 as u64;
const INVALID: u64 = id::INVALID_PARAMETER as u64;

impl<H: Hardware> Hypervisor<'_, H> {
    /// Answers the call in the vCPU's registers. All but two are answered here, so that a
    /// protected guest's registers stay between it and the hypervisor.
    pub(super) fn guest_call(&self, running: &mut Running<'_>) -> Next {
        let [x0, x1, ..] = running.vcpu.regs.x;
        // CAST: function ids are 32 bits wide (SMCCC 2.5).
        let function = x0 as u32;
        if is_psci(function) {
            return self.psci(running, function);
        }
        match function {
            id::SMCCC_VERSION => answer(running, SMCCC_VERSION),
            id::SMCCC_ARCH_FEATURES => answer(running, arch_features(x1)),
            id::VENDOR_HYP_UID => words(running, id::GENIEZONE_UID),
            // This generator's id: any value but all ones will do.
            TRNG_UUID => words(running, id::GENIEZONE_UID),
            id::VENDOR_FEATURES => {
                let share = if running.protected { id::FEATURE_MEM_SHARE } else { 0 };
                let bits = 1 | id::FEATURE_PTP | id::FEATURE_MMIO_GUARD | share;
                words(running, [u32::try_from(bits).unwrap_or(0), 0, 0, 0])
            }
            TRNG_VERSION => answer(running, 1 << 16),
            TRNG_FEATURES => {
                // CAST: function ids are 32 bits wide.
                let known = matches!(x1 as u32, TRNG_VERSION..=TRNG_RND32 | TRNG_RND64);
                answer(running, if known { 0 } else { NOT_SUPPORTED })
            }
            TRNG_RND32 => self.random(running, 32),
            TRNG_RND64 => self.random(running, 64),
            id::MEMINFO | id::MMIO_GUARD_INFO => answer(running, PAGE_SIZE),
            id::MMIO_GUARD_ENROLL => {
                running.vm.guarded.store(true, Ordering::Relaxed);
                answer(running, 0)
            }
            id::MMIO_GUARD_MAP => self.guard(running, x1, true),
            id::MMIO_GUARD_UNMAP => self.guard(running, x1, false),
            id::MEM_SHARE => self.share(running, x1, true),
            id::MEM_UNSHARE => self.share(running, x1, false),
            id::MEM_RELINQUISH => self.relinquish(running, x1),
            id::PTP => self.forward_ptp(running),
            _ => answer(running, NOT_SUPPORTED),
        }
    }

    fn random(&self, running: &mut Running<'_>, word: u64) -> Next {
        let bits = running.vcpu.regs.x[1];
        if bits == 0 || bits > 3 * word {
            return answer(running, TRNG_INVALID);
        }
        match self.generator.lock().words(bits, word) {
            Ok(words) => {
                running.vcpu.regs.x.iter_mut().skip(1).zip(words).for_each(|(x, w)| *x = w);
                answer(running, 0)
            }
            Err(_) => answer(running, TRNG_NO_ENTROPY),
        }
    }

    /// Lets accesses to a page reach the host, or stops that. Memory is never such a page.
    fn guard(&self, running: &mut Running<'_>, ipa: u64, allow: bool) -> Next {
        if !usable(ipa) || running.vm.state.lock().region(ipa / PAGE_SIZE).is_some() {
            return answer(running, INVALID);
        }
        let done = self.memory.lock().guard(&self.hw, running.slot, ipa, allow);
        answer(running, if done.is_ok() { 0 } else { INVALID })
    }

    /// Shows a page of a protected VM to the host, or hides it again. In other VMs all memory is
    /// shared, and nothing needs to be done.
    fn share(&self, running: &mut Running<'_>, ipa: u64, open: bool) -> Next {
        let region = running.vm.state.lock().region(ipa / PAGE_SIZE).copied();
        let Some(region) = region.filter(|_| usable(ipa)) else {
            return answer(running, INVALID);
        };
        if !running.protected || region.is_pool() {
            return answer(running, 0);
        }
        let mut memory = self.memory.lock();
        if let Ok(Leaf::Absent(_)) = memory.lookup(&self.hw, running.slot, ipa) {
            // Not there yet: the host brings the page, then the guest makes the call again.
            running.vcpu.regs.pc -= 4;
            return Next::Exit(Exit::Fault(ipa));
        }
        let done = if open {
            memory.open(&self.hw, running.slot, ipa)
        } else {
            memory.close(&self.hw, running.slot, ipa)
        };
        drop(memory);
        answer(running, if done.is_ok() { 0 } else { INVALID })
    }

    /// Gives a page back to the host: gone from the guest and wiped before the host hears of it.
    fn relinquish(&self, running: &mut Running<'_>, ipa: u64) -> Next {
        let [_, _, x2, x3, ..] = running.vcpu.regs.x;
        let region = running.vm.state.lock().region(ipa / PAGE_SIZE).is_some();
        if !usable(ipa) || !region || x2 != 0 || x3 != 0 {
            return answer(running, INVALID);
        }
        match self.memory.lock().unmap(&self.hw, running.slot, ipa) {
            // A page that was never there is as good as given back.
            Ok(()) | Err(Error::Address) => (),
            Err(_) => return answer(running, INVALID),
        }
        let mut args = [0; 8];
        args[0] = u64::from(id::MEM_RELINQUISH);
        args[1] = ipa;
        running.vcpu.regs.x[0] = 0;
        Next::Exit(Exit::Hypercall(args))
    }

    /// The host knows the time.
    fn forward_ptp(&self, running: &mut Running<'_>) -> Next {
        let mut args = [0; 8];
        args[0] = u64::from(id::PTP);
        args[1] = running.vcpu.regs.x[1];
        running.vcpu.pending = Pending::Results;
        Next::Exit(Exit::Hypercall(args))
    }
}

fn usable(ipa: u64) -> bool {
    ipa.is_multiple_of(PAGE_SIZE) && ipa < IPA_END
}

/// What SMCCC_ARCH_FEATURES says of a function.
fn arch_features(about: u64) -> u64 {
    // CAST: function ids are 32 bits wide.
    match about as u32 {
        id::SMCCC_VERSION | id::SMCCC_ARCH_FEATURES => 0,
        _ => NOT_SUPPORTED,
    }
}

/// A result of four 32-bit words.
fn words(running: &mut Running<'_>, words: [u32; 4]) -> Next {
    running.vcpu.regs.x.iter_mut().zip(words).for_each(|(x, word)| *x = u64::from(word));
    Next::Resume
}
