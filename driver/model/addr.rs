// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Addresses and page ranges that cannot hold a bad value. Pages are the ABI's 4 KiB pages.

use super::refusal::{invalid, Result};
use crate::abi::{PAGE_SHIFT, PAGE_SIZE};

/// A guest frame number: guest physical address divided by the page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gfn(pub u64);

impl Gfn {
    /// The frame that contains a guest physical address.
    pub const fn containing(gpa: u64) -> Self {
        Self(gpa >> PAGE_SHIFT)
    }

    /// The guest physical address of the frame's first byte.
    pub const fn gpa(self) -> u64 {
        self.0 << PAGE_SHIFT
    }
}

/// A host frame number, in 4 KiB units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The host physical address of the frame's first byte.
    pub const fn phys(self) -> u64 {
        self.0 << PAGE_SHIFT
    }
}

/// Consecutive guest frames.
///
/// # Invariants
///
/// Not empty; `start + pages` times the page size does not exceed 2^63, so that no sum overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRange {
    start: Gfn,
    pages: u64,
}

/// Guest frame numbers are below this.
const GFN_LIMIT: u64 = 1 << (63 - PAGE_SHIFT);

impl PageRange {
    /// The range of `pages` frames from `start`; `None` if it is empty or leaves the address space.
    pub fn new(start: Gfn, pages: u64) -> Option<Self> {
        let end = start.0.checked_add(pages)?;
        (pages > 0 && end <= GFN_LIMIT).then_some(Self { start, pages })
    }

    /// One page.
    pub fn single(gfn: Gfn) -> Option<Self> {
        Self::new(gfn, 1)
    }

    /// The range of a page-aligned region in bytes.
    pub fn from_bytes(gpa: u64, size: u64) -> Result<Self> {
        if (gpa | size) & (PAGE_SIZE - 1) != 0 {
            return Err(invalid("guest address and size must be multiples of 4 KiB"));
        }
        Self::new(Gfn::containing(gpa), size >> PAGE_SHIFT)
            .ok_or(invalid("guest address range is empty or wraps"))
    }

    /// First frame.
    pub const fn start(self) -> Gfn {
        self.start
    }

    /// Number of frames, at least 1.
    pub const fn pages(self) -> u64 {
        self.pages
    }

    /// The frame behind the last one.
    pub const fn end(self) -> Gfn {
        Gfn(self.start.0 + self.pages)
    }

    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        self.pages << PAGE_SHIFT
    }

    /// Is the frame in the range?
    pub const fn contains(self, gfn: Gfn) -> bool {
        self.start.0 <= gfn.0 && gfn.0 < self.end().0
    }

    /// Do the ranges have a frame in common?
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end().0 && other.start.0 < self.end().0
    }

    /// What the ranges have in common.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end().min(other.end());
        Self::new(start, end.0.checked_sub(start.0)?)
    }

    /// The part in front of `gfn` and the part from `gfn` on; either is `None` if empty.
    pub fn split_at(self, gfn: Gfn) -> (Option<Self>, Option<Self>) {
        let at = gfn.clamp(self.start, self.end());
        (Self::new(self.start, at.0 - self.start.0), Self::new(at, self.end().0 - at.0))
    }

    /// The range in pieces of at most `pages` frames.
    pub fn chunks(self, pages: u64) -> impl Iterator<Item = PageRange> {
        let step = pages.max(1);
        let mut rest = Some(self);
        core::iter::from_fn(move || {
            let range = rest?;
            let (chunk, after) = range.split_at(Gfn(range.start.0.saturating_add(step)));
            rest = after;
            chunk
        })
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_addr))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn ranges_cannot_wrap_or_be_empty() {
        assert!(PageRange::new(Gfn(0), 0).is_none());
        assert!(PageRange::new(Gfn(u64::MAX), 2).is_none());
        assert!(PageRange::new(Gfn(GFN_LIMIT - 1), 1).is_some());
        assert!(PageRange::new(Gfn(GFN_LIMIT - 1), 2).is_none());
        assert!(PageRange::from_bytes(0xffff_ffff_ffff_f000, 0x2000).is_err());
        assert!(PageRange::from_bytes(0x1000, 0x800).is_err());
        assert!(PageRange::from_bytes(0x800, 0x1000).is_err());
    }

    #[test]
    fn chunks_cover_the_range_once() {
        let Some(range) = PageRange::new(Gfn(5), 1025) else { panic!("a good range") };
        let mut next = range.start();
        for chunk in range.chunks(512) {
            assert_eq!(chunk.start(), next);
            assert!(chunk.pages() <= 512);
            next = chunk.end();
        }
        assert_eq!(next, range.end());
    }
}
