// SPDX-License-Identifier: Apache-2.0
//! What a guest does wrong is told to the log, but a guest must not fill it: lines that a guest can
//! cause all come through the macro `guest_warn!`, which lets a few through and counts the rest.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that are written at once.
const BURST: u32 = 20;
/// How long it takes until another line may be written.
const REFILL: Duration = Duration::from_secs(10);

/// Warns of what a guest did, unless it does so all the time.
#[macro_export]
macro_rules! guest_warn {
    ($($format:tt)*) => { $crate::guest_log::warn(format_args!($($format)*)) };
}

/// What [`guest_warn!`](crate::guest_warn) calls.
pub fn warn(line: fmt::Arguments<'_>) {
    static LIMIT: Mutex<Option<Limit>> = Mutex::new(None);
    let now = Instant::now();
    let allowed = {
        let mut limit = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        limit.get_or_insert_with(|| Limit::new(now)).ask(now)
    };
    match allowed {
        Some(0) => log::warn!("{line}"),
        Some(dropped) => log::warn!("{line} ({dropped} more of the guest's faults not told)"),
        None => {}
    }
}

/// A number of lines, and how it grows.
#[derive(Debug)]
struct Limit {
    left: u32,
    refilled: Instant,
    dropped: u64,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, dropped: 0 }
    }

    /// Whether another line may be written; if so, how many were not since the last one.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        let periods = now.duration_since(self.refilled).as_secs() / REFILL.as_secs();
        if periods > 0 {
            self.left =
                u32::try_from(periods).unwrap_or(BURST).saturating_add(self.left).min(BURST);
            self.refilled = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.dropped))
            }
            None => {
                self.dropped = self.dropped.saturating_add(1);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_and_then_a_line_each_period() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        for _ in 0..BURST {
            assert_eq!(limit.ask(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(limit.ask(start + REFILL / 2), None);
        }
        assert_eq!(limit.ask(start + REFILL), Some(1000), "the rest is counted");
        assert_eq!(limit.ask(start + REFILL), None);
        assert_eq!(limit.ask(start + 2 * REFILL), Some(1));
    }

    #[test]
    fn a_quiet_guest_gets_a_burst_and_no_more() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        assert_eq!((0..1000).filter(|_| limit.ask(start).is_some()).count(), BURST as usize);
        let later = start + 1000 * REFILL;
        let told = (0..1000).filter(|_| limit.ask(later).is_some()).count();
        assert_eq!(told, BURST as usize);
    }
}
