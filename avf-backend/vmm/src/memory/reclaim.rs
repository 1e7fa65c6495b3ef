// SPDX-License-Identifier: Apache-2.0
//! Giving pages that the guest does not use back to the host: holes in the memfd.
//!
//! A page that the driver has pinned survives a hole: the guest would keep the old page while this
//! process gets a new one, and what a device writes would not be what the guest reads. So a hole is
//! made only where the driver holds no page, or lets go of one because of the hole ([`Rule`]).

use super::{host_page, GuestRam};
use gzvm::abi::{cap, ext, PAGE_SIZE};
use gzvm::{Gzvm, RangeState, Vm};
use nix::fcntl::{fallocate, FallocateFlags};
use nix::libc;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion};

/// Which pages may be taken out of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// None: nobody can tell which ones the driver holds.
    #[default]
    Never,
    /// Those that the driver does not hold: the guest never had them, or gave them back by
    /// hypercall.
    Unpinned,
    /// All: the driver takes from the guest what is taken out of its owner's file. The guest gets a
    /// new page when it touches that address again.
    Followed,
}

impl Rule {
    /// The rule for a VM of the driver behind `gzvm`.
    pub fn ask(gzvm: &Gzvm, protected: bool) -> gzvm::Result<Self> {
        let extensions = gzvm.check_extension(ext::DISCOVER)?.unwrap_or(0);
        let followed = gzvm.check_extension(cap::SYNC_MMU)? == Some(1);
        Ok(Self::new(extensions & ext::RANGE_STATE != 0, followed, protected))
    }

    /// `told`: the driver says what it holds. `followed`: guests lose what their owner loses.
    fn new(told: bool, followed: bool, protected: bool) -> Self {
        match protected {
            _ if !told => Self::Never,
            // A protected VM's pages are its own until it gives them back.
            false if followed => Self::Followed,
            _ => Self::Unpinned,
        }
    }
}

/// Why pages are not given back.
#[derive(Debug, Error)]
pub enum ReclaimError {
    /// The driver does not say who has them.
    #[error("the state of guest memory at {0:#x}: {1}")]
    State(u64, gzvm::Error),
    /// No hole could be made.
    #[error("a hole in guest memory at {0:#x}: {1}")]
    Hole(u64, io::Error),
    /// The driver still holds what was taken out.
    #[error("the driver kept the page at {0:#x}, although it was taken out of the VM's memory")]
    Kept(u64),
}

/// Gives pages of one VM back.
#[derive(Debug)]
pub struct Reclaimer {
    ram: Arc<GuestRam>,
    vm: Arc<Vm>,
    rule: Rule,
}

impl Reclaimer {
    /// For the VM `vm` with the memory `ram`.
    pub fn new(ram: Arc<GuestRam>, vm: Arc<Vm>, rule: Rule) -> Self {
        Self { ram, vm, rule }
    }

    /// Gives back what may be given back of `len` bytes from guest address `start` on, whole pages
    /// of the host. Answers the number of bytes.
    pub fn give_back(&mut self, start: u64, len: u64) -> Result<u64, ReclaimError> {
        let Some((start, end)) = whole_pages(start, len, host_page()) else { return Ok(0) };
        match self.rule {
            Rule::Never => Ok(0),
            Rule::Unpinned => {
                self.unpinned(start, end)?.into_iter().try_fold(0, |sum, (at, end)| {
                    Ok(sum + self.ram.punch(at, end).map_err(|e| ReclaimError::Hole(at, e))?)
                })
            }
            Rule::Followed => {
                let done = self.ram.punch(start, end);
                let done = done.map_err(|e| ReclaimError::Hole(start, e))?;
                self.check_followed(start, end)?;
                Ok(done)
            }
        }
    }

    fn unpinned(&self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, ReclaimError> {
        unpinned(start, end, |at, size| {
            self.vm.range_state(at, size).map_err(|e| ReclaimError::State(at, e))
        })
    }

    /// The guest waits for the answer to its request, so the driver gave it nothing new meanwhile.
    /// If it has got something all the same, no more pages are taken.
    fn check_followed(&mut self, start: u64, end: u64) -> Result<(), ReclaimError> {
        let mut at = start;
        for (free, free_end) in self.unpinned(start, end)? {
            if at < free {
                break;
            }
            at = free_end;
        }
        if at < end && self.ram.memory().address_in_range(GuestAddress(at)) {
            self.rule = Rule::Never;
            return Err(ReclaimError::Kept(at));
        }
        Ok(())
    }
}

/// The parts of a range of whole pages that the driver does not hold.
fn unpinned<E>(
    start: u64,
    end: u64,
    mut state: impl FnMut(u64, u64) -> Result<Option<(RangeState, u64)>, E>,
) -> Result<Vec<(u64, u64)>, E> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        let Some((state, known)) = state(at, end - at)? else { break };
        let until = at.saturating_add(known.max(PAGE_SIZE)).min(end);
        if state == RangeState::Unpinned {
            found.push((at, until));
        }
        at = until;
    }
    Ok(found)
}

