// SPDX-License-Identifier: Apache-2.0
//! Random numbers that a failure can be repeated with.

/// A generator with a seed (Knuth's linear congruential one; its upper bits are used).
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which is at most 2^31.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}
