// SPDX-License-Identifier: Apache-2.0
//! The MMIO guard: which pages the host may emulate devices in.
//!
//! Without it, a host could take a page of RAM away and answer the guest's accesses to it as if it
//! were a device.

use crate::error::Error;
use crate::geniezone::GenieZone;
use crate::held::Held;
use crate::hvc::Hvc;
use gzvm_abi::guest;

/// This guest's enrolment in the MMIO guard, which lasts as long as the guest.
#[derive(Debug)]
pub struct MmioGuard<'a, H: Hvc> {
    geniezone: &'a GenieZone<H>,
    granule: u64,
}

impl<'a, H: Hvc> MmioGuard<'a, H> {
    /// The guest has enrolled.
    pub(crate) fn new(geniezone: &'a GenieZone<H>, granule: u64) -> Self {
        Self { geniezone, granule }
    }

    /// The unit of [`map`](Self::map), in bytes.
    pub fn granule(&self) -> u64 {
        self.granule
    }

    /// Lets accesses to the IPAs from `base` on, `size` bytes, reach the host until the value is
    /// dropped.
    ///
    /// # Errors
    ///
    /// The hypervisor's refusal; [`Error::BadRange`] if the range does not consist of granules.
    pub fn map(&self, base: u64, size: u64) -> Result<GuardedRange<'a, H>, Error> {
        let (map, unmap) = (guest::MMIO_GUARD_MAP, guest::MMIO_GUARD_UNMAP);
        Held::acquire(self.geniezone, (base, size), self.granule, map, unmap).map(GuardedRange)
    }
}

/// A range of IPAs in which the host emulates devices.
#[derive(Debug)]
#[must_use = "accesses no longer reach the host as soon as this is dropped"]
pub struct GuardedRange<'a, H: Hvc>(Held<'a, H>);

impl<H: Hvc> GuardedRange<'_, H> {
    /// First IPA.
    pub fn base(&self) -> u64 {
        self.0.base()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// Leaves the range mapped for good, as a console wants it.
    pub fn keep(self) {
        core::mem::forget(self);
    }

    /// Unmaps the range, as dropping does, and says whether that worked.
    ///
    /// # Errors
    ///
    /// The hypervisor's first refusal.
    pub fn unmap(self) -> Result<(), Error> {
        self.0.release()
    }
}
