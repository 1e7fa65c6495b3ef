// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! SET_ONE_REG and GET_ONE_REG: how many bytes a register id stands for.

use super::refusal::{invalid, Result};
use crate::abi::reg;

/// The size in bytes of the register's value: 1, 2, 4 or 8. Which registers there are is the
/// hypervisor's business.
pub fn size(id: u64) -> Result<usize> {
    if id & reg::ARCH_MASK != reg::ARCH_ARM64 {
        return Err(invalid("register id is not of arm64"));
    }
    match (id & reg::SIZE_MASK) >> reg::SIZE_SHIFT {
        0 => Ok(1),
        1 => Ok(2),
        2 => Ok(4),
        3 => Ok(8),
        _ => Err(invalid("register is wider than 64 bits")),
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_reg))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_from_the_id() {
        assert_eq!(size(reg::PC), Ok(8));
        assert_eq!(size(reg::ARCH_ARM64), Ok(1));
        assert_eq!(size(reg::ARCH_ARM64 | 2 << reg::SIZE_SHIFT), Ok(4));
        assert!(size(reg::ARCH_ARM64 | 4 << reg::SIZE_SHIFT).is_err());
        assert!(size(0x4030_0000_0010_0000).is_err());
        assert!(size(0).is_err());
    }
}
