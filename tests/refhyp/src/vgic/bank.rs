// SPDX-License-Identifier: Apache-2.0
//! Interrupts in a row, of which few are of interest at a time.

use super::Irq;

/// Bits of a word of [`Bank::live`].
const BITS: usize = u64::BITS as usize;
/// Words for as many interrupts as a bank has at most.
const WORDS: usize = super::SPIS / BITS;

/// `N` interrupts.
///
/// # Invariants
///
/// Each interrupt that is pending, or active, or has a high line, has its bit set in `live`; others
/// may have. All changes are made through [`Self::get_mut`] and [`Self::iter_mut`], which set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bank<const N: usize> {
    irqs: [Irq; N],
    live: [u64; WORDS],
}

impl<const N: usize> Bank<N> {
    /// All as after reset. All zero bits.
    pub const NEW: Self = Self { irqs: [Irq::NEW; N], live: [0; WORDS] };

    pub fn get(&self, index: usize) -> Option<&Irq> {
        self.irqs.get(index)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut Irq> {
        let irq = self.irqs.get_mut(index)?;
        if let Some(word) = self.live.get_mut(index / BITS) {
            *word |= 1 << (index % BITS);
        }
        Some(irq)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Irq> {
        self.live = [u64::MAX; WORDS];
        self.irqs.iter_mut()
    }

    /// Those that are pending or active, and some others, with their indices in rising order.
    pub fn live(&self) -> impl Iterator<Item = (usize, &Irq)> {
        let words = self.live.iter().take(N.div_ceil(BITS)).enumerate();
        words.flat_map(|(at, word)| {
            let mut rest = *word;
            core::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                // CAST: below 64.
                (bit < u64::BITS).then_some(at * BITS + bit as usize)
            })
            .filter_map(|index| Some((index, self.irqs.get(index)?)))
        })
    }

    /// Forgets which are of no interest any more.
    pub fn tidy(&mut self) {
        for (at, word) in self.live.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest & rest.wrapping_neg();
                rest &= !bit;
                // CAST: below 64.
                let irq = self.irqs.get(at * BITS + bit.trailing_zeros() as usize);
                // INVARIANT: one that stays without its bit is neither.
                if irq.is_none_or(|irq| !(irq.pending || irq.line || irq.active)) {
                    *word &= !bit;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices<const N: usize>(bank: &Bank<N>) -> Vec<usize> {
        bank.live().map(|(index, _)| index).collect()
    }

    #[test]
    fn only_what_is_pending_high_or_active_stays() {
        let mut bank = Bank::<256>::NEW;
        for index in [3, 63, 64, 200, 255] {
            bank.get_mut(index).unwrap().enabled = true;
        }
        assert_eq!(indices(&bank), [3, 63, 64, 200, 255]);
        bank.get_mut(63).unwrap().pending = true;
        bank.get_mut(64).unwrap().line = true;
        bank.get_mut(255).unwrap().active = true;
        bank.tidy();
        assert_eq!(indices(&bank), [63, 64, 255]);
        bank.get_mut(64).unwrap().line = false;
        bank.tidy();
        assert_eq!(indices(&bank), [63, 255]);
        bank.iter_mut().for_each(|irq| irq.ended_by = 0);
        assert_eq!(indices(&bank).len(), 256);
        bank.tidy();
        assert_eq!(indices(&bank), [63, 255]);
    }

    #[test]
    fn a_short_bank_has_no_more_than_its_own() {
        let mut bank = Bank::<32>::NEW;
        bank.iter_mut().for_each(|irq| irq.pending = true);
        bank.tidy();
        assert_eq!(indices(&bank), (0..32).collect::<Vec<_>>());
        assert!(bank.get_mut(32).is_none() && bank.get(32).is_none());
    }
}
