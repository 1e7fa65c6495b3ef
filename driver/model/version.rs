// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The hypervisor's version: nothing else tells which layout its structures have.

use crate::abi::hvc;

/// What PROBE answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Sub version.
    pub sub: u64,
}

impl Version {
    /// Takes PROBE's answer. Major and minor are 32-bit values.
    pub fn from_answer(x1: u64, x2: u64, x3: u64) -> Self {
        // CAST: truncation is the ABI; old hypervisors leave the registers undefined.
        Self { major: x1 as u32, minor: x2 as u32, sub: x3 }
    }

    /// Is the layout of the vCPU's second page the one that the driver knows? It moved between
    /// versions without another sign. If not, the driver does without: no idle exits, no
    /// virtual-counter time for guests.
    pub fn layout_known(&self) -> bool {
        u64::from(self.major) == hvc::VERSION_MAJOR
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_version))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w47_layout_is_tied_to_the_major_version() {
        assert!(Version::from_answer(16, 3, 9).layout_known());
        assert!(!Version::from_answer(15, 0, 0).layout_known());
        assert!(!Version::from_answer(0xffff_ffff, 0, 0).layout_known());
    }
}
