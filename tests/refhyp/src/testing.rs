// SPDX-License-Identifier: Apache-2.0
//! A machine for tests: some RAM, and a record of what was asked of it.

use crate::hw::{Hardware, Invalidate, Space};
use std::cell::{Cell, RefCell};

/// RAM from one address on, word by word.
pub struct FakeHardware {
    start: u64,
    words: RefCell<Vec<u64>>,
    invalidations: RefCell<Vec<(Space, Invalidate)>>,
    /// What the counter says, and what each look at it adds.
    pub time: Cell<(u64, u64)>,
}

impl FakeHardware {
    /// A machine with `pages` pages of RAM from `start` on, filled with rubbish.
    pub fn new(start: u64, pages: usize) -> Self {
        Self {
            start,
            words: RefCell::new(vec![0xdead_beef_dead_beef; pages * 512]),
            invalidations: RefCell::default(),
            time: Cell::new((1000, 0)),
        }
    }

    /// What was invalidated so far.
    pub fn invalidations(&self) -> Vec<(Space, Invalidate)> {
        self.invalidations.borrow().clone()
    }

    /// All of its memory.
    pub fn save(&self) -> Vec<u64> {
        self.words.borrow().clone()
    }

    /// Takes back what [`Self::save`] gave.
    pub fn restore(&self, words: &[u64]) {
        self.words.borrow_mut().copy_from_slice(words);
        self.invalidations.borrow_mut().clear();
    }

    fn index(&self, pa: u64) -> usize {
        assert_eq!(pa % 8, 0, "unaligned access at {pa:#x}");
        usize::try_from((pa - self.start) / 8).expect("address")
    }
}

impl Hardware for FakeHardware {
    fn read(&self, pa: u64) -> u64 {
        self.words.borrow()[self.index(pa)]
    }

    fn write(&self, pa: u64, value: u64) {
        let index = self.index(pa);
        self.words.borrow_mut()[index] = value;
    }

    fn copy_in(&self, pa: u64, bytes: &mut [u8]) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = pa + i as u64;
            *byte = self.read(at & !7).to_le_bytes()[(at & 7) as usize];
        }
    }

    fn copy_out(&self, pa: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = pa + i as u64;
            let mut word = self.read(at & !7).to_le_bytes();
            word[(at & 7) as usize] = *byte;
            self.write(at & !7, u64::from_le_bytes(word));
        }
    }

    fn wipe_page(&self, pa: u64) {
        (pa..pa + 0x1000).step_by(8).for_each(|at| self.write(at, 0));
    }

    fn fill_page(&self, pa: u64, first: u64, step: u64) {
        (0..512).for_each(|n| self.write(pa + n * 8, first + n * step));
    }

    fn copy_page(&self, from: u64, to: u64) {
        (0..0x1000).step_by(8).for_each(|at| self.write(to + at, self.read(from + at)));
    }

    fn clean_page(&self, _pa: u64) {}

    fn publish(&self) {}

    fn invalidate(&self, space: Space, what: Invalidate) {
        self.invalidations.borrow_mut().push((space, what));
    }

    fn kick(&self, _cpu: usize) {}

    fn id_register(&self, _crm_op2: (u32, u32)) -> u64 {
        u64::MAX
    }

    fn counter(&self) -> u64 {
        let (now, step) = self.time.get();
        self.time.set((now + step, step));
        now
    }

    fn frequency(&self) -> u64 {
        62_500_000
    }
}
