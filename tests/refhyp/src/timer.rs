// SPDX-License-Identifier: Apache-2.0
//! Generic timers (Arm ARM D12.2): one compare value and its control register.

/// Control bit: the timer runs.
const ENABLE: u64 = 1;
/// Control bit: the interrupt is masked.
const IMASK: u64 = 1 << 1;
/// Control bit, read only: the condition holds.
const ISTATUS: u64 = 1 << 2;

/// Longest time, in seconds, that an idle vCPU is left to the host's own timer. A stock driver
/// multiplies ticks by a factor that overflows after about a minute at 1 GHz.
pub const LONGEST_IDLE: u64 = 30;

/// A timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// CNTx_CTL.
    pub control: u64,
    /// CNTx_CVAL, in ticks.
    pub compare: u64,
}

impl Timer {
    /// A stopped timer.
    pub const OFF: Self = Self { control: 0, compare: 0 };

    /// Whether the timer's interrupt line is high at counter value `now`.
    pub const fn line(self, now: u64) -> bool {
        self.armed() && now >= self.compare
    }

    /// Whether the line is high or will be.
    pub const fn armed(self) -> bool {
        self.control & (ENABLE | IMASK) == ENABLE
    }

    /// Ticks until the line is high, if it will be.
    pub const fn delay(self, now: u64) -> Option<u64> {
        if self.armed() {
            Some(self.compare.saturating_sub(now))
        } else {
            None
        }
    }

    /// What the control register reads as.
    pub const fn read_control(self, now: u64) -> u64 {
        let met = self.control & ENABLE != 0 && now >= self.compare;
        self.control & (ENABLE | IMASK) | if met { ISTATUS } else { 0 }
    }

    /// Writes the control register.
    pub fn write_control(&mut self, value: u64) {
        self.control = value & (ENABLE | IMASK);
    }

    /// What the 32-bit down counter reads as.
    pub const fn read_value(self, now: u64) -> u64 {
        self.compare.wrapping_sub(now) & 0xffff_ffff
    }

    /// Writes the 32-bit down counter, which is signed.
    pub fn write_value(&mut self, value: u64, now: u64) {
        // CAST: the register is 32 bits wide and its sign counts.
        self.compare = now.wrapping_add(value as u32 as i32 as u64);
    }
}

/// Ticks that an idle vCPU may sleep: until the first of its timers, at least one tick, and not
/// longer than [`LONGEST_IDLE`].
pub fn idle_delay(timers: [Option<u64>; 2], frequency: u64) -> u64 {
    let longest = frequency.saturating_mul(LONGEST_IDLE);
    timers.into_iter().flatten().min().unwrap_or(longest).clamp(1, longest.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_follow_enable_mask_and_time() {
        let timer = |control| Timer { control, compare: 100 };
        assert!(timer(1).line(100));
        assert!(!timer(1).line(99));
        assert!(!timer(3).line(100));
        assert!(!timer(0).line(100));
        assert_eq!(timer(3).read_control(100), 7);
        assert_eq!(timer(1).delay(40), Some(60));
        assert_eq!(timer(3).delay(40), None);
    }

    #[test]
    fn the_down_counter_is_signed() {
        let mut timer = Timer::OFF;
        timer.write_value(0xffff_ffff, 1000);
        assert_eq!(timer.compare, 999);
        assert_eq!(timer.read_value(1000), 0xffff_ffff);
    }

    #[test]
    fn idle_is_never_zero_nor_endless() {
        assert_eq!(idle_delay([None, None], 10), 300);
        assert_eq!(idle_delay([Some(0), None], 10), 1);
        assert_eq!(idle_delay([Some(u64::MAX), Some(7)], 10), 7);
    }
}
