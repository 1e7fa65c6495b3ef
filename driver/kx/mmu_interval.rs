// SPDX-License-Identifier: GPL-2.0

//! Being told when a process changes what is mapped at a range of its addresses.
//!
//! C header: `include/linux/mmu_notifier.h`. Kernels without `CONFIG_MMU_NOTIFIER` get
//! `no_mmu_interval.rs` in this file's place.

use super::{
    ffi,
    gup::PinOwner, //
};
use kernel::{
    bindings,
    container_of,
    error::to_result,
    ffi::c_ulong,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Can changes be watched?
pub(crate) const AVAILABLE: bool = true;

/// What a change does to the pages behind its range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Others take their place, or none does.
    Replaced,
    /// They stay, with other rights for the process: mprotect, and what fork does to the parent.
    Kept,
    /// The process has no memory any more.
    Over,
}

/// A change that is about to be made. The pages are still mapped, and nothing is changed before all
/// who watch have returned.
pub(crate) struct Change<'a> {
    range: &'a bindings::mmu_notifier_range,
    node: *mut bindings::mmu_interval_notifier,
    sequence: c_ulong,
}

impl Change<'_> {
    /// What it does.
    pub(crate) fn kind(&self) -> Kind {
        match self.range.event {
            bindings::mmu_notifier_event_MMU_NOTIFY_RELEASE => Kind::Over,
            bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA
            | bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE
            | bindings::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY => Kind::Kept,
            _ => Kind::Replaced,
        }
    }

    /// The addresses: the first one, and the one behind the last.
    pub(crate) fn addresses(&self) -> (usize, usize) {
        (self.range.start, self.range.end)
    }

    /// May the watcher sleep? Else it must not wait for anything, a mutex included.
    pub(crate) fn may_sleep(&self) -> bool {
        self.range.flags & bindings::MMU_NOTIFIER_RANGE_BLOCKABLE != 0
    }

    /// From now on [`Watch::settle`] waits until the change is made. To be called under the lock
    /// that is also taken in front of each [`Watch::settle`].
    pub(crate) fn announce(&self) {
        // SAFETY: The node is that of the watch that is being called, which is alive. Besides the
        // kernel, which locks, only this call writes the number, and all readers expect that.
        unsafe { ffi::gzvm_kx_interval_set_seq(self.node, self.sequence) };
    }
}

/// Who is told.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// The range is about to change. To return only when nobody uses its pages through this watcher
    /// any more.
    ///
    /// Called with locks of memory management held, and perhaps from within an allocation: must not
    /// allocate memory in a way that reclaims some, nor wait for somebody who does, nor take
    /// folio locks. `EAGAIN` if it would have to sleep and may not.
    fn changing(&self, change: &Change<'_>) -> Result;
}

/// A range of addresses, watched for as long as the value lives.
///
/// # Invariants
///
/// `node` is registered with an mm from construction until the drop.
#[pin_data(PinnedDrop)]
pub(crate) struct Watch<T: Watcher> {
    #[pin]
    node: Opaque<bindings::mmu_interval_notifier>,
    watcher: T,
}

// SAFETY: Interval notifiers belong to no thread.
unsafe impl<T: Watcher> Send for Watch<T> {}
// SAFETY: The node is only changed by the kernel, under its locks, and by `Change::announce`.
unsafe impl<T: Watcher> Sync for Watch<T> {}

impl<T: Watcher> Watch<T> {
    const OPERATIONS: bindings::mmu_interval_notifier_ops = bindings::mmu_interval_notifier_ops {
        invalidate: Some(Self::invalidate),
        ..pin_init::zeroed()
    };

    /// Has `watcher` told of changes of `length` bytes from `start` on. The owner must be the
    /// current process (-EIO). Takes its mmap lock for writing the first time.
    pub(crate) fn new(
        owner: &PinOwner,
        start: usize,
        length: usize,
        watcher: T,
    ) -> Result<Arc<Self>> {
        if !owner.is_current() {
            return Err(EIO);
        }
        Arc::pin_init(
            try_pin_init!(Self {
                watcher,
                node <- Opaque::try_ffi_init(|node: *mut bindings::mmu_interval_notifier| {
                    // SAFETY: The memory is ours to initialise; it is pinned and stays valid until
                    // the drop takes the node out. The mm is that of the current process, so it has
                    // users. `watcher`, which may be called at once, is initialised: it comes
                    // first.
                    // INVARIANT: the node is registered if the call succeeds.
                    to_result(unsafe {
                        node.write(bindings::mmu_interval_notifier::default());
                        bindings::mmu_interval_notifier_insert(
                            node,
                            owner.as_raw(),
                            start,
                            length,
                            &Self::OPERATIONS,
                        )
                    })
                }),
            }? Error),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Waits until the changes that the watcher has announced are made: who looks pages up then
    /// finds the new ones. Changes that follow are told to the watcher.
    ///
    /// Must not be called with a lock that the watcher takes.
    pub(crate) fn settle(&self) {
        // SAFETY: By the type invariant the node is registered. What is returned tells whether
        // there was any change since; the watcher knows that better, and of which part.
        unsafe { bindings::mmu_interval_read_begin(self.node.get()) };
    }

    /// # Safety
    ///
    /// Only to be called by the kernel's MMU notifiers, with the `node` of a `Self`.
    unsafe extern "C" fn invalidate(
        node: *mut bindings::mmu_interval_notifier,
        range: *const bindings::mmu_notifier_range,
        sequence: c_ulong,
    ) -> bool {
        // SAFETY: By this function's contract the node is in a `Self`, which is alive, because its
        // drop waits for calls to end.
        let this = unsafe { &*container_of!(Opaque::cast_from(node), Self, node) };
        // SAFETY: The kernel passes a range that lives, unchanged, as long as the call.
        let range = unsafe { &*range };
        let told = this.watcher.changing(&Change { range, node, sequence });
        told.is_ok()
    }
}

#[pinned_drop]
impl<T: Watcher> PinnedDrop for Watch<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the node is registered. After the call the callback neither
        // runs nor starts.
        unsafe { bindings::mmu_interval_notifier_remove(self.node.get()) };
    }
}
