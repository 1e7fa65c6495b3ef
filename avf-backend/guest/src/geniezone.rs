// SPDX-License-Identifier: Apache-2.0
//! The way in: a hypervisor that has been checked to be GenieZone.

use crate::clock::{ClockSample, Counter};
use crate::error::{Error, Status};
use crate::hvc::{call32, call64, call_unit, Hvc};
use crate::mmio_guard::MmioGuard;
use crate::share::SharedRange;
use crate::uid::Uid;
use core::sync::atomic::{AtomicUsize, Ordering};
use gzvm_abi::guest;

/// GenieZone below this guest.
#[derive(Debug)]
pub struct GenieZone<H> {
    hvc: H,
    /// Granules that the hypervisor refused to make private or unmapped again when a value was
    /// dropped, where no error can be returned.
    stuck: AtomicUsize,
}

impl<H: Hvc> GenieZone<H> {
    /// Checks the hypervisor's UID.
    ///
    /// # Errors
    ///
    /// [`Error::NotGenieZone`] with the UID that was answered.
    pub fn detect(hvc: H) -> Result<Self, Error> {
        let uid = Uid::query(&hvc);
        if uid != Uid::GENIEZONE {
            return Err(Error::NotGenieZone(uid));
        }
        Ok(Self { hvc, stuck: AtomicUsize::new(0) })
    }

    /// What the hypervisor says it offers to this VM, or `None` if it does not answer that
    /// question (what a phone answers is not known).
    ///
    /// # Errors
    ///
    /// A refusal other than "not supported".
    pub fn features(&self) -> Result<Option<Features>, Error> {
        match call32(&self.hvc, guest::VENDOR_FEATURES, [0; 3]) {
            Ok(answer) => Ok(Some(Features(answer[0]))),
            Err(Error::Refused { status: Status::NOT_SUPPORTED, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The unit of [`share`](Self::share), in bytes.
    ///
    /// # Errors
    ///
    /// The hypervisor's refusal, or an answer that is not a granule.
    pub fn share_granule(&self) -> Result<u64, Error> {
        self.granule(guest::MEMINFO)
    }

    /// Shares the memory at IPA `base`, `size` bytes, with the host until the value is dropped.
    ///
    /// All of it or nothing: if a granule is refused, those before it are taken back.
    ///
    /// # Errors
    ///
    /// The hypervisor's refusal; [`Error::BadRange`] if the range does not consist of granules.
    ///
    /// # Safety
    ///
    /// While the range is shared, and after a failed return of it (see
    /// [`stuck_granules`](Self::stuck_granules)), the host may read and write it at any time: the
    /// caller must own all of it and access it only with volatile or atomic operations, never
    /// through a reference to plain data.
    #[allow(unsafe_code)]
    pub unsafe fn share(&self, base: u64, size: u64) -> Result<SharedRange<'_, H>, Error> {
        SharedRange::new(self, base, size)
    }

    /// Gives the page at IPA `page` back to the host. The hypervisor wipes it first; an access
    /// afterwards gets a fresh page of zeros, or faults.
    ///
    /// # Errors
    ///
    /// The hypervisor's refusal.
    ///
    /// # Safety
    ///
    /// The caller must own the page, and nothing may rely on its contents any more.
    #[allow(unsafe_code)]
    pub unsafe fn relinquish(&self, page: u64) -> Result<(), Error> {
        call_unit(&self.hvc, guest::MEM_RELINQUISH, page)
    }

    /// Enrols in the MMIO guard: from now on only accesses to pages that were
    /// [mapped](MmioGuard::map) reach the host.
    ///
    /// # Errors
    ///
    /// The hypervisor's refusal, or an answer that is not a granule.
    pub fn enroll_mmio_guard(&self) -> Result<MmioGuard<'_, H>, Error> {
        call_unit(&self.hvc, guest::MMIO_GUARD_ENROLL, 0)?;
        Ok(MmioGuard::new(self, self.granule(guest::MMIO_GUARD_INFO)?))
    }

    /// The host's wall clock and a counter, taken at the same moment.
    ///
    /// # Errors
    ///
    /// The host's refusal: "not supported" if its clock does not run on this counter.
    pub fn clock(&self, counter: Counter) -> Result<ClockSample, Error> {
        ClockSample::query(&self.hvc, counter)
    }

    /// Granules that could not be returned when a [`SharedRange`] or a
    /// [`GuardedRange`](crate::GuardedRange) was dropped. Unless this is 0, memory that the guest
    /// takes for private again may still be shared.
    pub fn stuck_granules(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }

    /// The conduit.
    pub(crate) fn hvc(&self) -> &H {
        &self.hvc
    }

    /// Records granules that could not be returned.
    pub(crate) fn add_stuck(&self, granules: usize) {
        self.stuck.fetch_add(granules, Ordering::Relaxed);
    }

    /// Asks `function` for a granule and checks it as AVF's guests do.
    fn granule(&self, function: u32) -> Result<u64, Error> {
        let granule = call64(&self.hvc, function, [0; 3])?[0];
        if !granule.is_power_of_two() || granule < gzvm_abi::PAGE_SIZE {
            return Err(Error::BadGranule { function, granule });
        }
        Ok(granule)
    }
}

/// The features bitmap: bit n says that vendor call n is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(
    /// The bitmap.
    pub u64,
);

impl Features {
    /// Memory can be shared with the host, which is only so where it is not shared already: the VM
    /// is protected.
    pub const fn memory_sharing(self) -> bool {
        self.0 & guest::FEATURE_MEM_SHARE != 0
    }

    /// [`GenieZone::clock`] is offered.
    pub const fn clock(self) -> bool {
        self.0 & guest::FEATURE_PTP != 0
    }

    /// [`GenieZone::enroll_mmio_guard`] is offered.
    pub const fn mmio_guard(self) -> bool {
        self.0 & guest::FEATURE_MMIO_GUARD != 0
    }
}
