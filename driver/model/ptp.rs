// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The guest's question for the time.

use crate::abi::guest;

/// One instant on the host: wall clock and architected counter read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Nanoseconds since 1970.
    pub wall_ns: u64,
    /// The host's counter.
    pub cycles: u64,
}

/// The four result words: time and counter, high half first. `vtimer_offset` is host counter minus
/// guest virtual counter, `None` if unknown. A question that cannot be answered gets SMCCC's
/// "not supported".
pub fn answer(snapshot: Option<Snapshot>, counter: u64, vtimer_offset: Option<u64>) -> [u64; 4] {
    let cycles = snapshot.and_then(|snapshot| match counter {
        guest::PTP_VIRT_COUNTER => Some(snapshot.cycles.wrapping_sub(vtimer_offset?)),
        guest::PTP_PHYS_COUNTER => Some(snapshot.cycles),
        _ => None,
    });
    match (snapshot, cycles) {
        (Some(Snapshot { wall_ns, .. }), Some(cycles)) => {
            [wall_ns >> 32, wall_ns & 0xffff_ffff, cycles >> 32, cycles & 0xffff_ffff]
        }
        // CAST: the sign-extended register value of a negative SMCCC result.
        _ => [guest::NOT_SUPPORTED as u64, 0, 0, 0],
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_ptp))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w36_unknown_counters_are_not_supported() {
        let now = Some(Snapshot { wall_ns: 0x1_2345_6789, cycles: 0x5_0000_0010 });
        assert_eq!(
            answer(now, guest::PTP_VIRT_COUNTER, Some(0x11)),
            [1, 0x2345_6789, 4, 0xffff_ffff]
        );
        assert_eq!(answer(now, guest::PTP_PHYS_COUNTER, None), [1, 0x2345_6789, 5, 0x10]);
        let refused = [u64::MAX, 0, 0, 0];
        assert_eq!(answer(now, 2, Some(0)), refused);
        assert_eq!(answer(now, guest::PTP_VIRT_COUNTER, None), refused);
        assert_eq!(answer(None, guest::PTP_PHYS_COUNTER, None), refused);
    }
}
