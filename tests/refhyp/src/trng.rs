// SPDX-License-Identifier: Apache-2.0
//! Random numbers for guests: a generator seeded by the CPU or the boot loader.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Bytes of a usable seed.
const SEED: usize = 32;

/// There is no entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

/// The generator, if there was a seed for it.
#[derive(Debug)]
pub struct Generator(Option<ChaCha20Rng>);

impl Generator {
    /// A generator from a seed. Without one it refuses, unless `insecure` allows a
    /// constant.
    pub fn new(seed: &[u8], insecure: bool) -> Self {
        let seed: Option<[u8; SEED]> = seed.get(..SEED).and_then(|s| s.try_into().ok());
        let seed = seed.or(insecure.then_some([0x5a; SEED]));
        Self(seed.map(ChaCha20Rng::from_seed))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.as_mut().ok_or(NoEntropy)?.fill_bytes(bytes);
        Ok(())
    }

    /// The registers x1 to x3 of a TRNG_RND answer (Arm DEN0098, 2.5): the `bits` (1 to
    /// `3 * word`) random bits, lowest in x3, words of `word` bits.
    pub fn words(&mut self, bits: u64, word: u64) -> Result<[u64; 3], NoEntropy> {
        let mut out = [0; 3];
        for (index, place) in out.iter_mut().rev().enumerate() {
            let mut bytes = [0; 8];
            self.fill(&mut bytes)?;
            // CAST: an index below 3.
            let wanted = bits.saturating_sub(index as u64 * word).min(word);
            if wanted != 0 {
                *place = u64::from_le_bytes(bytes) >> (64 - wanted);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seed_means_no_numbers_unless_allowed() {
        assert_eq!(Generator::new(&[1; 31], false).words(64, 64), Err(NoEntropy));
        assert!(Generator::new(&[], true).words(64, 64).is_ok());
    }

    #[test]
    fn only_the_bits_asked_for_are_set() {
        let mut generator = Generator::new(&[3; 32], false);
        for _ in 0..50 {
            let [top, middle, low] = generator.words(68, 64).expect("seeded");
            assert_eq!(top, 0);
            assert!(middle < 16);
            assert_ne!(low, 0);
            let narrow = generator.words(33, 32).expect("seeded");
            assert!(narrow[2] < 1 << 32 && narrow[1] < 2 && narrow[0] == 0);
        }
    }
}
