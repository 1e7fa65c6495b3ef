// SPDX-License-Identifier: GPL-2.0

//! A VM's memory as user space and the guest see it: slots, faults, and what the guest gives back.
//!
//! Lock order: `changes`, then a claim, then `slots` or those of `watches` or `pages`. No lock is
//! held across pinning or a hypercall, but `changes` (slot ioctls only), the mailbox's own, and the
//! records' while the VM is destroyed, when nobody else is left.

use crate::{
    abi::{
        ext,
        uapi::{
            self,
            RangeState,
            UserspaceMemoryRegion, //
        }, //
    },
    backing::{
        Backing,
        Relinquished, //
    },
    hyp::{
        self,
        OnePage, //
    },
    kx::{
        gup::PinOwner,
        sched, //
    },
    mapping::POPULATE_PAGES,
    model::{
        addr::{
            Gfn,
            PageRange, //
        },
        fault::{
            self,
            Paging, //
        },
        range_state::{
            self,
            Known, //
        },
        refusal::{
            Errno,
            Refusal, //
        },
        slots::{
            Addition,
            Request,
            Slot,
            SlotTable, //
        }, //
    },
    pages::{
        Claim,
        Given,
        Pages, //
    },
    record::Reservation,
    registry::HypVm,
    store::KernelStore,
    watching::{
        SlotWatch,
        Watches, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Memory of one VM. Fields are dropped in order: nobody takes pages when the VM goes.
#[pin_data]
pub(crate) struct Memory {
    #[pin]
    watches: Watches,
    pub(crate) pages: Arc<Pages>,
    /// Serialises ioctls that change slots.
    #[pin]
    changes: Mutex<()>,
    #[pin]
    slots: Mutex<SlotTable<KernelStore<Slot>>>,
    /// How many slots were deleted; changed with `slots` locked.
    deletions: Atomic<u64>,
}

/// How things were right before a vCPU entered the guest.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    mapping_count: u64,
    deletions: u64,
}

impl Memory {
    /// The memory of a VM that was just created, owned by the current process.
    pub(crate) fn new(vm: HypVm, owner: PinOwner) -> Result<impl PinInit<Self, Error>> {
        let backing =
            KBox::pin_init(new_mutex!(Backing::new(), "gzvm_backing"), GFP_KERNEL_ACCOUNT)?;
        let vcpus = KBox::pin_init(new_mutex!(KVec::new(), "gzvm_vcpu_pages"), GFP_KERNEL_ACCOUNT)?;
        let mut given = Given { vm, backing, mailbox: None, vcpus };
        let paging = Self::choose_paging(&mut given)?;
        let pages = Arc::pin_init(Pages::new(given, owner, paging)?, GFP_KERNEL_ACCOUNT)?;
        Ok(try_pin_init!(Self {
            watches <- Watches::new(),
            pages,
            changes <- new_mutex!((), "gzvm_slot_changes"),
            slots <- new_mutex!(SlotTable::new(KernelStore::new()), "gzvm_slots"),
            deletions: Atomic::new(0),
        }? Error))
    }

    /// Asks for the best way of paging that the hypervisor has.
    fn choose_paging(given: &mut Given) -> Result<Paging> {
        let id = given.vm.id();
        if hyp::enable_demand_paging(id).is_err() {
            return Ok(Paging::Populate);
        }
        let page = new_mutex!(OnePage::new()?, "gzvm_mailbox");
        // Kept before the hypervisor hears of it, so that it is freed after the VM in any case.
        let mailbox = given.mailbox.insert(KBox::pin_init(page, GFP_KERNEL_ACCOUNT)?);
        if hyp::enable_block_paging(id, &mailbox.lock()).is_ok() {
            return Ok(Paging::Block);
        }
        given.mailbox = None;
        Ok(Paging::Page)
    }

    /// SET_USER_MEMORY_REGION.
    pub(crate) fn set_region(&self, region: &UserspaceMemoryRegion) -> Result {
        let request = Request::parse(region, self.pages.gzvm().limits.ipa_bits)?;
        let _changes = self.changes.lock();
        match request {
            Request::Set(slot) => self.set_slot(slot),
            Request::Delete(id) => self.delete_slot(id),
        }
    }

    fn set_slot(&self, slot: Slot) -> Result {
        let addition = self.slots.lock().check(&slot)?;
        if addition == Addition::New {
            self.check_mapped(&slot)?;
            self.watches.add(&self.pages, &slot)?;
            let added = self.pages.register(&slot).and_then(|()| {
                self.slots.lock().insert(slot)?;
                Ok(())
            });
            added.inspect_err(|_| self.unregister(&slot))?;
        }
        // A slot whose population failed half-way is set once more to go on.
        self.populate_if_due(&slot).inspect_err(|_| {
            if addition == Addition::New && !self.is_backed(&slot) {
                self.slots.lock().remove(slot.id);
                self.unregister(&slot);
            }
        })
    }

    /// Is all of a slot mapped by the owner? For what, a fault will tell.
    fn check_mapped(&self, slot: &Slot) -> Result {
        let start = crate::uio::address(slot.hva)?;
        let end = start.checked_add(usize::try_from(slot.range.bytes())?).ok_or(EFAULT)?;
        if self.pages.owner.has_mapped(start, end) {
            return Ok(());
        }
        let why = "memory slot's userspace range is not mapped";
        Err(Refusal::new(Errno::Fault, why).into())
    }

    /// Removes a region that could not become a slot, where the hypervisor can: else it remembers
    /// the region until the VM ends.
    fn unregister(&self, slot: &Slot) {
        self.watches.remove(slot.id);
        if self.pages.gzvm().features.has(ext::UNMAP) {
            // It may never have been registered.
            let _ = hyp::remove_region(self.pages.id(), slot.range);
        }
    }

    fn is_backed(&self, slot: &Slot) -> bool {
        self.pages.given.backing.lock().touches(slot.range)
    }

    fn delete_slot(&self, id: u32) -> Result {
        let unknown = Refusal::new(Errno::NoEnt, "no memory slot of this number to delete");
        let slot = *self.slots.lock().by_id(id).ok_or(unknown)?;
        // Nobody brings a page of the slot in while it goes.
        let _claim = self.pages.claim(slot.range)?;
        if self.is_backed(&slot) {
            self.pages.check_unmappable()?;
            self.pages.unmap(slot.range)?;
        }
        if self.pages.gzvm().features.has(ext::UNMAP) {
            hyp::remove_region(self.pages.id(), slot.range)?;
        }
        let mut slots = self.slots.lock();
        slots.remove(id);
        self.deletions.fetch_add(1, Relaxed);
        drop(slots);
        self.watches.remove(id);
        Ok(())
    }

    fn populate_if_due(&self, slot: &Slot) -> Result {
        match self.pages.paging {
            Paging::Populate => self.populate(slot),
            // A protected VM's pages are donated: with single-page faults all at once.
            Paging::Page if self.pages.is_protected() => self.populate(slot),
            Paging::Page | Paging::Block => Ok(()),
        }
    }

    /// Brings in all of a slot that is not backed yet.
    fn populate(&self, slot: &Slot) -> Result {
        let watch = self.watches.get(slot.id);
        let watch = watch.as_deref();
        for chunk in slot.range.chunks(POPULATE_PAGES) {
            let claim = self.pages.claim(chunk)?;
            loop {
                if sched::fatal_signal_pending() {
                    return Err(EINTR);
                }
                sched::cond_resched();
                claim.begin(chunk, watch);
                let gap = self.pages.given.backing.lock().first_gap(chunk);
                let Some(gap) = gap else { break };
                self.bring_in(&claim, slot, gap, gap.start(), watch, Paging::Populate)?;
            }
        }
        Ok(())
    }

    /// Makes the VM protected, with firmware placed by the hypervisor or without.
    pub(crate) fn protect(&self, sub_command: u64, operand: u64) -> Result {
        let _changes = self.changes.lock();
        if self.pages.paging == Paging::Page {
            let mut next = Some(Gfn(0));
            while let Some(slot) = next.and_then(|gfn| self.slot_from(gfn)) {
                self.populate(&slot)?;
                next = Some(slot.range.end());
            }
        }
        hyp::protected_vm(self.pages.id(), sub_command, operand)?;
        self.pages.protected.store(true, Relaxed);
        self.watches.clear();
        Ok(())
    }

    /// The first slot that ends behind a frame.
    fn slot_from(&self, gfn: Gfn) -> Option<Slot> {
        self.slots.lock().slots().iter().find(|slot| slot.range.end() > gfn).copied()
    }

    /// To be taken right before the guest is entered.
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            mapping_count: self.pages.mapping_count(),
            deletions: self.deletions.load(Acquire),
        }
    }

    /// Serves a page fault of a guest that was entered at `entry`. On success the guest can try
    /// again.
    pub(crate) fn fault(&self, gpa: u64, entry: Entry) -> Result {
        let pages = &self.pages;
        let gfn = Gfn::containing(gpa);
        let window = fault::window(gfn, pages.paging).ok_or(EFAULT)?;
        let Some(claim) = pages.claim_or_wait(window)? else {
            // Somebody else just worked on it.
            return Ok(());
        };
        let slots = self.slots.lock();
        let Some(slot) = slots.find(gfn).copied() else {
            if self.deletions.load(Relaxed) != entry.deletions {
                // Its slot may have gone since: the guest is to see what is there now.
                return Ok(());
            }
            return Err(Refusal::new(Errno::NoEnt, "page fault in no memory slot").into());
        };
        drop(slots);
        let watch = self.watches.get(slot.id);
        let watch = watch.as_deref();
        claim.begin(window, watch);
        let (mapped, partly_backed) = {
            let backing = pages.given.backing.lock();
            (backing.mapped(gfn), backing.touches(window))
        };
        if let Some(mapped) = mapped {
            return pages.map_again(&claim, &slot, gfn, mapped.pfn);
        }
        if pages.paging == Paging::Populate {
            let why = "page fault although the hypervisor has no demand paging";
            return Err(Refusal::new(Errno::Fault, why).into());
        }
        let range = fault::pages(gfn, window, slot.range, partly_backed).ok_or(EFAULT)?;
        self.bring_in(&claim, &slot, range, gfn, watch, pages.paging)
    }

    /// Maps a range of which nothing is backed, or at least a page of it: nothing, if the owner
    /// changes that very page right now.
    fn bring_in(
        &self,
        claim: &Claim<'_>,
        slot: &Slot,
        range: PageRange,
        gfn: Gfn,
        watch: Option<&SlotWatch>,
        paging: Paging,
    ) -> Result {
        if self.pages.map(claim, slot, range, paging)? {
            return Ok(());
        }
        // Changes of so many pages may never end. One page is brought in faster than they come.
        let page = PageRange::single(gfn).ok_or(EFAULT)?;
        claim.begin(page, watch);
        if !self.pages.given.backing.lock().touches(page) {
            self.pages.map(claim, slot, page, paging)?;
        }
        Ok(())
    }

    /// GET_RANGE_STATE. Faults may change the state at any time; what is unpinned stays so while
    /// the guest does not touch it.
    pub(crate) fn range_state(&self, argument: &RangeState) -> Result<RangeState> {
        if !self.pages.gzvm().features.has(ext::RANGE_STATE) {
            let why = "the hypervisor cannot tell the state of memory";
            return Err(Refusal::new(Errno::OpNotSupp, why).into());
        }
        let range = range_state::parse(argument)?;
        let (in_slot, range) = {
            let slots = self.slots.lock();
            let (slot, range) = slots.at(range);
            (slot.is_some(), range)
        };
        if !in_slot {
            return Ok(range_state::answer(range, uapi::RANGE_STATE_ABSENT));
        }
        // Pins first: what is pinned by then and not mapped yet is not taken for free.
        let (pinned, pinned_pages) = {
            let next = self.pages.given.backing.lock().next(range.start());
            match next {
                Some(backed) if backed.start() == range.start() => (true, backed.pages()),
                Some(backed) => (false, backed.start().0 - range.start().0),
                None => (false, range.pages()),
            }
        };
        let (state, pages) = hyp::range_state(self.pages.id(), range)?;
        let protected = self.pages.is_protected();
        let known = Known { state, pages, pinned, pinned_pages, protected };
        let (range, state) = range_state::merge(range, &known)?;
        Ok(range_state::answer(range, state))
    }

    /// Unpins a page that the guest gave back during a stay that began at `entry`.
    pub(crate) fn relinquish(&self, gpa: u64, entry: Entry) -> Result {
        let room = Reservation::new(GFP_KERNEL)?;
        let gfn = Gfn::containing(gpa);
        let page = self.pages.given.backing.lock().relinquish(gfn, entry.mapping_count, room);
        if let Relinquished::Gone(page) = page {
            drop(page);
        }
        Ok(())
    }
}
