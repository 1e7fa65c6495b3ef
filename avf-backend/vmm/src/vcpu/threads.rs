// SPDX-License-Identifier: Apache-2.0
//! All vCPU threads of a VM: stopped together, suspended together.

use crate::signals::kick_signal;
use gzvm::Kicker;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vmm_sys_util::signal::Killable;

/// How long vCPUs have to leave the guest.
const PATIENCE: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(5);

/// What the vCPUs are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Run,
    Suspend,
    Stop,
}

#[derive(Debug, Default)]
struct Wanted {
    state: State,
    /// vCPUs that wait for the end of a suspension.
    parked: usize,
}

/// What the threads look at when they were kicked.
#[derive(Debug, Default)]
pub struct Gate {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Gate {
    /// Called by a vCPU that starts or was kicked: waits while the VM is suspended. Returns whether
    /// to run on.
    pub fn pass(&self) -> bool {
        let mut wanted = self.wanted();
        wanted.parked += 1;
        while wanted.state == State::Suspend {
            wanted = self.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        wanted.parked -= 1;
        wanted.state == State::Run
    }

    fn set(&self, state: State) {
        let mut wanted = self.wanted();
        // A stop is for good.
        if wanted.state != State::Stop {
            wanted.state = state;
        }
        self.changed.notify_all();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread and what takes it out of the guest.
#[derive(Debug)]
pub(super) struct Thread {
    pub handle: JoinHandle<()>,
    pub kicker: Kicker,
}

impl Thread {
    fn kick(&self) {
        self.kicker.request_exit();
        if let Err(e) = self.handle.kill(kick_signal()) {
            log::debug!("kick: {e}");
        }
    }
}

/// All vCPU threads of a VM.
#[derive(Debug, Default)]
pub struct VcpuThreads {
    pub(super) threads: Vec<Thread>,
    pub(super) gate: Arc<Gate>,
}

impl VcpuThreads {
    /// No threads yet; with `suspended` they will wait for [`VcpuThreads::resume`].
    pub fn new(suspended: bool) -> Self {
        let threads = Self::default();
        if suspended {
            threads.gate.set(State::Suspend);
        }
        threads
    }

    /// Takes all vCPUs out of the guest until [`VcpuThreads::resume`]. Returns whether all are.
    pub fn suspend(&self) -> bool {
        self.gate.set(State::Suspend);
        self.kick_until(|| {
            let ended = self.threads.iter().filter(|thread| thread.handle.is_finished()).count();
            self.gate.wanted().parked + ended >= self.threads.len()
        })
    }

    /// Lets them go on.
    pub fn resume(&self) {
        let mut wanted = self.gate.wanted();
        if wanted.state == State::Suspend {
            // Before any of them looks again, which needs the lock that is held here.
            self.threads.iter().for_each(|thread| thread.kicker.clear());
            wanted.state = State::Run;
            self.gate.changed.notify_all();
        }
    }

    /// Ends all vCPU threads. Returns whether all have ended.
    pub fn stop(&self) -> bool {
        self.gate.set(State::Stop);
        self.kick_until(|| self.threads.iter().all(|thread| thread.handle.is_finished()))
    }

    /// Kicks again and again: a signal may come while a device is at work.
    fn kick_until(&self, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            if Instant::now() > deadline {
                return false;
            }
            self.threads.iter().for_each(Thread::kick);
            thread::sleep(INTERVAL);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspended_vcpu_waits_for_the_resume() {
        let gate = Arc::new(Gate::default());
        assert!(gate.pass());
        gate.set(State::Suspend);
        let waiting = Arc::clone(&gate);
        let vcpu = thread::spawn(move || waiting.pass());
        while gate.wanted().parked == 0 {
            thread::yield_now();
        }
        assert!(!vcpu.is_finished());
        gate.set(State::Run);
        assert!(vcpu.join().unwrap());
    }

    #[test]
    fn a_stop_ends_a_suspension_and_stays() {
        let gate = Arc::new(Gate::default());
        gate.set(State::Suspend);
        gate.set(State::Stop);
        assert!(!gate.pass());
        gate.set(State::Run);
        assert!(!gate.pass());
    }
}
