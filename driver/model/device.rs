// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! CREATE_DEVICE: what the hypervisor may be given.

use super::refusal::{invalid, Result};
use crate::abi::{uapi, PAGE_SIZE};

/// Checks the argument; answers the size of the attributes to copy, if there are any.
pub fn check(device: &uapi::CreateDevice) -> Result<Option<usize>> {
    if !matches!(device.dev_type, uapi::DEV_TYPE_VGIC_V3_DIST | uapi::DEV_TYPE_VGIC_V3_REDIST) {
        return Err(invalid("device type is neither distributor nor redistributor"));
    }
    if device.attr_size > PAGE_SIZE {
        return Err(invalid("device attributes are larger than a page"));
    }
    if device.attr_addr == 0 || device.attr_size == 0 {
        return Ok(None);
    }
    Ok(usize::try_from(device.attr_size).ok())
}

/// The structure for the hypervisor: the user's address never gets there.
pub fn for_hypervisor(device: &uapi::CreateDevice, attr_phys: Option<u64>) -> uapi::CreateDevice {
    uapi::CreateDevice {
        attr_addr: attr_phys.unwrap_or(0),
        attr_size: if attr_phys.is_some() { device.attr_size } else { 0 },
        ..*device
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_device))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w26_user_addresses_never_reach_the_hypervisor() {
        let device = uapi::CreateDevice { attr_addr: 0x1234, ..Default::default() };
        assert_eq!(check(&device), Ok(None));
        assert_eq!(for_hypervisor(&device, None).attr_addr, 0);
        let device = uapi::CreateDevice { attr_size: 8, ..device };
        assert_eq!(check(&device), Ok(Some(8)));
        assert_eq!(for_hypervisor(&device, Some(0x5000)).attr_addr, 0x5000);
        assert!(check(&uapi::CreateDevice { attr_size: 4097, ..device }).is_err());
        assert!(check(&uapi::CreateDevice { dev_type: 2, ..device }).is_err());
    }
}
