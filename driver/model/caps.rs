// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the hypervisor can do, and what user space may ask of it.

use super::refusal::{invalid, Errno, Refusal, Result};
use crate::abi::{cap, ext, uapi, BLOCK_PAGES};

/// vCPUs per VM that the driver keeps state for at most.
pub const VCPU_CAP: u16 = 64;

/// The extensions that the driver knows.
const KNOWN: u64 = ext::WAKE_MASK
    | ext::UNMAP
    | ext::IRQ_KIND
    | ext::GET_REG
    | ext::LIMITS
    | ext::RANGE_STATE
    | ext::TEST;

/// The extensions that the hypervisor has and the driver uses (bits of [`ext`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    /// Takes the answer of the discovery; without the magic number there are none. Bits that the
    /// driver does not know are not passed on: it does nothing about them.
    pub fn from_answer(x1: u64, x2: u64) -> Self {
        Self(if x2 == ext::MAGIC { x1 & KNOWN } else { 0 })
    }

    /// What is left where the layout of the vCPU's second page is not known: ends of interrupts are
    /// told there.
    pub fn without_hardware_state(self) -> Self {
        Self(self.0 & !ext::IRQ_KIND)
    }

    /// Is the extension there?
    pub const fn has(self, feature: u64) -> bool {
        self.0 & feature == feature
    }

    /// The bits, for CHECK_EXTENSION.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// What a VM may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// vCPUs, 1 to [`VCPU_CAP`].
    pub vcpus: u16,
    /// Shared interrupts; `None` if the hypervisor does not say.
    pub spis: Option<u16>,
    /// Width of guest physical addresses, 32 to 52.
    pub ipa_bits: u32,
    /// Can VMs be protected?
    pub protected: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { vcpus: 8, spis: None, ipa_bits: uapi::DEFAULT_IPA_BITS, protected: true }
    }
}

impl Limits {
    /// Takes QUERY_LIMITS' answer; absurd values are pulled to the nearest sane ones.
    pub fn from_answer(x1: u64) -> Self {
        let field = |low: u32, mask: u64| (x1 >> low) & mask;
        let vcpus = u16::try_from(field(0, 0xffff)).unwrap_or(u16::MAX);
        let ipa_bits = u32::try_from(field(32, 0xff)).unwrap_or(u32::MAX);
        Self {
            vcpus: vcpus.clamp(1, VCPU_CAP),
            spis: u16::try_from(field(16, 0xffff)).ok(),
            ipa_bits: ipa_bits.clamp(32, 52),
            protected: field(40, 1) != 0,
        }
    }

    /// The limits in QUERY_LIMITS' format, for CHECK_EXTENSION.
    pub fn encode(&self) -> u64 {
        u64::from(self.vcpus)
            | u64::from(self.spis.unwrap_or(0)) << 16
            | u64::from(self.ipa_bits) << 32
            | u64::from(self.protected) << 40
    }
}

/// CHECK_EXTENSION's answer; a refusal for everything the driver does not know. `sync_mmu`: does
/// the guest follow its owner's mapping?
pub fn check_extension(
    cap: u64,
    limits: &Limits,
    features: Features,
    sync_mmu: bool,
) -> Result<u64> {
    match cap {
        cap::SYNC_MMU => Ok(u64::from(sync_mmu)),
        cap::VM_GPA_SIZE => Ok(u64::from(limits.ipa_bits)),
        cap::PROTECTED_VM => Ok(u64::from(limits.protected)),
        ext::DISCOVER => Ok(features.bits() & !ext::TEST),
        ext::QUERY_LIMITS => Ok(limits.encode()),
        _ => Err(Refusal::new(Errno::OpNotSupp, "CHECK_EXTENSION of an unknown capability")),
    }
}

/// What ENABLE_CAP asks for, if user space may ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enable {
    /// Answered with success; the driver did it at the VM's creation where possible.
    Nothing,
    /// Make the VM protected: by firmware at `args[1]`, or (`firmware` is `None`) without.
    Protect {
        /// Where the firmware goes.
        firmware: Option<u64>,
    },
    /// The size of the protected-VM firmware.
    FirmwareSize,
}

