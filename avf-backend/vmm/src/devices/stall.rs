// SPDX-License-Identifier: Apache-2.0
//! AVF's stall detector (`qemu,vcpu-stall-detector`): each vCPU reloads a counter; one that has run
//! for the counter's time without doing so is stuck, and the VM ends.
//!
//! The counter runs on *guest time*, as the kernel accounts it to the vCPU's thread: a VM that the
//! host stops, or does not schedule, is not stuck. The interrupt that crosvm raises first is a PPI,
//! which GenieZone cannot inject.

use super::bus::MmioDevice;
use crate::event::VmEvent;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// Registers of one vCPU.
const STATUS: u64 = 0x0;
const LOAD: u64 = 0x4;
const CURRENT: u64 = 0x8;
const FREQUENCY: u64 = 0xc;
/// Bytes of them.
const STRIDE: u64 = 0x10;
/// Field of a thread's `stat` with its guest time in ticks, counted from 1.
const GUEST_TIME_FIELD: usize = 43;
/// Ticks of `stat` in a second, on every architecture (include/uapi/asm-generic/param.h).
const USER_HZ: u64 = 100;
/// Between two looks there is at least this much: the accounting has a resolution of its own.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// How long each vCPU has run.
#[derive(Debug)]
pub struct GuestTimes {
    threads: Vec<AtomicI32>,
}

impl GuestTimes {
    /// For that many vCPUs.
    pub fn new(vcpus: u32) -> Self {
        Self { threads: (0..vcpus).map(|_| AtomicI32::new(0)).collect() }
    }

    /// The calling thread is the one of `vcpu`.
    pub fn register(&self, vcpu: u32) {
        let slot = usize::try_from(vcpu).ok().and_then(|vcpu| self.threads.get(vcpu));
        if let Some(slot) = slot {
            slot.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
        }
    }

    /// Guest time of a vCPU; `None` before it runs.
    fn get(&self, vcpu: usize) -> Option<Duration> {
        let thread = self.threads.get(vcpu)?.load(Ordering::Relaxed);
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
        let ticks = guest_ticks(&stat)?;
        Some(Duration::from_millis(ticks.saturating_mul(1000) / USER_HZ))
    }
}

/// The guest time in a thread's `stat`, whose second field may contain spaces and brackets.
fn guest_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(GUEST_TIME_FIELD - 3)?.parse().ok()
}

#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    enabled: bool,
    load: u32,
    frequency: u32,
    /// Guest time when it was reloaded.
    reloaded: Duration,
}

impl Counter {
    /// What a reload is worth; `None` if the guest has not said.
    fn budget(&self) -> Option<Duration> {
        let millis = u64::from(self.load).checked_mul(1000)?.checked_div(self.frequency.into())?;
        self.enabled.then_some(Duration::from_millis(millis))
    }
}

/// The detector.
#[derive(Debug)]
pub struct StallDetector {
    counters: Mutex<Vec<Counter>>,
    times: Arc<GuestTimes>,
    watcher: OnceLock<Thread>,
}

impl StallDetector {
    /// A detector for vCPUs whose time `times` knows.
    pub fn new(times: Arc<GuestTimes>) -> Self {
        let counters = Mutex::new(vec![Counter::default(); times.threads.len()]);
        Self { counters, times, watcher: OnceLock::new() }
    }

    /// Starts watching; a stall is told to `events`.
    pub fn start(self: &Arc<Self>, events: Sender<VmEvent>) -> io::Result<()> {
        let detector = Arc::clone(self);
        let watch = move || loop {
            match detector.look() {
                Look::Stalled(vcpu) => {
                    // Nobody listens any more when the VM is ending anyway.
                    let _ = events.send(VmEvent::Stalled { vcpu });
                    return;
                }
                // Guest time is never faster than time.
                Look::Wait(left) => thread::park_timeout(left.max(SHORTEST_WAIT)),
                Look::Idle => thread::park(),
            }
        };
        let watcher = thread::Builder::new().name("stall".into()).spawn(watch)?;
        // Started once; a second watcher would do no harm.
        let _ = self.watcher.set(watcher.thread().clone());
        Ok(())
    }

