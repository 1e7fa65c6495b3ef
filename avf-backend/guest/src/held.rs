// SPDX-License-Identifier: Apache-2.0
//! A range of granules for which a call was made and that must be given back.

use crate::error::Error;
use crate::geniezone::GenieZone;
use crate::hvc::{call_unit, Hvc};

/// Granules for which the hypervisor accepted a call, undone by another call on drop, last first.
#[derive(Debug)]
pub(crate) struct Held<'a, H: Hvc> {
    geniezone: &'a GenieZone<H>,
    base: u64,
    /// End of what is held. Invariant: `end - base` is a multiple of `granule`.
    end: u64,
    granule: u64,
    /// Function id of the call that gives a granule back.
    undo: u32,
}

impl<'a, H: Hvc> Held<'a, H> {
    /// Calls `apply` for each granule of the range: all of them, or none and an error.
    pub(crate) fn acquire(
        geniezone: &'a GenieZone<H>,
        (base, size): (u64, u64),
        granule: u64,
        apply: u32,
        undo: u32,
    ) -> Result<Self, Error> {
        let aligned = base.is_multiple_of(granule) && size.is_multiple_of(granule) && size != 0;
        let bad = Error::BadRange { base, size, granule };
        let end = base.checked_add(size).filter(|_| aligned).ok_or(bad)?;
        let mut held = Self { geniezone, base, end: base, granule, undo };
        while held.end < end {
            // On failure, dropping `held` gives back what it has by then.
            call_unit(geniezone.hvc(), apply, held.end)?;
            held.end += granule;
        }
        Ok(held)
    }

    /// First address.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.end - self.base
    }

    /// Gives everything back, and says what went wrong first.
    pub(crate) fn release(mut self) -> Result<(), Error> {
        self.undo_all()
    }

    /// Gives back granule after granule, also after a failure.
    fn undo_all(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while self.end > self.base {
            self.end -= self.granule;
            if let Err(error) = call_unit(self.geniezone.hvc(), self.undo, self.end) {
                self.geniezone.add_stuck(1);
                result = result.and(Err(error));
            }
        }
        result
    }
}

impl<H: Hvc> Drop for Held<'_, H> {
    fn drop(&mut self) {
        // Failures are in the count of stuck granules; there is nobody to return them to.
        let _ = self.undo_all();
    }
}
