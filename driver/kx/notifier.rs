// SPDX-License-Identifier: GPL-2.0

//! Being told of reboots and of sleep.
//!
//! C headers: `include/linux/notifier.h`, `include/linux/reboot.h`, `include/linux/suspend.h`.

use super::ffi;
use core::marker::PhantomData;
use kernel::{
    bindings,
    container_of,
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    types::Opaque, //
};

/// Of what to be told.
pub(crate) trait Chain: 'static {
    /// What happens.
    type Event;

    /// Adds a block.
    ///
    /// # Safety
    ///
    /// The block must stay valid until it is removed.
    unsafe fn add(block: *mut bindings::notifier_block) -> c_int;

    /// Removes a block that was added, and waits for a call of it to end.
    ///
    /// # Safety
    ///
    /// The block must be in the chain.
    unsafe fn remove(block: *mut bindings::notifier_block);

    /// What a notification's number means; `None` if it is not for listeners.
    fn event(action: c_ulong) -> Option<Self::Event>;
}

/// The machine restarts, halts, powers off or starts another kernel. Only told; nobody can object.
pub(crate) struct Reboot;

impl Chain for Reboot {
    type Event = ();

    unsafe fn add(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller's contract.
        unsafe { ffi::register_reboot_notifier(block) }
    }

    unsafe fn remove(block: *mut bindings::notifier_block) {
        // SAFETY: The caller's contract.
        unsafe { ffi::unregister_reboot_notifier(block) };
    }

    fn event(_action: c_ulong) -> Option<()> {
        Some(())
    }
}

/// The machine is about to sleep. Objecting stops it.
#[cfg(CONFIG_PM_SLEEP)]
pub(crate) struct Sleep;

/// How the machine is about to sleep.
#[cfg(CONFIG_PM_SLEEP)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SleepKind {
    /// Memory stays on.
    Suspend,
    /// Memory is written to disk, or read back from it.
    Hibernation,
}

#[cfg(CONFIG_PM_SLEEP)]
impl Chain for Sleep {
    type Event = SleepKind;

    unsafe fn add(block: *mut bindings::notifier_block) -> c_int {
        // SAFETY: The caller's contract.
        unsafe { bindings::register_pm_notifier(block) }
    }

    unsafe fn remove(block: *mut bindings::notifier_block) {
        // SAFETY: The caller's contract.
        unsafe { bindings::unregister_pm_notifier(block) };
    }

    fn event(action: c_ulong) -> Option<SleepKind> {
        match u32::try_from(action).ok()? {
            bindings::PM_SUSPEND_PREPARE => Some(SleepKind::Suspend),
            bindings::PM_HIBERNATION_PREPARE | bindings::PM_RESTORE_PREPARE => {
                Some(SleepKind::Hibernation)
            }
            _ => None,
        }
    }
}

/// Who is told.
pub(crate) trait Notified<C: Chain>: Send + Sync + 'static {
    /// Called in process context; may sleep. An error objects, where the chain lets one.
    fn notified(&self, event: C::Event) -> Result;
}

/// A place in a chain, for as long as the value lives.
///
/// # Invariants
///
/// `block` is in the chain `C` from construction until the drop.
#[pin_data(PinnedDrop)]
pub(crate) struct Notifier<C: Chain, T: Notified<C>> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    target: T,
    chain: PhantomData<fn(C)>,
}

// SAFETY: Notifier blocks belong to no thread.
unsafe impl<C: Chain, T: Notified<C>> Send for Notifier<C, T> {}
// SAFETY: The block is only changed under the chain's lock.
unsafe impl<C: Chain, T: Notified<C>> Sync for Notifier<C, T> {}

impl<C: Chain, T: Notified<C>> Notifier<C, T> {
    /// Has `target` told.
    pub(crate) fn register(target: T) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            target,
            chain: PhantomData,
            block <- Opaque::try_ffi_init(|block: *mut bindings::notifier_block| {
                // SAFETY: The memory is ours to initialise; it is pinned and stays valid until the
                // drop removes it.
                // INVARIANT: the block is in the chain if the call succeeds.
                to_result(unsafe {
                    block.write(bindings::notifier_block {
                        notifier_call: Some(Self::call),
                        ..Default::default()
                    });
                    C::add(block)
                })
            }),
        })
    }

    /// # Safety
    ///
    /// Only to be called by the chain, with the `block` of a `Self`.
    unsafe extern "C" fn call(
        block: *mut bindings::notifier_block,
        action: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: By this function's contract the block is in a `Self`, which is alive, because its
        // drop waits for calls to end.
        let this = unsafe { &*container_of!(Opaque::cast_from(block), Self, block) };
        answer(C::event(action).map_or(Ok(()), |event| this.target.notified(event)))
    }
}

/// What a listener answers, as `notifier_from_errno` has it: an objection keeps its errno, which
/// whoever started it all gets to see.
fn answer(result: Result) -> c_int {
    let ok = bindings::NOTIFY_OK as c_int;
    match result {
        Ok(()) => bindings::NOTIFY_DONE as c_int,
        Err(error) => bindings::NOTIFY_STOP_MASK as c_int | (ok - error.to_errno()),
    }
}

#[kernel::macros::kunit_tests(gzvm_notifier)]
mod tests {
    use super::*;

    #[test]
    fn w46_an_objection_keeps_its_errno() {
        // As `notifier_to_errno` reads it.
        let errno = |answer: c_int| {
            let value = answer & !(bindings::NOTIFY_STOP_MASK as c_int);
            let ok = bindings::NOTIFY_OK as c_int;
            if value > ok {
                ok - value
            } else {
                0
            }
        };
        let objection = answer(Err(EBUSY));
        assert_eq!(errno(objection), EBUSY.to_errno());
        assert_eq!(objection & bindings::NOTIFY_STOP_MASK as c_int, 0x8000);
        assert_eq!(answer(Ok(())), 0);
    }
}

#[pinned_drop]
impl<C: Chain, T: Notified<C>> PinnedDrop for Notifier<C, T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the block is in the chain.
        unsafe { C::remove(self.block.get()) };
    }
}
