// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! IDLE: how long a vCPU that waits for an interrupt sleeps in the host.

use super::ticks;

/// What the hypervisor says of the guest's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Is it armed, so that the host has to wake the vCPU in time?
    pub armed: bool,
    /// Counter ticks until it fires.
    pub ticks: u64,
}

/// How long an idle vCPU sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// The guest is entered again at once.
    NotAtAll,
    /// Until it is kicked.
    UntilKick,
    /// Until it is kicked or so many nanoseconds have passed, at most [`ticks::MAX_NS`].
    AtMost(u64),
}

/// The longest sleep where it is not known when the timer fires.
const UNKNOWN_TIMER_NS: u64 = 1_000_000;

/// The longest sleep without a timer where the hypervisor may not tell all that ends it. By the
/// posted ABI an interrupt between vCPUs is told (IPI); that one starts another by PSCI is only
/// known of hypervisors with WAKE_MASK. The posted driver does not sleep at all without a timer.
const UNTOLD_WAKE_NS: u64 = 100_000_000;

/// How long a vCPU sleeps. `timer` is `None` if it cannot be read; `wakes_are_told`: does the
/// hypervisor name whom to wake, whatever the reason?
pub fn sleep(timer: Option<Timer>, counter_hz: u32, wakes_are_told: bool) -> Sleep {
    match timer {
        None => Sleep::AtMost(UNKNOWN_TIMER_NS),
        Some(Timer { armed: true, ticks: 0 }) => Sleep::NotAtAll,
        Some(Timer { armed: true, ticks }) => Sleep::AtMost(ticks::to_ns(ticks, counter_hz)),
        Some(Timer { armed: false, .. }) if wakes_are_told => Sleep::UntilKick,
        Some(Timer { armed: false, .. }) => Sleep::AtMost(UNTOLD_WAKE_NS),
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_idle))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    const HZ: u32 = 13_000_000;

    fn asleep(armed: bool, ticks: u64, told: bool) -> Sleep {
        sleep(Some(Timer { armed, ticks }), HZ, told)
    }

    #[test]
    fn w15_an_armed_timer_bounds_the_sleep() {
        for told in [false, true] {
            assert_eq!(asleep(true, 13_000_000, told), Sleep::AtMost(1_000_000_000));
            assert_eq!(asleep(true, 0, told), Sleep::NotAtAll);
            assert_eq!(asleep(true, u64::MAX, told), Sleep::AtMost(ticks::to_ns(u64::MAX, HZ)));
        }
        assert_eq!(sleep(None, HZ, true), Sleep::AtMost(UNKNOWN_TIMER_NS));
    }

    #[test]
    fn w15_without_a_timer_only_a_kick_ends_the_sleep_where_all_are_told() {
        // A stale number of ticks means nothing.
        for ticks in [0, 5, u64::MAX] {
            assert_eq!(asleep(false, ticks, true), Sleep::UntilKick);
            assert_eq!(asleep(false, ticks, false), Sleep::AtMost(UNTOLD_WAKE_NS));
        }
    }
}
