// SPDX-License-Identifier: GPL-2.0

//! A VM in the hypervisor with the pages that it was given, and who works on which of them.
//!
//! Lock order: a claim, then one of `claims`, `backing`, the mailbox. While pages are pinned or
//! memory is allocated, nothing but a claim is held.

use crate::{
    backing::Backing,
    device::Gzvm,
    hyp::OnePage,
    kx::{
        gup::PinOwner,
        ratelimit::warn_limited, //
    },
    model::{
        addr::PageRange,
        caps::VCPU_CAP,
        claims::Claims,
        fault::Paging,
        ids::VmId, //
    },
    registry::HypVm,
    store::KernelStore, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed, //
        },
        CondVar,
        Mutex, //
    }, //
};

/// A VM in the hypervisor with all memory that it was given: this may only be used for other things
/// when the VM is gone, so one drop takes care of both.
pub(crate) struct Given {
    pub(crate) vm: HypVm,
    pub(crate) backing: Pin<KBox<Mutex<Backing>>>,
    /// The page of frame numbers of block demand paging.
    pub(crate) mailbox: Option<Pin<KBox<Mutex<OnePage>>>>,
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut backing = self.backing.lock();
        if self.vm.destroy() {
            backing.unpin_all();
        } else {
            warn_limited!("the hypervisor kept a VM: its memory stays pinned for ever\n");
            backing.leak_all();
            if let Some(mailbox) = &self.mailbox {
                mailbox.lock().leak();
            }
        }
    }
}

/// The pages of one VM.
#[pin_data]
pub(crate) struct Pages {
    pub(crate) given: Given,
    /// Whose memory the guest's is.
    pub(crate) owner: PinOwner,
    /// How memory comes to the guest.
    pub(crate) paging: Paging,
    /// Number of mappings made so far.
    pub(crate) mappings: Atomic<u64>,
    pub(crate) protected: Atomic<bool>,
    #[pin]
    claims: Mutex<Claims<KernelStore<PageRange>>>,
    #[pin]
    claims_changed: CondVar,
}

/// A guest range that its holder works on alone.
pub(crate) struct Claim<'a> {
    pages: &'a Pages,
    range: PageRange,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pages.claims.lock().release(self.range);
        self.pages.claims_changed.notify_all();
    }
}

impl Pages {
    /// The pages of a VM that was just created: none yet.
    pub(crate) fn new(
        given: Given,
        owner: PinOwner,
        paging: Paging,
    ) -> Result<impl PinInit<Self, Error>> {
        // One for each vCPU, and one for the ioctl that changes slots.
        let claims = Claims::new(KernelStore::with_room(usize::from(VCPU_CAP) + 1)?);
        Ok(try_pin_init!(Self {
            given,
            owner,
            paging,
            mappings: Atomic::new(0),
            protected: Atomic::new(false),
            claims <- new_mutex!(claims, "gzvm_claims"),
            claims_changed <- new_condvar!("gzvm_claims"),
        }? Error))
    }

    /// The VM's id.
    pub(crate) fn id(&self) -> VmId {
        self.given.vm.id()
    }

    /// The hypervisor.
    pub(crate) fn gzvm(&self) -> &Gzvm {
        self.given.vm.gzvm()
    }

    /// How often something was mapped so far; see [`crate::model::pins::Run::surely_unmapped`].
    pub(crate) fn mapping_count(&self) -> u64 {
        self.mappings.load(Acquire)
    }

    /// Is the VM protected?
    pub(crate) fn is_protected(&self) -> bool {
        self.protected.load(Relaxed)
    }

    /// Claims a range unless somebody has a part of it: then waits for that and answers `None`.
    pub(crate) fn claim_or_wait(&self, range: PageRange) -> Result<Option<Claim<'_>>> {
        let mut claims = self.claims.lock();
        if claims.claim(range)? {
            return Ok(Some(Claim { pages: self, range }));
        }
        if self.claims_changed.wait_interruptible(&mut claims) {
            return Err(ERESTARTSYS);
        }
        Ok(None)
    }

    /// Claims a range, however long it takes.
    pub(crate) fn claim(&self, range: PageRange) -> Result<Claim<'_>> {
        loop {
            if let Some(claim) = self.claim_or_wait(range)? {
                return Ok(claim);
            }
        }
    }
}
