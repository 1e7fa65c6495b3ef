// SPDX-License-Identifier: GPL-2.0

//! Event file descriptors, as somebody who signals them.
//!
//! C header: `include/linux/eventfd.h`.

use super::ratelimit::info_limited;
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

/// A reference to an eventfd's counter.
///
/// # Invariants
///
/// The pointer is to a context of which this value owns one reference.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: Eventfd contexts are made to be used from any thread.
unsafe impl Send for EventFd {}
// SAFETY: Signalling takes the context's own lock.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd behind a descriptor of the current process: -EBADF, or -EINVAL if it is
    /// something else.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function has no requirements.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })
            .inspect_err(|_| info_limited!("descriptor {fd} is not that of an eventfd\n"))?;
        // INVARIANT: the call returned a reference.
        NonNull::new(ctx).map(Self).ok_or(EINVAL)
    }

    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `ctx` must be a valid context, and the caller must own one reference to it.
    pub(super) unsafe fn from_raw(ctx: NonNull<bindings::eventfd_ctx>) -> Self {
        // INVARIANT: the caller's contract.
        Self(ctx)
    }

    /// Adds 1 to the counter. Works in any context.
    pub(crate) fn signal(&self) {
        // SAFETY: By the type invariant the context is alive.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }

    /// Are both the same eventfd?
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    pub(super) fn as_raw(&self) -> *mut bindings::eventfd_ctx {
        self.0.as_ptr()
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours to give back.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
