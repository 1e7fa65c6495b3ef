// SPDX-License-Identifier: Apache-2.0
//! Waiting for a discontinuity of the host's wall clock: it was set, or the host was suspended.

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When the timer would go off by itself, after which it is set anew.
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Notices each discontinuity from its creation on.
#[derive(Debug)]
pub struct Watch(TimerFd);

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    ///
    /// The kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        let watch = Self(TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?);
        watch.arm()?;
        Ok(watch)
    }

    /// Waits for the next discontinuity.
    ///
    /// # Errors
    ///
    /// The timer fails.
    pub fn wait(&self) -> io::Result<()> {
        // A cancelled timer and one that went off are the same to `TimerFd::wait`; the latter costs
        // a needless look once in a while. Armed before anybody looks, so that no step is missed.
        self.0.wait()?;
        self.arm()
    }

    /// A timer for an absolute time is cancelled when the clock is set or the system resumes
    /// (timerfd_settime(2)).
    fn arm(&self) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        Ok(self.0.set(Expiration::OneShot(TimeSpec::from_duration(now + FAR)), flags)?)
    }
}