/// Decides on ENABLE_CAP. Capabilities between driver and hypervisor stay there: one of them
/// carries a host physical address.
pub fn enable(request: &uapi::EnableCap, limits: &Limits) -> Result<Enable> {
    match request.cap {
        cap::ENABLE_IDLE => Ok(Enable::Nothing),
        cap::PROTECTED_VM if !limits.protected => {
            Err(Refusal::new(Errno::OpNotSupp, "the hypervisor has no protected VMs"))
        }
        cap::PROTECTED_VM => match request.args[0] {
            cap::PVM_SET_PVMFW_GPA => Ok(Enable::Protect { firmware: Some(request.args[1]) }),
            cap::PVM_SET_PROTECTED_VM => Ok(Enable::Protect { firmware: None }),
            cap::PVM_GET_PVMFW_SIZE => Ok(Enable::FirmwareSize),
            _ => Err(invalid("ENABLE_CAP of an unknown protected-VM sub-command")),
        },
        _ => Err(invalid("ENABLE_CAP of a capability that is not user space's")),
    }
}

/// The batch of block demand paging from the hypervisor's answer: a divisor of a block's pages, or
/// `None` if the answer is unusable.
pub fn demand_batch(x1: u64) -> Option<u32> {
    // A block's pages are a power of two, and so are all its divisors.
    let usable = x1.is_power_of_two() && x1 <= BLOCK_PAGES;
    if usable {
        u32::try_from(x1).ok()
    } else {
        None
    }
}

/// The most pages one DESTROY_VM call is asked to work on.
pub const MAX_DESTROY_BATCH: u64 = 1 << 16;

/// The batch of destruction from the hypervisor's answer: a power of two, not above
/// [`MAX_DESTROY_BATCH`], or `None` if the answer is unusable.
pub fn destroy_batch(x1: u64) -> Option<u32> {
    if x1.is_power_of_two() {
        u32::try_from(x1.min(MAX_DESTROY_BATCH)).ok()
    } else {
        None
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_caps))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w01_internal_capabilities_are_internal() {
        for cap in [
            cap::BLOCK_BASED_DEMAND_PAGING,
            cap::ENABLE_DEMAND_PAGING,
            cap::QUERY_HYP_BATCH_PAGES,
            cap::QUERY_DESTROY_BATCH_PAGES,
            ext::DISCOVER,
            ext::TEST_AUDIT,
            0,
        ] {
            let request = uapi::EnableCap { cap, args: [1; 5] };
            let errno = enable(&request, &Limits::default()).map_err(|refusal| refusal.errno);
            assert_eq!(errno, Err(Errno::Inval));
        }
        let request = uapi::EnableCap { cap: cap::ENABLE_IDLE, args: [0; 5] };
        assert_eq!(enable(&request, &Limits::default()), Ok(Enable::Nothing));
    }

    #[test]
    fn w38_absurd_batches_are_not_used() {
        assert_eq!(demand_batch(512), Some(512));
        assert_eq!(demand_batch(64), Some(64));
        for bad in [0, 3, 1024, 1 << 52, u64::MAX] {
            assert_eq!(demand_batch(bad), None);
        }
        assert_eq!(destroy_batch(128), Some(128));
        assert_eq!(destroy_batch(1 << 63), Some(1 << 16));
        for bad in [0, 3, u64::MAX] {
            assert_eq!(destroy_batch(bad), None);
        }
    }

    #[test]
    fn discovery_without_magic_is_nothing() {
        assert_eq!(Features::from_answer(u64::MAX, 0).bits(), 0);
        assert_eq!(Features::from_answer(u64::MAX, ext::MAGIC).bits(), KNOWN);
        let features = Features::from_answer(KNOWN, ext::MAGIC).without_hardware_state();
        assert_eq!(features.bits(), KNOWN & !ext::IRQ_KIND);
        assert!(Features::from_answer(ext::WAKE_MASK, ext::MAGIC).has(ext::WAKE_MASK));
    }

    #[test]
    fn limits_are_clamped_and_survive_encoding() {
        let limits = Limits::from_answer(u64::MAX);
        assert_eq!((limits.vcpus, limits.ipa_bits, limits.protected), (VCPU_CAP, 52, true));
        assert_eq!(Limits::from_answer(limits.encode()), limits);
        assert_eq!(Limits::from_answer(0).vcpus, 1);
    }

    #[test]
    fn unknown_extensions_are_refused() {
        let check = |cap| check_extension(cap, &Limits::default(), Features::default(), true);
        assert_eq!(check(cap::SYNC_MMU), Ok(1));
        assert_eq!(check(cap::VM_GPA_SIZE), Ok(40));
        assert!(check(0).is_err());
        assert!(check(cap::ENABLE_DEMAND_PAGING).is_err());
    }
}