/// The whole pages in a range of bytes: first address, and the address behind them.
fn whole_pages(start: u64, len: u64, page: u64) -> Option<(u64, u64)> {
    let end = start.checked_add(len)?;
    let (start, end) = (start.checked_next_multiple_of(page)?, end - end % page);
    (start < end).then_some((start, end))
}

impl GuestRam {
    /// Makes a hole in the memfd, for what is guest memory of a range of pages. Answers its bytes.
    fn punch(&self, start: u64, end: u64) -> io::Result<u64> {
        let mut done = 0;
        for region in self.memory.iter() {
            let first = region.start_addr().0.max(start);
            let behind = region.start_addr().0.saturating_add(region.len()).min(end);
            let Some(len) = behind.checked_sub(first).filter(|&len| len > 0) else { continue };
            let Some(file) = region.file_offset() else { continue };
            let offset = file.start() + (first - region.start_addr().0);
            let number = |value| libc::off_t::try_from(value).map_err(io::Error::other);
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(file.file().as_raw_fd(), flags, number(offset)?, number(len)?)?;
            done += len;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, MIB, RAM_BASE};
    use crate::memory::Policy;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use std::os::unix::fs::MetadataExt;
    use vm_memory::Bytes;

    #[test]
    fn rules_follow_what_the_driver_can_tell() {
        for (told, followed, protected, rule) in [
            (false, false, false, Rule::Never),
            (false, false, true, Rule::Never),
            (false, true, false, Rule::Never),
            (true, false, false, Rule::Unpinned),
            (true, false, true, Rule::Unpinned),
            (true, true, false, Rule::Followed),
            (true, true, true, Rule::Unpinned),
        ] {
            assert_eq!(Rule::new(told, followed, protected), rule, "{told} {followed} {protected}");
        }
    }

    #[test]
    fn only_whole_pages_are_given_back() {
        assert_eq!(whole_pages(0x1000, 0x1000, 0x1000), Some((0x1000, 0x2000)));
        assert_eq!(whole_pages(0x1001, 0x2000, 0x1000), Some((0x2000, 0x3000)));
        assert_eq!(whole_pages(0x1001, 0x1ffe, 0x1000), None);
        assert_eq!(whole_pages(0x1000, 0x8000, 0x4000), Some((0x4000, 0x8000)));
        assert_eq!(whole_pages(u64::MAX, 2, 0x1000), None);
        assert_eq!(whole_pages(u64::MAX - 1, 1, 0x1000), None);
    }

    proptest! {
        /// Page by page: exactly the unpinned ones, however the driver cuts its answers.
        #[test]
        fn what_the_driver_holds_stays(
            pages in proptest::collection::vec((0..4_usize, 1..5_u64), 1..40),
        ) {
            use RangeState::{Absent, Private, Shared, Unpinned};
            let states: Vec<_> =
                pages.iter().map(|&(state, _)| [Absent, Private, Shared, Unpinned][state]).collect();
            let end = PAGE_SIZE * states.len() as u64;
            let found = unpinned::<Infallible>(0, end, |at, size| {
                let first = (at / PAGE_SIZE) as usize;
                let same = states[first..].iter().take_while(|s| **s == states[first]).count();
                let said = PAGE_SIZE * (same as u64).min(pages[first].1);
                assert!(size > 0);
                // An answer may say more than was asked for, or nothing.
                Ok(Some((states[first], if pages[first].1 == 4 { 0 } else { said })))
            })
            .unwrap();
            for (index, state) in states.iter().enumerate() {
                let at = index as u64 * PAGE_SIZE;
                let taken = found.iter().any(|&(start, end)| (start..end).contains(&at));
                prop_assert_eq!(taken, *state == Unpinned, "page {}", index);
            }
        }
    }

    #[test]
    fn nothing_is_taken_where_nobody_can_tell() {
        assert_eq!(unpinned::<Infallible>(0, 0x4000, |_, _| Ok(None)), Ok(Vec::new()));
        assert_eq!(unpinned(0, 0x4000, |_, _| Err(5)), Err(5));
    }

    #[test]
    fn a_hole_is_zero_and_costs_nothing() {
        let layout = Layout::new(24 * MIB, Some(8 * MIB), 1, false, true).unwrap();
        let ram = GuestRam::new(&layout, Policy::default()).unwrap();
        let start = layout.ram.start;
        assert_eq!(start, RAM_BASE);
        ram.memory().write_slice(&vec![1; MIB as usize], GuestAddress(start)).unwrap();
        let file = ram.memory().find_region(GuestAddress(start)).unwrap().file_offset().unwrap();
        let blocks = || file.file().metadata().unwrap().blocks() * 512;
        let before = blocks();
        assert_eq!(ram.punch(start + 0x4000, start + 0x8000).unwrap(), 0x4000);
        assert_eq!(before - blocks(), 0x4000);
        let byte = |offset| ram.memory().read_obj::<u8>(GuestAddress(start + offset)).unwrap();
        assert_eq!([0x3fff, 0x4000, 0x7fff, 0x8000].map(byte), [1, 0, 0, 1]);
        // What is not guest memory is left alone.
        assert_eq!(ram.punch(0, start - (4 << 20)).unwrap(), 0);
        assert_eq!(ram.punch(1 << 62, 1 << 63).unwrap(), 0);
    }
}
