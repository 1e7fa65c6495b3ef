// SPDX-License-Identifier: Apache-2.0
//! The pages that translation tables are made of.

use crate::hw::{Hardware, PAGE_SIZE};

/// Zeroed pages out of one range of the hypervisor's memory. Free pages form a list that is kept
/// in the pages themselves.
#[derive(Clone, Debug)]
pub struct Pool {
    fresh: u64,
    end: u64,
    /// Physical address of the first free page, 0 for none.
    free: u64,
    left: u64,
}

impl Pool {
    /// A pool of the pages between two page-aligned physical addresses.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { fresh: start, end, free: 0, left: end.saturating_sub(start) / PAGE_SIZE }
    }

    /// Pages left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes `count` adjacent fresh pages whose address is a multiple of their size.
    pub fn take_aligned(&mut self, hw: &impl Hardware, count: u64) -> Option<u64> {
        let size = count.checked_mul(PAGE_SIZE)?;
        let start = self.fresh.checked_next_multiple_of(size)?;
        let end = start.checked_add(size).filter(|end| *end <= self.end)?;
        while self.fresh < start {
            let page = self.fresh;
            self.fresh += PAGE_SIZE;
            self.left -= 1;
            self.give(hw, page);
        }
        self.fresh = end;
        self.left -= count;
        (start..end).step_by(4096).for_each(|page| hw.wipe_page(page));
        Some(start)
    }

    /// Takes a zeroed page.
    pub fn take(&mut self, hw: &impl Hardware) -> Option<u64> {
        if self.free == 0 {
            return self.take_aligned(hw, 1);
        }
        let page = self.free;
        self.free = hw.read(page);
        self.left -= 1;
        hw.wipe_page(page);
        Some(page)
    }

    /// Gives a page back.
    pub fn give(&mut self, hw: &impl Hardware, page: u64) {
        hw.write(page, self.free);
        self.free = page;
        self.left += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHardware;

    #[test]
    fn pages_come_zeroed_once_each_and_run_out() {
        let hw = FakeHardware::new(0x1000, 8);
        let mut pool = Pool::new(0x1000, 0x9000);
        let root = pool.take_aligned(&hw, 2).expect("room");
        assert_eq!(root % 0x2000, 0);
        assert_eq!(pool.left(), 6);
        let mut taken = vec![root, root + 0x1000];
        while let Some(page) = pool.take(&hw) {
            assert_eq!(hw.read(page), 0);
            hw.write(page, u64::MAX);
            assert!(!taken.contains(&page));
            taken.push(page);
        }
        assert_eq!((taken.len(), pool.left()), (8, 0));
        pool.give(&hw, taken[3]);
        assert_eq!(pool.take(&hw), Some(taken[3]));
        assert_eq!(hw.read(taken[3]), 0);
        assert_eq!(pool.take(&hw), None);
    }
}
