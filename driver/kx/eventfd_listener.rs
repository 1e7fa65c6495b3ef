// SPDX-License-Identifier: GPL-2.0

//! Event file descriptors, as somebody who is called when they are signalled.
//!
//! C headers: `include/linux/eventfd.h`, `include/linux/poll.h`, `include/linux/wait.h`.

use super::{
    eventfd::EventFd,
    ffi, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    container_of,
    error::from_err_ptr,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// Who is called.
pub(crate) trait Listen: Send + Sync + 'static {
    /// The eventfd was signalled; its counter is 0 again. Called with interrupts off, under the
    /// eventfd's lock: must not sleep, and must not touch the same eventfd.
    fn signalled(&self);
}

/// A hook in an eventfd's wait queue.
///
/// # Invariants
///
/// `wait` is in the wait queue of `eventfd` from construction until the drop.
#[pin_data(PinnedDrop)]
pub(crate) struct Listener<T: Listen> {
    #[pin]
    wait: Opaque<bindings::wait_queue_entry>,
    eventfd: EventFd,
    closed: Atomic<bool>,
    listen: T,
}

// SAFETY: The wait queue entry belongs to no thread.
unsafe impl<T: Listen> Send for Listener<T> {}
// SAFETY: The wait queue entry is only changed under the wait queue's lock.
unsafe impl<T: Listen> Sync for Listener<T> {}

/// What `vfs_poll` hands to [`hook`].
#[repr(C)]
struct Hook {
    table: bindings::poll_table_struct,
    wait: *mut bindings::wait_queue_entry,
    head: *mut bindings::wait_queue_head,
}

impl<T: Listen> Listener<T> {
    /// Listens to the eventfd behind a descriptor of the current process. If it has been signalled
    /// already, `listen` is called at once.
    pub(crate) fn new(fd: i32, listen: T) -> Result<Pin<KBox<Self>>> {
        // SAFETY: The function has no requirements.
        let file = from_err_ptr(unsafe { bindings::eventfd_fget(fd) })?;
        let result = Self::with_file(file, listen);
        // SAFETY: `eventfd_fget` returned a reference, which is ours to give back.
        unsafe { bindings::fput(file) };
        result
    }

    fn with_file(file: *mut bindings::file, listen: T) -> Result<Pin<KBox<Self>>> {
        // SAFETY: The caller holds a reference to the file.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fileget(file) })?;
        let ctx = NonNull::new(ctx).ok_or(EINVAL)?;
        // SAFETY: The call returned a reference.
        let eventfd = unsafe { EventFd::from_raw(ctx) };
        let mut head = core::ptr::null_mut();
        let mut events = 0;
        let listener: Pin<KBox<Self>> = KBox::try_pin_init(
            try_pin_init!(Self {
                wait: Opaque::new(bindings::wait_queue_entry {
                    func: Some(Self::wake),
                    ..Default::default()
                }),
                eventfd,
                closed: Atomic::new(false),
                listen,
            }? Error)
            .pin_chain(|this| {
                // INVARIANT: `vfs_poll` calls `hook`, which adds the entry to the queue. An eventfd
                // has exactly one queue, and its poll always calls back.
                let mut poll = Hook {
                    table: bindings::poll_table_struct { _qproc: Some(hook), _key: !0 },
                    wait: this.wait.get(),
                    head: core::ptr::null_mut(),
                };
                // SAFETY: The file is held by the caller; the table is live during the call and is
                // the first field of the structure that `hook` expects.
                events = unsafe { ffi::gzvm_kx_vfs_poll(file, (&raw mut poll).cast()) };
                head = poll.head;
                Ok(())
            }),
            GFP_KERNEL,
        )?;
        if events & bindings::POLLIN != 0 {
            // SAFETY: The context is alive, and `head` is its wait queue, which `hook` was given.
            unsafe { ffi::gzvm_kx_eventfd_drain(listener.eventfd.as_raw(), head) };
            listener.listen.signalled();
        }
        Ok(listener)
    }

    /// The eventfd listened to.
    pub(crate) fn eventfd(&self) -> &EventFd {
        &self.eventfd
    }

    /// Has the last descriptor of the eventfd been closed, so that nobody can signal it any more?
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Who is called.
    pub(crate) fn listen(&self) -> &T {
        &self.listen
    }

    /// # Safety
    ///
    /// Only to be called by the wait queue code, with the queue's lock held and with an entry that
    /// is the `wait` of a `Listener<T>`.
    unsafe extern "C" fn wake(
        wait: *mut bindings::wait_queue_entry,
        _mode: c_uint,
        _sync: c_int,
        key: *mut c_void,
    ) -> c_int {
        // SAFETY: By this function's contract the entry is in a listener, which is alive, because
        // its drop takes the entry out under the lock that is held now.
        let this = unsafe { &*container_of!(Opaque::cast_from(wait), Self, wait) };
        let events = key.addr() as c_uint;
        if events & bindings::POLLIN != 0 {
            let mut count = 0;
            // SAFETY: The context is alive and its lock is held, by this function's contract.
            unsafe { bindings::eventfd_ctx_do_read(this.eventfd.as_raw(), &mut count) };
            this.listen.signalled();
        }
        if events & bindings::POLLHUP != 0 {
            this.closed.store(true, Relaxed);
        }
        0
    }
}

/// # Safety
///
/// Only to be called by `vfs_poll` with the table of a [`Hook`].
unsafe extern "C" fn hook(
    _file: *mut bindings::file,
    head: *mut bindings::wait_queue_head,
    table: *mut bindings::poll_table_struct,
) {
    // SAFETY: By this function's contract the table is the first field of a live `Hook`.
    let hook = unsafe { &mut *table.cast::<Hook>() };
    hook.head = head;
    // SAFETY: The queue is alive as long as the context, to which the listener has a reference; the
    // entry is pinned and leaves the queue before it is freed.
    unsafe { bindings::add_wait_queue_priority(head, hook.wait) };
}

#[pinned_drop]
impl<T: Listen> PinnedDrop for Listener<T> {
    fn drop(self: Pin<&mut Self>) {
        let mut count = 0;
        // SAFETY: By the type invariant the entry is in the queue of this context. After the call
        // the callback neither runs nor starts.
        unsafe {
            bindings::eventfd_ctx_remove_wait_queue(
                self.eventfd.as_raw(),
                self.wait.get(),
                &mut count,
            )
        };
    }
}
