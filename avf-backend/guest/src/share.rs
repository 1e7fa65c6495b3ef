// SPDX-License-Identifier: Apache-2.0
//! Memory that a protected guest shares with the host.

use crate::error::Error;
use crate::geniezone::GenieZone;
use crate::held::Held;
use crate::hvc::Hvc;
use gzvm_abi::guest;

/// A range of guest memory that the host can read and write; private again when dropped.
#[derive(Debug)]
#[must_use = "the memory is private again as soon as this is dropped"]
pub struct SharedRange<'a, H: Hvc>(Held<'a, H>);

impl<'a, H: Hvc> SharedRange<'a, H> {
    /// Shares the range; the contract is that of [`GenieZone::share`].
    pub(crate) fn new(geniezone: &'a GenieZone<H>, base: u64, size: u64) -> Result<Self, Error> {
        let granule = geniezone.share_granule()?;
        let (share, unshare) = (guest::MEM_SHARE, guest::MEM_UNSHARE);
        Held::acquire(geniezone, (base, size), granule, share, unshare).map(Self)
    }

    /// First IPA.
    pub fn base(&self) -> u64 {
        self.0.base()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Makes the memory private again, as dropping does, and says whether that worked.
    ///
    /// # Errors
    ///
    /// The hypervisor's first refusal. The granules concerned stay shared and are counted in
    /// [`GenieZone::stuck_granules`]; the others are private.
    pub fn unshare(self) -> Result<(), Error> {
        self.0.release()
    }
}
