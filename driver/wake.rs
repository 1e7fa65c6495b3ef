// SPDX-License-Identifier: GPL-2.0

//! Vcpus that sleep in the host, and who wakes them.
//!
//! The rule that loses no wake-up: a vCPU clears its kick before it enters the guest and sleeps
//! only while there is none; whoever changes something first changes it and kicks afterwards. Then
//! either the guest was entered after the change and sees it, or the kick is found before the
//! sleep.

use crate::model::idle::Sleep;
use kernel::{
    impl_has_hr_timer,
    new_condvar,
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        ArcBorrow,
        CondVar,
        SpinLockIrq, //
    },
    time::{
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativeMode, //
        },
        Delta,
        Monotonic, //
    }, //
};

/// A vCPU's place to sleep. Kicks come from any context: the lock is taken with interrupts off.
#[pin_data]
pub(crate) struct Waker {
    /// Has somebody kicked since the guest was entered last?
    #[pin]
    kicked: SpinLockIrq<bool>,
    #[pin]
    changed: CondVar,
    /// Takes over the guest's timer while the vCPU sleeps.
    #[pin]
    timer: HrTimer<Self>,
}

impl Waker {
    /// A place to sleep.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                kicked <- new_spinlock_irq!(false, "gzvm_waker"),
                changed <- new_condvar!("gzvm_waker"),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Forgets earlier kicks. To be called right before the guest is entered.
    pub(crate) fn clear(&self) {
        *self.kicked.lock() = false;
    }

    /// Wakes the vCPU, or keeps it from sleeping next time. Works in any context.
    pub(crate) fn kick(&self) {
        *self.kicked.lock() = true;
        self.changed.notify_all();
    }

    /// Sleeps. Ends early if a signal is pending.
    pub(crate) fn sleep(self: &Arc<Self>, how: Sleep) {
        // The handle cancels the timer when it is dropped, and waits for its callback.
        let _timer = match how {
            Sleep::NotAtAll => return,
            Sleep::UntilKick => None,
            Sleep::AtMost(ns) => {
                let ns = i64::try_from(ns).unwrap_or(i64::MAX);
                Some(self.clone().start(Delta::from_nanos(ns)))
            }
        };
        let mut kicked = self.kicked.lock();
        while !*kicked {
            // Freezing the task interrupts the wait, too: it freezes on its way to user space,
            // where it holds no lock.
            if self.changed.wait_interruptible(&mut kicked) {
                break;
            }
        }
    }
}

impl HrTimerCallback for Waker {
    type Pointer<'a> = Arc<Self>;

    fn run(this: ArcBorrow<'_, Self>, _: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        this.kick();
        HrTimerRestart::NoRestart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Waker {
        // Not the hard mode: the callback takes ordinary spin locks, which sleep under PREEMPT_RT.
        mode: RelativeMode<Monotonic>, field: self.timer
    }
}
