// SPDX-License-Identifier: Apache-2.0
//! The host's clock: one hypercall that gives wall time and counter at the same moment (PTP).

use crate::error::Error;
use crate::hvc::{call32, Hvc};
use gzvm_abi::guest;

/// Which of the guest's counters a [`ClockSample`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// CNTVCT_EL0.
    Virtual,
    /// CNTPCT_EL0.
    Physical,
}

/// The host's wall clock and a counter, taken at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// The host's realtime clock: nanoseconds since 1970 without leap seconds.
    pub wall_ns: u64,
    /// The counter, in ticks.
    pub cycles: u64,
}

impl ClockSample {
    /// Asks the host. Each word of the answer holds 32 bits: time high and low, cycles high and
    /// low.
    pub(crate) fn query<H: Hvc>(hvc: &H, counter: Counter) -> Result<Self, Error> {
        let kind = match counter {
            Counter::Virtual => guest::PTP_VIRT_COUNTER,
            Counter::Physical => guest::PTP_PHYS_COUNTER,
        };
        let [time_high, time_low, cycles_high, cycles_low] = call32(hvc, guest::PTP, [kind, 0, 0])?;
        let join = |high: u64, low: u64| (high << 32) | (low & 0xffff_ffff);
        Ok(Self { wall_ns: join(time_high, time_low), cycles: join(cycles_high, cycles_low) })
    }
}
