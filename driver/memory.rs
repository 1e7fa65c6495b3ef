// SPDX-License-Identifier: GPL-2.0

//! A VM's memory: slots, faults, and what the guest gives back.
//!
//! Lock order: `changes`, then a claim, then one of `slots`, `backing`, `mailbox`, `claims` (never two
//! of these at once, but for the short ones being taken while a claim is held). No lock is held
//! across pinning or a hypercall, but `changes` (slot ioctls only), the mailbox's own, and `backing`
//! while the VM is destroyed, when nobody else is left.

use crate::{
    abi::uapi::UserspaceMemoryRegion,
    backing::{
        Backing,
        Relinquished,
        Reservation, //
    },
    hyp::{
        self,
        OnePage, //
    },
    kx::{
        gup::PinOwner,
        ratelimit::warn_limited,
        sched, //
    },
    mapping::POPULATE_PAGES,
    model::{
        addr::{
            Gfn,
            PageRange, //
        },
        claims::Claims,
        fault::{
            self,
            Paging, //
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

/// Memory of one VM.
#[pin_data]
pub(crate) struct Memory {
    pub(crate) given: Given,
    /// Whose memory the guest's is.
    pub(crate) owner: PinOwner,
    /// How memory comes to the guest.
    pub(crate) paging: Paging,
    /// Number of mappings made so far.
    pub(crate) mappings: Atomic<u64>,
    protected: Atomic<bool>,
    /// Serialises ioctls that change slots.
    #[pin]
    changes: Mutex<()>,
    #[pin]
    slots: Mutex<SlotTable<KernelStore<Slot>>>,
    #[pin]
    claims: Mutex<Claims<KernelStore<PageRange>>>,
    #[pin]
    claims_changed: CondVar,
}

/// A guest range that its holder works on alone.
struct Claim<'a> {
    memory: &'a Memory,
    range: PageRange,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.memory.claims.lock().release(self.range);
        self.memory.claims_changed.notify_all();
    }
}

impl Memory {
    /// The memory of a VM that was just created, owned by the current process.
    pub(crate) fn new(vm: HypVm, owner: PinOwner) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let backing =
                KBox::pin_init(new_mutex!(Backing::new(), "gzvm_backing"), GFP_KERNEL_ACCOUNT)?;
            let mut given = Given { vm, backing, mailbox: None };
            let paging = Self::choose_paging(&mut given)?;
            Ok(try_pin_init!(Self {
                given,
                owner,
                paging,
                mappings: Atomic::new(0),
                protected: Atomic::new(false),
                changes <- new_mutex!((), "gzvm_slot_changes"),
                slots <- new_mutex!(SlotTable::new(KernelStore::new()), "gzvm_slots"),
                claims <- new_mutex!(Claims::new(KernelStore::new()), "gzvm_claims"),
                claims_changed <- new_condvar!("gzvm_claims"),
            }? Error))
        })
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

    /// How often something was mapped so far; see [`crate::model::pins::Run::surely_unmapped`].
    pub(crate) fn mapping_count(&self) -> u64 {
        self.mappings.load(Acquire)
    }

    /// Claims a range unless somebody has a part of it: then waits for that and answers `None`.
    fn claim_or_wait(&self, range: PageRange) -> Result<Option<Claim<'_>>> {
        let mut claims = self.claims.lock();
        if claims.claim(range)? {
            return Ok(Some(Claim { memory: self, range }));
        }
        if self.claims_changed.wait_interruptible(&mut claims) {
            return Err(ERESTARTSYS);
        }
        Ok(None)
    }

    /// Claims a range, however long it takes.
    fn claim(&self, range: PageRange) -> Result<Claim<'_>> {
        loop {
            if let Some(claim) = self.claim_or_wait(range)? {
                return Ok(claim);
            }
        }
    }

    /// SET_USER_MEMORY_REGION.
    pub(crate) fn set_region(&self, region: &UserspaceMemoryRegion) -> Result {
        let request = Request::parse(region, self.given.vm.gzvm().limits.ipa_bits)?;
        let _changes = self.changes.lock();
        match request {
            Request::Set(slot) => self.set_slot(slot),
            Request::Delete(id) => self.delete_slot(id),
        }
    }

    fn set_slot(&self, slot: Slot) -> Result {
        if self.slots.lock().check(&slot)? == Addition::New {
            let start = crate::uio::address(slot.hva)?;
            let end = start.checked_add(usize::try_from(slot.range.bytes())?).ok_or(EFAULT)?;
            if !self.owner.has_mapped(start, end) {
                let why = "memory slot's userspace range is not mapped";
                return Err(Refusal::new(Errno::Fault, why).into());
            }
            self.register(&slot)?;
            self.slots.lock().insert(slot)?;
        }
        // A slot whose population failed half-way is set once more to go on.
        self.populate_if_due(&slot).inspect_err(|_| {
            if !self.given.backing.lock().touches(slot.range) {
                self.slots.lock().remove(slot.id);
            }
        })
    }

    fn delete_slot(&self, id: u32) -> Result {
        let slot = *self.slots.lock().by_id(id).ok_or(ENOENT)?;
        // Nobody brings a page of the slot in while it goes.
        let _claim = self.claim(slot.range)?;
        if self.given.backing.lock().touches(slot.range) {
            let why = "memory slot is mapped, and the hypervisor cannot unmap it";
            return Err(Refusal::new(Errno::OpNotSupp, why).into());
        }
        self.slots.lock().remove(id);
        Ok(())
    }

    fn populate_if_due(&self, slot: &Slot) -> Result {
        match self.paging {
            Paging::Populate => self.populate(slot),
            // A protected VM's pages are donated: with single-page faults all at once.
            Paging::Page if self.protected.load(Relaxed) => self.populate(slot),
            Paging::Page | Paging::Block => Ok(()),
        }
    }

    /// Brings in all of a slot that is not backed yet.
    fn populate(&self, slot: &Slot) -> Result {
        for chunk in slot.range.chunks(POPULATE_PAGES) {
            if sched::fatal_signal_pending() {
                return Err(EINTR);
            }
            sched::cond_resched();
            let _claim = self.claim(chunk)?;
            loop {
                let gap = self.given.backing.lock().first_gap(chunk);
                let Some(gap) = gap else { break };
                self.map(slot, gap, Paging::Populate)?;
            }
        }
        Ok(())
    }

    /// Makes the VM protected, with firmware placed by the hypervisor or without.
    pub(crate) fn protect(&self, sub_command: u64, operand: u64) -> Result {
        let _changes = self.changes.lock();
        if self.paging == Paging::Page {
            let mut next = Some(Gfn(0));
            while let Some(slot) = next.and_then(|gfn| self.slot_from(gfn)) {
                self.populate(&slot)?;
                next = Some(slot.range.end());
            }
        }
        hyp::protected_vm(self.given.vm.id(), sub_command, operand)?;
        self.protected.store(true, Relaxed);
        Ok(())
    }

    /// The first slot that ends behind a frame.
    fn slot_from(&self, gfn: Gfn) -> Option<Slot> {
        self.slots.lock().slots().iter().find(|slot| slot.range.end() > gfn).copied()
    }

    /// Serves a page fault. On success the guest can try again.
    pub(crate) fn fault(&self, gpa: u64) -> Result {
        let gfn = Gfn::containing(gpa);
        let window = fault::window(gfn, self.paging).ok_or(EFAULT)?;
        let Some(_claim) = self.claim_or_wait(window)? else {
            // Somebody else just worked on it.
            return Ok(());
        };
        let slot = self.slots.lock().find(gfn).copied().ok_or(ENOENT)?;
        let (run, partly_backed) = {
            let backing = self.given.backing.lock();
            (backing.run_at(gfn), backing.touches(window))
        };
        if let Some(run) = run {
            return self.map_again(&slot, gfn, &run);
        }
        if self.paging == Paging::Populate {
            return Err(EFAULT);
        }
        let range = fault::pages(gfn, window, slot.range, partly_backed).ok_or(EFAULT)?;
        self.map(&slot, range, self.paging)
    }

    /// Unpins a page that the guest gave back during a stay that began when the mapping count was
    /// `entered_at`.
    pub(crate) fn relinquish(&self, gpa: u64, entered_at: u64) -> Result {
        let room = [Reservation::new(GFP_KERNEL)?, Reservation::new(GFP_KERNEL)?];
        let page = self.given.backing.lock().relinquish(Gfn::containing(gpa), entered_at, room);
        if let Relinquished::Gone(page) = page {
            drop(page);
        }
        Ok(())
    }

    /// Is the VM protected?
    pub(crate) fn is_protected(&self) -> bool {
        self.protected.load(Relaxed)
    }

    /// Pages that back the guest right now.
    pub(crate) fn pages(&self) -> u64 {
        self.given.backing.lock().pages()
    }
}
