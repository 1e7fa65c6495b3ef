// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! GET_RANGE_STATE: what the hypervisor, the slots and the driver's pins say together.

use super::addr::{Gfn, PageRange};
use super::refusal::{invalid, Errno, Refusal, Result};
use crate::abi::{ext, uapi};

/// Takes the argument apart: the range asked for.
pub fn parse(argument: &uapi::RangeState) -> Result<PageRange> {
    if argument.flags != 0 || argument.pad != 0 {
        return Err(invalid("range state flags and padding must be 0"));
    }
    PageRange::from_bytes(argument.guest_phys_addr, argument.size)
}

/// The answer for a range that ends earlier than asked, perhaps.
pub fn answer(range: PageRange, state: u32) -> uapi::RangeState {
    uapi::RangeState {
        guest_phys_addr: range.start().gpa(),
        size: range.bytes(),
        state,
        flags: 0,
        pad: 0,
    }
}

/// What is known about a range that lies in one slot.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// QUERY_RANGE_STATE's x1: one of [`ext`]'s `RANGE_*`.
    pub state: u64,
    /// QUERY_RANGE_STATE's x2: for how many pages from the first on.
    pub pages: u64,
    /// Are the first pages pinned?
    pub pinned: bool,
    /// For how many pages from the first on `pinned` holds, at least 1.
    pub pinned_pages: u64,
    /// Is the VM protected?
    pub protected: bool,
}

/// Merges; answers the first part of the range with its state.
///
/// Pages that are pinned but not mapped are what the guest gets when it touches them next: they are
/// reported as what they will be then, so that nobody replaces them.
pub fn merge(range: PageRange, known: &Known) -> Result<(PageRange, u32)> {
    let (state, pages) = match known.state {
        ext::RANGE_PRIVATE => (uapi::RANGE_STATE_PRIVATE, known.pages),
        ext::RANGE_SHARED => (uapi::RANGE_STATE_SHARED, known.pages),
        ext::RANGE_ABSENT => {
            let state = match (known.pinned, known.protected) {
                (false, _) => uapi::RANGE_STATE_UNPINNED,
                (true, false) => uapi::RANGE_STATE_SHARED,
                (true, true) => uapi::RANGE_STATE_PRIVATE,
            };
            (state, known.pages.min(known.pinned_pages))
        }
        _ => return Err(Refusal::new(Errno::Io, "hypervisor answered an unknown range state")),
    };
    let end = Gfn(range.start().0.saturating_add(pages));
    match range.split_at(end) {
        (Some(part), _) => Ok((part, state)),
        (None, _) => Err(Refusal::new(Errno::Io, "hypervisor answered an empty range state")),
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_range_state))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        state: ext::RANGE_ABSENT,
        pages: 100,
        pinned: false,
        pinned_pages: 10,
        protected: false,
    };

    fn merged(known: &Known) -> core::result::Result<(u64, u32), Errno> {
        let Some(range) = PageRange::new(Gfn(1000), 50) else { panic!("a good range") };
        let merged = merge(range, known).map_err(|refusal| refusal.errno)?;
        assert_eq!(merged.0.start(), range.start());
        Ok((merged.0.pages(), merged.1))
    }

    #[test]
    fn only_what_nobody_has_is_unpinned() {
        assert_eq!(merged(&KNOWN), Ok((10, uapi::RANGE_STATE_UNPINNED)));
        let pinned = Known { pinned: true, ..KNOWN };
        assert_eq!(merged(&pinned), Ok((10, uapi::RANGE_STATE_SHARED)));
        let protected = Known { protected: true, ..pinned };
        assert_eq!(merged(&protected), Ok((10, uapi::RANGE_STATE_PRIVATE)));
        let pool = Known { state: ext::RANGE_SHARED, ..protected };
        assert_eq!(merged(&pool), Ok((50, uapi::RANGE_STATE_SHARED)));
    }

    #[test]
    fn absurd_answers_are_errors() {
        assert_eq!(merged(&Known { state: 3, ..KNOWN }), Err(Errno::Io));
        assert_eq!(merged(&Known { pages: 0, ..KNOWN }), Err(Errno::Io));
        let long = Known { state: ext::RANGE_PRIVATE, pages: u64::MAX, ..KNOWN };
        assert_eq!(merged(&long), Ok((50, uapi::RANGE_STATE_PRIVATE)));
    }

    #[test]
    fn arguments_are_checked() {
        let good = uapi::RangeState { guest_phys_addr: 0x1000, size: 0x2000, ..Default::default() };
        assert!(parse(&good).is_ok());
        assert!(parse(&uapi::RangeState { size: 0, ..good }).is_err());
        assert!(parse(&uapi::RangeState { size: 1, ..good }).is_err());
        assert!(parse(&uapi::RangeState { flags: 1, ..good }).is_err());
        assert!(parse(&uapi::RangeState { pad: 1, ..good }).is_err());
        assert!(parse(&uapi::RangeState { guest_phys_addr: !0xfff, ..good }).is_err());
    }
}