    fn look(&self) -> Look {
        let mut shortest = None;
        for (vcpu, counter) in self.counters().iter().enumerate() {
            let (Some(budget), Some(time)) = (counter.budget(), self.times.get(vcpu)) else {
                continue;
            };
            match budget.checked_sub(time.saturating_sub(counter.reloaded)) {
                None | Some(Duration::ZERO) => return Look::Stalled(vcpu),
                Some(left) => shortest = Some(shortest.map_or(left, |s: Duration| s.min(left))),
            }
        }
        shortest.map_or(Look::Idle, Look::Wait)
    }

    fn counters(&self) -> MutexGuard<'_, Vec<Counter>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Stalled(usize),
    Wait(Duration),
    Idle,
}

impl MmioDevice for StallDetector {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let Ok(vcpu) = usize::try_from(offset / STRIDE) else { return };
        let counters = self.counters();
        let Some(counter) = counters.get(vcpu) else { return };
        let value = match offset % STRIDE {
            STATUS => counter.enabled.into(),
            LOAD => counter.load,
            CURRENT => {
                let time = self.times.get(vcpu).unwrap_or_default();
                let used = time.saturating_sub(counter.reloaded).as_millis();
                let used = used.saturating_mul(counter.frequency.into()) / 1000;
                counter.load.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
            }
            FREQUENCY => counter.frequency,
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (Ok(vcpu), Some(bytes)) = (usize::try_from(offset / STRIDE), data.first_chunk()) else {
            return;
        };
        let value = u32::from_le_bytes(*bytes);
        let time = self.times.get(vcpu).unwrap_or_default();
        let mut counters = self.counters();
        let Some(counter) = counters.get_mut(vcpu) else { return };
        match offset % STRIDE {
            STATUS => counter.enabled = value & 1 != 0,
            LOAD => counter.load = value,
            FREQUENCY => counter.frequency = value,
            _ => return,
        }
        counter.reloaded = time;
        drop(counters);
        if offset % STRIDE == STATUS {
            self.watcher.get().map(Thread::unpark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector() -> StallDetector {
        let times = Arc::new(GuestTimes::new(2));
        times.register(0);
        StallDetector::new(times)
    }

    fn set(detector: &StallDetector, offset: u64, value: u32) {
        detector.write(offset, &value.to_le_bytes());
    }

    #[test]
    fn guest_time_is_field_43() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("12 (a) b (c) {}", fields.join(" "));
        assert_eq!(guest_ticks(&stat), Some(43));
        assert_eq!(guest_ticks("12 (a"), None);
    }

    #[test]
    fn only_enabled_vcpus_that_run_are_watched() {
        let detector = detector();
        assert_eq!(detector.look(), Look::Idle);
        set(&detector, FREQUENCY, 10);
        set(&detector, LOAD, 80);
        assert_eq!(detector.look(), Look::Idle, "not enabled");
        set(&detector, STATUS, 1);
        // This test's thread has no guest time, so all of it is left.
        assert_eq!(detector.look(), Look::Wait(Duration::from_secs(8)));
        set(&detector, STRIDE + LOAD, 0);
        set(&detector, STRIDE + STATUS, 1);
        assert_eq!(detector.look(), Look::Wait(Duration::from_secs(8)), "vCPU 1 does not run");
        set(&detector, LOAD, 0);
        assert_eq!(detector.look(), Look::Stalled(0));
        set(&detector, STATUS, 0);
        assert_eq!(detector.look(), Look::Idle);
    }

    #[test]
    fn a_frequency_of_zero_is_no_budget() {
        let detector = detector();
        set(&detector, LOAD, 80);
        set(&detector, STATUS, 1);
        assert_eq!(detector.look(), Look::Idle);
        let mut data = [0xff; 4];
        detector.read(u64::MAX, &mut data);
        detector.write(u64::MAX, &data);
    }
}
