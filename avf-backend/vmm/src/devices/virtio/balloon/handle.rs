// SPDX-License-Identifier: Apache-2.0
//! The balloon as the control socket sees it: how large it should be, how large it is, and what the
//! guest says about its memory.

use super::stats::BalloonStats;
use crate::devices::virtio::interrupt::Interrupt;
use crate::devices::virtio::worker::event;
use nix::sys::eventfd::EventFd;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of the unit in which sizes are told to the guest (5.5.4).
pub const UNIT: u64 = 4096;
/// How long a guest may take to answer, or to come closer to the wanted size.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a guest cannot use its balloon: mainline Linux, whose driver gives ACCESS_PLATFORM back.
pub const UNSUPPORTED: &str =
    "the guest's balloon driver keeps its queues in memory that the host cannot see (mainline \
     Linux in a protected VM does): its balloon is not supported";

/// Both sides of the balloon meet here.
#[derive(Debug)]
pub struct Handle {
    state: Mutex<State>,
    changed: Condvar,
    /// Signalled when statistics are wanted.
    asked: EventFd,
}

#[derive(Debug, Default)]
struct State {
    /// Wanted, in [`UNIT`]s.
    target: u32,
    /// What the guest says that it has given, in [`UNIT`]s.
    actual: u32,
    /// How to interrupt the guest while its driver runs.
    interrupt: Option<Arc<Interrupt>>,
    unsupported: bool,
    /// Statistics that came, counted.
    stats: (u64, BalloonStats),
}

impl Handle {
    /// A balloon without air.
    pub fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), changed: Condvar::new(), asked: event()? })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the guest for `num_bytes`, rounded down to whole pages. With `wait` the answer comes when
    /// the guest has given them, or does not go on.
    pub fn adjust(&self, num_bytes: u64, wait: bool) -> Result<(), String> {
        let target = u32::try_from(num_bytes / UNIT);
        let target = target.map_err(|_| format!("{num_bytes} bytes are more than can be asked"))?;
        let mut state = self.state();
        if state.unsupported {
            return Err(UNSUPPORTED.into());
        }
        state.target = target;
        if let Some(interrupt) = &state.interrupt {
            interrupt.config();
        }
        while wait && state.actual != target {
            let before = state.actual;
            let waited = self.changed.wait_timeout_while(state, PATIENCE, |s| s.actual == before);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = now;
            if timeout.timed_out() {
                let actual = u64::from(state.actual) * UNIT;
                return Err(format!("the balloon has {actual} bytes, not {num_bytes}"));
            }
        }
        Ok(())
    }

    /// What the guest says about its memory now, and the balloon's size in bytes.
    pub fn stats(&self) -> Result<(BalloonStats, u64), String> {
        let state = self.state();
        if state.unsupported {
            return Err(UNSUPPORTED.into());
        }
        if state.interrupt.is_none() {
            return Err("the guest does not use its balloon (yet)".into());
        }
        let before = state.stats.0;
        self.asked.write(1).map_err(|e| e.to_string())?;
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |s| s.stats.0 == before);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            true => Err("the guest does not answer".into()),
            false => Ok((state.stats.1, u64::from(state.actual) * UNIT)),
        }
    }

    /// The size that is wanted, in [`UNIT`]s.
    pub fn target(&self) -> u32 {
        self.state().target
    }

    /// Signalled when [`Handle::stats`] waits.
    pub(super) fn asked(&self) -> &EventFd {
        &self.asked
    }

    /// Wanted and actual size, as the guest's driver sees them.
    pub(super) fn sizes(&self) -> (u32, u32) {
        let state = self.state();
        (state.target, state.actual)
    }

    /// The guest's driver started, or stopped.
    pub(super) fn set_driver(&self, interrupt: Option<Arc<Interrupt>>) {
        let mut state = self.state();
        state.interrupt = interrupt;
        // A new driver has nothing of the old one's.
        state.actual = 0;
    }

    /// The guest says what it has given.
    pub(super) fn set_actual(&self, actual: u32) {
        self.state().actual = actual;
        self.changed.notify_all();
    }

    /// The guest cannot use the balloon.
    pub(super) fn set_unsupported(&self) {
        self.state().unsupported = true;
    }

    /// Statistics came.
    pub(super) fn set_stats(&self, stats: BalloonStats) {
        let mut state = self.state();
        state.stats = (state.stats.0.wrapping_add(1), stats);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn running() -> (Arc<Handle>, Arc<Interrupt>) {
        let (handle, interrupt) = (Handle::new().unwrap(), Arc::new(Interrupt::new(4).unwrap()));
        handle.set_driver(Some(Arc::clone(&interrupt)));
        (Arc::new(handle), interrupt)
    }

    #[test]
    fn the_guest_is_told_of_a_new_size() {
        let (handle, interrupt) = running();
        handle.adjust(3 * UNIT + 1, false).unwrap();
        assert_eq!(handle.sizes(), (3, 0));
        assert!(interrupt.take_pulse());
        assert_eq!(interrupt.generation(), 1);
        assert!(handle.adjust(u64::MAX, false).is_err());
        assert_eq!(handle.sizes().0, 3);
    }

    #[test]
    fn success_can_be_waited_for() {
        let (handle, _) = running();
        let other = Arc::clone(&handle);
        let guest = thread::spawn(move || {
            while other.sizes().0 != 2 {
                thread::yield_now();
            }
            other.set_actual(1);
            other.set_actual(2);
        });
        handle.adjust(2 * UNIT, true).unwrap();
        guest.join().unwrap();
    }

    #[test]
    fn statistics_are_those_that_come_after_the_question() {
        let (handle, _) = running();
        handle.set_stats(BalloonStats { free_memory: Some(1), ..BalloonStats::default() });
        handle.set_actual(5);
        let other = Arc::clone(&handle);
        let guest = thread::spawn(move || {
            while other.asked().read().is_err() {
                thread::yield_now();
            }
            other.set_stats(BalloonStats { free_memory: Some(2), ..BalloonStats::default() });
        });
        let (stats, actual) = handle.stats().unwrap();
        assert_eq!((stats.free_memory, actual), (Some(2), 5 * UNIT));
        guest.join().unwrap();
    }

    #[test]
    fn what_cannot_be_is_said() {
        let handle = Handle::new().unwrap();
        assert!(handle.stats().unwrap_err().contains("does not use"));
        // The driver will see it when it starts.
        handle.adjust(UNIT, false).unwrap();
        handle.set_unsupported();
        assert_eq!(handle.adjust(0, false), Err(UNSUPPORTED.into()));
        assert_eq!(handle.stats(), Err(UNSUPPORTED.into()));
    }
}
