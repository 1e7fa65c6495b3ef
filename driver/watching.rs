// SPDX-License-Identifier: GPL-2.0

//! What the owner of an unprotected VM changes in its own mappings behind slots: pages that it
//! unmaps, punches out or replaces are taken from the guest, whose next access gets the new ones.
//!
//! Needs extension UNMAP, and a way of paging that brings pages in one by one. A protected VM's
//! memory is its own: nothing is taken from it.
//!
//! Changes come with locks of memory management held, so here nothing is waited for but hypercalls:
//! the mutexes that are taken, those of claims and records, are never held while memory is
//! allocated or pinned. Whoever has looked pages up but not mapped them looks them up again.

use crate::{
    kx::{
        mmu_interval::{
            Change,
            Kind,
            Watch,
            Watcher, //
        },
        ratelimit::warn_limited, //
    },
    model::{
        addr::PageRange,
        slots::Slot, //
    },
    pages::Pages,
    record::Reservation, //
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// The watch over a slot's addresses.
pub(crate) type SlotWatch = Watch<SlotWatcher>;

/// Who takes pages of a slot from the guest.
pub(crate) struct SlotWatcher {
    pages: Arc<Pages>,
    slot: Slot,
    /// Has the owner ended? Its memory stays pinned until the VM is gone, which is soon.
    over: Atomic<bool>,
}

impl SlotWatcher {
    /// Takes what is mapped in a range of the slot. Nothing of it is mapped again until the change
    /// is made.
    fn take(&self, range: PageRange, change: &Change<'_>) {
        let room = Reservation::new(GFP_NOWAIT).ok();
        // Without room no record can be cut in two: more is taken, as far as a record reaches. Then
        // nothing may be mapped anywhere in the slot meanwhile.
        let shut = if room.is_some() { range } else { self.slot.range };
        self.pages.shut_out(shut, change);
        let range = if room.is_some() { range } else { self.pages.uncut(range) };
        if let Err(error) = self.pages.take(range, room) {
            let start = range.start().gpa();
            warn_limited!(
                "memory at {start:#x} stays the guest's although its owner replaced it: {error:?}\n"
            );
        }
    }
}

impl Watcher for SlotWatcher {
    fn changing(&self, change: &Change<'_>) -> Result {
        match change.kind() {
            // What is pinned stays where it is. A fork copies it for the child.
            Kind::Kept => return Ok(()),
            Kind::Over => self.over.store(true, Relaxed),
            Kind::Replaced => {}
        }
        if self.over.load(Relaxed) || self.pages.is_protected() {
            return Ok(());
        }
        let (start, end) = change.addresses();
        let Some(range) = self.slot.backed_by(start as u64, end as u64) else { return Ok(()) };
        if !change.may_sleep() {
            return Err(EAGAIN);
        }
        self.take(range, change);
        Ok(())
    }
}

/// The watches over a VM's slots.
#[pin_data]
pub(crate) struct Watches {
    #[pin]
    by_slot: Mutex<RBTree<u32, Arc<SlotWatch>>>,
}

impl Watches {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { by_slot <- new_mutex!(RBTree::new(), "gzvm_watches") })
    }

    /// Watches over a slot from now on, if pages can be taken from its VM.
    pub(crate) fn add(&self, pages: &Arc<Pages>, slot: &Slot) -> Result {
        if !pages.follows_owner() {
            return Ok(());
        }
        let start = crate::uio::address(slot.hva)?;
        let length = usize::try_from(slot.range.bytes())?;
        let watcher = SlotWatcher { pages: pages.clone(), slot: *slot, over: Atomic::new(false) };
        let watch = Watch::new(&pages.owner, start, length, watcher)?;
        let node = RBTreeNode::new(slot.id, watch, GFP_KERNEL_ACCOUNT)?;
        let before = self.by_slot.lock().insert(node);
        // The end of a watch waits for changes, so no lock is held.
        drop(before);
        Ok(())
    }

    /// The watch over a slot; none if nothing is taken from its VM.
    pub(crate) fn get(&self, slot: u32) -> Option<Arc<SlotWatch>> {
        self.by_slot.lock().get(&slot).cloned()
    }

    /// Ends the watch over a slot.
    pub(crate) fn remove(&self, slot: u32) {
        let watch = self.by_slot.lock().remove(&slot);
        drop(watch);
    }

    /// Ends all watches.
    pub(crate) fn clear(&self) {
        loop {
            let first = {
                let mut watches = self.by_slot.lock();
                let Some(cursor) = watches.cursor_front_mut() else { return };
                cursor.remove_current().1
            };
            drop(first);
        }
    }
}
