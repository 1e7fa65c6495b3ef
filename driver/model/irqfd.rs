// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! IRQFD: what the argument asks for.

use super::refusal::{invalid, Result};
use crate::abi::uapi;

/// What IRQFD asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Inject when the eventfd is signalled.
    Assign {
        /// Signal this eventfd when the guest may have ended the interrupt.
        resample: Option<u32>,
    },
    /// Stop.
    Deassign,
}

/// Takes the flags and the padding apart.
pub fn parse(irqfd: &uapi::Irqfd) -> Result<Request> {
    if irqfd.pad.iter().any(|byte| *byte != 0) {
        return Err(invalid("irqfd padding is not 0"));
    }
    let known = uapi::IRQFD_FLAG_DEASSIGN | uapi::IRQFD_FLAG_RESAMPLE;
    if irqfd.flags & !known != 0 {
        return Err(invalid("irqfd flags are unknown"));
    }
    if irqfd.flags & uapi::IRQFD_FLAG_DEASSIGN != 0 {
        return Ok(Request::Deassign);
    }
    let resample = irqfd.flags & uapi::IRQFD_FLAG_RESAMPLE != 0;
    Ok(Request::Assign { resample: resample.then_some(irqfd.resamplefd) })
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_irqfd))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn flags_and_padding_are_checked() {
        let irqfd = uapi::Irqfd { fd: 3, gsi: 4, resamplefd: 5, ..Default::default() };
        assert_eq!(parse(&irqfd), Ok(Request::Assign { resample: None }));
        let resample = uapi::Irqfd { flags: uapi::IRQFD_FLAG_RESAMPLE, ..irqfd };
        assert_eq!(parse(&resample), Ok(Request::Assign { resample: Some(5) }));
        assert_eq!(parse(&uapi::Irqfd { flags: 3, ..irqfd }), Ok(Request::Deassign));
        assert!(parse(&uapi::Irqfd { flags: 4, ..irqfd }).is_err());
        assert!(parse(&uapi::Irqfd { pad: [1; 16], ..irqfd }).is_err());
    }
}
