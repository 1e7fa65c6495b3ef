// SPDX-License-Identifier: Apache-2.0
//! Samples of two clocks, and what follows from them.

use std::fmt;
use std::time::Duration;

/// Both kernels round to whole nanoseconds, down, and keep their clocks within a few of the ideal.
const RESOLUTION_NS: u64 = 10;
/// The fastest that Linux slews a clock, in parts per million (MAXFREQ).
const SLEW_PPM: u64 = 500;

/// Two wall clocks at the same counter value, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The guest's.
    pub guest_ns: u64,
    /// The host's.
    pub host_ns: u64,
}

impl Sample {
    /// Guest minus host, in nanoseconds, at most what an `i64` holds (292 years).
    pub fn offset_ns(&self) -> i64 {
        let wide = i128::from(self.guest_ns) - i128::from(self.host_ns);
        i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
    }
}

/// How far a guest's clock is from the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Guest minus host, in nanoseconds.
    pub offset_ns: i64,
    /// How far that can be from the offset at the time of the report, in nanoseconds.
    pub bound_ns: u64,
    /// What the agent set the clock forward by before it measured, in nanoseconds.
    pub stepped_ns: Option<i64>,
    /// Number of samples.
    pub samples: usize,
}

impl Report {
    /// What `samples` say, the last of which counts, after `elapsed` since the question was asked:
    /// meanwhile a clock may have been slewed.
    pub fn new(samples: &[Sample], stepped_ns: Option<i64>, elapsed: Duration) -> Option<Self> {
        let offsets = || samples.iter().map(Sample::offset_ns);
        let spread = offsets().max()?.abs_diff(offsets().min()?);
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let slew = (elapsed / 1_000_000).saturating_mul(SLEW_PPM).saturating_add(SLEW_PPM);
        let bound_ns = RESOLUTION_NS.saturating_add(spread).saturating_add(slew);
        Some(Self {
            offset_ns: offsets().next_back()?,
            bound_ns,
            stepped_ns,
            samples: samples.len(),
        })
    }

    /// Whether the clocks agree, as far as can be said.
    pub fn agrees(&self) -> bool {
        self.offset_ns.unsigned_abs() <= self.bound_ns
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stepped) = self.stepped_ns {
            write!(f, "stepped by {stepped} ns; ")?;
        }
        let Self { offset_ns, bound_ns, samples, .. } = self;
        write!(f, "guest - host = {offset_ns} ns +- {bound_ns} ns ({samples} samples)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(guest_ns: u64, host_ns: u64) -> Sample {
        Sample { guest_ns, host_ns }
    }

    #[test]
    fn offsets_have_a_sign_and_an_end() {
        assert_eq!(sample(5, 15).offset_ns(), -10);
        assert_eq!(sample(u64::MAX, 0).offset_ns(), i64::MAX);
        assert_eq!(sample(0, u64::MAX).offset_ns(), i64::MIN);
    }

    #[test]
    fn the_bound_has_resolution_spread_and_slew() {
        let samples = [sample(100, 90), sample(203, 190), sample(300, 291)];
        let report = Report::new(&samples, None, Duration::from_millis(20)).unwrap();
        // 10 + (13 - 9) + 500 ppm of 20 ms, rounded up by a millisecond.
        assert_eq!((report.offset_ns, report.bound_ns), (9, 10 + 4 + 10_000 + 500));
        assert!(report.agrees());
        let far = Report::new(&[sample(20_000, 0)], Some(-3), Duration::from_millis(1)).unwrap();
        assert!(!far.agrees());
        assert_eq!(
            far.to_string(),
            "stepped by -3 ns; guest - host = 20000 ns +- 1010 ns (1 samples)"
        );
        assert_eq!(Report::new(&[], None, Duration::ZERO), None);
    }
}
