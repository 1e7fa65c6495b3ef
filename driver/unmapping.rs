// SPDX-License-Identifier: GPL-2.0

//! Taking pages from a guest while its VM lives, where the hypervisor has extension UNMAP.
//!
//! The caller sees to it that nothing is mapped into the range meanwhile. Several may take pages of
//! one range: each is unpinned once. Pages are unmapped first
//! and forgotten and unpinned afterwards, so that a failure in between harms nobody.

use crate::{
    abi::ext,
    hyp,
    kx::sched,
    model::{
        addr::PageRange,
        refusal::{
            Errno,
            Refusal, //
        },
        unmap::{
            Step,
            Unmapping, //
        }, //
    },
    pages::Pages,
    record::Reservation, //
};
use kernel::prelude::*;

/// Pages that are unmapped between two looks at signals.
const UNMAP_PAGES: u64 = 1 << 15;

impl Pages {
    /// Can pages be taken from this guest? Else the reason.
    pub(crate) fn check_unmappable(&self) -> Result<(), Refusal> {
        if !self.gzvm().features.has(ext::UNMAP) {
            let why = "memory is mapped, and the hypervisor cannot unmap it: end the VM instead";
            return Err(Refusal::new(Errno::OpNotSupp, why));
        }
        if self.is_protected() {
            let why = "memory of a protected VM is its own until it gives it back or ends";
            return Err(Refusal::new(Errno::Busy, why));
        }
        Ok(())
    }

    /// Unmaps and unpins all of a range. Ends early, with -EINTR, if the process is being killed:
    /// then a part is done.
    pub(crate) fn unmap(&self, range: PageRange) -> Result {
        loop {
            let part = self.given.backing.lock().first_backed(range, UNMAP_PAGES);
            let Some(part) = part else { return Ok(()) };
            if sched::fatal_signal_pending() {
                return Err(EINTR);
            }
            self.unmap_from_guest(part)?;
            self.forget(part)?;
        }
    }

    /// Takes what is mapped in a range from the guest.
    pub(crate) fn unmap_from_guest(&self, range: PageRange) -> Result {
        let mut unmapping = Unmapping::new(range);
        loop {
            let [x0, x1] = hyp::unmap_range(self.id(), unmapping.rest());
            match unmapping.after(x0, x1) {
                Step::Done => return Ok(()),
                Step::Again => sched::cond_resched(),
                // A VM that is gone has nothing mapped.
                Step::Failed(_) if self.given.vm.is_gone() => return Ok(()),
                Step::Failed(status) => return Err(hyp::unmap_refused(status).into()),
            }
        }
    }

    /// Takes a range from the guest and unpins it, for a change of the owner's mapping: allocates
    /// nothing and takes no folio lock. What cannot be unmapped stays pinned.
    pub(crate) fn take(&self, range: PageRange, mut room: Option<Reservation>) -> Result {
        loop {
            let part = self.given.backing.lock().first_backed(range, UNMAP_PAGES);
            let Some(part) = part else { return Ok(()) };
            let unmapped = self.unmap_from_guest(part);
            loop {
                // What a slot that is being deleted had is not there any more.
                let mut backing = self.given.backing.lock();
                if !backing.touches(part) {
                    break;
                }
                unmapped?;
                let pages = backing.cut(part, &mut room).ok_or(ENOMEM)?;
                drop(backing);
                pages.unpin_unlocked();
                sched::cond_resched();
            }
        }
    }

    /// The smallest range around one of its parts that can be taken without room for a record.
    pub(crate) fn uncut(&self, range: PageRange) -> PageRange {
        self.given.backing.lock().uncut(range)
    }

    /// Unpins pages of a range that is not mapped any more.
    fn forget(&self, range: PageRange) -> Result {
        let mut room = Some(Reservation::new(GFP_KERNEL)?);
        loop {
            let pages = self.given.backing.lock().cut(range, &mut room);
            // Unpinned without the lock.
            let Some(pages) = pages else { return Ok(()) };
            drop(pages);
            sched::cond_resched();
        }
    }
}
