// SPDX-License-Identifier: GPL-2.0

//! A VM in the hypervisor with the pages that it was given, and who works on which of them.
//!
//! Lock order: a claim, a commit, then one of `claims`, `backing`, the mailbox. While pages are
//! pinned or memory is allocated, nothing but a claim is held: changes of the owner's mappings wait
//! for commits and take `claims` and `backing`.

use crate::{
    backing::Backing,
    device::Gzvm,
    hyp::{
        OnePage,
        VcpuPages, //
    },
    kx::{
        gup::PinOwner,
        mmu_interval::Change,
        ratelimit::warn_limited, //
    },
    model::{
        addr::PageRange,
        caps::VCPU_CAP,
        claims::{
            self,
            Claims, //
        },
        fault::Paging,
        ids::VmId, //
    },
    registry::HypVm,
    store::KernelStore,
    watching::SlotWatch, //
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
        Arc,
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
    /// Pages of vCPUs that the hypervisor has.
    pub(crate) vcpus: Pin<KBox<Mutex<KVec<Arc<VcpuPages>>>>>,
}

impl Given {
    /// Keeps pages of a vCPU until they are let go or the VM is gone. To be called before the
    /// hypervisor hears of them.
    pub(crate) fn keep(&self, pages: &Arc<VcpuPages>) -> Result {
        Ok(self.vcpus.lock().push(pages.clone(), GFP_KERNEL_ACCOUNT)?)
    }

    /// The hypervisor does not have these pages any more.
    pub(crate) fn let_go(&self, pages: &Arc<VcpuPages>) {
        self.vcpus.lock().retain(|kept| !Arc::ptr_eq(kept, pages));
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let mut backing = self.backing.lock();
        if self.vm.destroy() {
            backing.unpin_all();
        } else {
            warn_limited!("the hypervisor kept a VM: its memory stays pinned for ever\n");
            backing.leak_all();
            drop(backing);
            if let Some(mailbox) = &self.mailbox {
                mailbox.lock().leak();
            }
            for pages in self.vcpus.lock().iter() {
                pages.leak();
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
    claims: Mutex<Claims<KernelStore<claims::Claim>>>,
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

impl<'a> Claim<'a> {
    /// To be called before pages of a part of the range are looked up, in the owner's memory or in
    /// the records. Waits for changes that are being made to a watched slot.
    pub(crate) fn begin(&self, part: PageRange, watch: Option<&SlotWatch>) {
        self.pages.claims.lock().begin(self.range, part);
        if let Some(watch) = watch {
            watch.settle();
        }
    }

    /// What was looked up is going to be mapped and recorded, while the commit lives. `None` if it
    /// has to be looked up again.
    pub(crate) fn commit(&self) -> Option<Commit<'_, 'a>> {
        let committing = self.pages.claims.lock().commit(self.range);
        committing.then(|| Commit(self))
    }
}

/// Pages of a claimed range are being mapped: changes of the owner's mapping wait. Meanwhile
/// nothing may be allocated or pinned.
pub(crate) struct Commit<'c, 'a>(&'c Claim<'a>);

impl Drop for Commit<'_, '_> {
    fn drop(&mut self) {
        let Claim { pages, range } = self.0;
        pages.claims.lock().committed(*range);
        pages.claims_changed.notify_all();
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

    /// How often something was mapped so far; see [`crate::model::pins::Mapped::surely_unmapped`].
    pub(crate) fn mapping_count(&self) -> u64 {
        self.mappings.load(Acquire)
    }

    /// Is the VM protected?
    pub(crate) fn is_protected(&self) -> bool {
        self.protected.load(Relaxed)
    }

    /// Are pages taken from the guest that the owner replaces?
    pub(crate) fn follows_owner(&self) -> bool {
        let brings_back = self.paging != Paging::Populate;
        self.gzvm().can_follow_owners() && brings_back && !self.is_protected()
    }

    /// The owner's mapping behind a range is about to change. Nothing is being mapped there when
    /// this returns, nor until the change is made: what was looked up already does not count.
    pub(crate) fn shut_out(&self, range: PageRange, change: &Change<'_>) {
        let mut claims = self.claims.lock();
        change.announce();
        claims.lose(range);
        while claims.is_committing(range) {
            self.claims_changed.wait(&mut claims);
        }
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
