// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Counter ticks as nanoseconds.

const NS_PER_SEC: u64 = 1_000_000_000;

/// The longest delay in nanoseconds that is worth a timer: 2^62, about 146 years.
pub const MAX_NS: u64 = 1 << 62;

/// `ticks` of a counter of `hz` in nanoseconds, rounded up so that a timer never fires early;
/// at most [`MAX_NS`]. Whole seconds and the rest are converted apart: no product overflows for
/// any frequency below 18 GHz.
pub fn to_ns(ticks: u64, hz: u32) -> u64 {
    let hz = u64::from(hz.max(1));
    let seconds = ticks / hz;
    let rest = (ticks % hz) * NS_PER_SEC;
    seconds.saturating_mul(NS_PER_SEC).saturating_add(rest.div_ceil(hz)).min(MAX_NS)
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_ticks))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w41_long_delays_are_exact() {
        for hz in [13_000_000, 62_500_000, 1_000_000_000] {
            for seconds in [1, 69, 137, 550, 100_000] {
                assert_eq!(to_ns(seconds * u64::from(hz), hz), seconds * NS_PER_SEC);
            }
        }
        assert_eq!(to_ns(1, 62_500_000), 16);
        assert_eq!(to_ns(1, 13_000_000), 77);
        assert_eq!(to_ns(0, 1), 0);
        assert_eq!(to_ns(u64::MAX, 1), MAX_NS);
        assert_eq!(to_ns(5, 0), 5 * NS_PER_SEC);
        assert!(to_ns(u64::MAX, u32::MAX) <= MAX_NS);
    }
}
