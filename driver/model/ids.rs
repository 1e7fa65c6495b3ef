// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! VM and vCPU ids that cannot hold a bad value.

use super::refusal::{invalid, Errno, Refusal, Result};
use crate::abi::hvc;

/// A VM id as the hypervisor gave it: 1 to 0xfffe (0 stands for the machine, 0xffff for none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmId(u16);

impl VmId {
    /// Takes CREATE_VM's answer. Ids that the ABI cannot carry are refused, not truncated.
    pub fn from_answer(x1: u64) -> Result<Self> {
        match u16::try_from(x1) {
            Ok(id) if id != 0 && id != u16::MAX => Ok(Self(id)),
            _ => Err(Refusal::new(Errno::Io, "hypervisor answered an impossible VM id")),
        }
    }

    /// The id as an argument.
    pub fn arg(self) -> u64 {
        u64::from(self.0)
    }

    /// VM and vCPU ids as one argument.
    pub fn with_vcpu(self, vcpu: VcpuId) -> u64 {
        hvc::tuple(self.0, vcpu.0)
    }
}

/// A vCPU's index in its VM, below the VM's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuId(u16);

impl VcpuId {
    /// The first vCPU; every VM may have it.
    pub const BOOT: Self = Self(0);

    /// Takes an index from user space.
    pub fn new(index: u64, max_vcpus: u16) -> Result<Self> {
        match u16::try_from(index) {
            Ok(index) if index < max_vcpus => Ok(Self(index)),
            _ => Err(invalid("vCPU index is not below the hypervisor's limit")),
        }
    }

    /// The index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_ids))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn vm_ids_are_not_truncated() {
        assert!(VmId::from_answer(0).is_err());
        assert!(VmId::from_answer(0xffff).is_err());
        assert!(VmId::from_answer(0x1_0001).is_err());
        assert!(VmId::from_answer(0x8000_0001).is_err());
        assert_eq!(VmId::from_answer(0xfffe).map(VmId::arg), Ok(0xfffe));
    }

    #[test]
    fn tuples_carry_both_ids() {
        let vm = VmId::from_answer(3);
        let vcpu = VcpuId::new(7, 8);
        assert_eq!(vm.and_then(|vm| vcpu.map(|vcpu| vm.with_vcpu(vcpu))), Ok(0x3_0007));
        assert!(VcpuId::new(8, 8).is_err());
        assert!(VcpuId::new(1 << 32, 8).is_err());
    }
}
