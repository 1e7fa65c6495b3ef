// SPDX-License-Identifier: Apache-2.0
//! All of memory: the ownership table and the translation tables that follow it.
//!
//! Each operation here is a transaction: it checks, reserves what can run out, moves pages through
//! the table of [`crate::page`], and then makes stage 2 follow. A refused operation changes no
//! owner and no translation.

mod audit;
mod bulk;
#[cfg(test)]
mod exhaustive;
mod guest;
mod host;
mod load;
mod range;
mod share;
#[cfg(test)]
mod tests;

pub use audit::Audit;
pub use host::{HostAccess, HostFault};
pub use load::Loaded;
pub use range::Presence;

use crate::hw::{Hardware, Space, PAGE_SIZE};
use crate::page::{Page, Pages, Refusal};
use crate::pool::Pool;
use crate::stage2::{NoTable, Stage2, ROOT_PAGES};

/// VMs at once.
pub const MAX_VMS: usize = 64;

/// Why memory was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No table page left, or the VM's share of them is used up.
    NoMemory,
    /// A host page is not the host's to give, or is in use.
    Page(Refusal),
    /// The guest address is not usable, or something else is mapped there.
    Address,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Page(refusal)
    }
}

impl From<NoTable> for Error {
    fn from(_: NoTable) -> Self {
        Self::NoMemory
    }
}

/// One VM's address space and its accounts.
#[derive(Clone, Debug)]
pub struct GuestSpace {
    s2: Stage2,
    tables: u64,
    private: u64,
    shared: u64,
    cursor: u64,
}

/// What a VM uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Table pages, roots included.
    pub tables: u64,
    /// Pages that are the VM's alone.
    pub private: u64,
    /// Mapped pages that the host sees.
    pub shared: u64,
}

/// Whether a long operation is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Finished.
    Done,
    /// Call again.
    More,
}

/// The ownership table and all address spaces.
#[derive(Debug)]
pub struct Memory<'a> {
    pages: Pages<'a>,
    pool: Pool,
    quota: u64,
    host: Stage2,
    roots: u64,
    scratch: u64,
    guests: [Option<GuestSpace>; MAX_VMS],
}

impl<'a> Memory<'a> {
    /// Takes over the ownership table and the pool, and builds empty address spaces.
    ///
    /// Fails if the pool does not even hold the roots. A VM may use `quota` table pages.
    pub fn new(
        hw: &impl Hardware,
        pages: Pages<'a>,
        mut pool: Pool,
        quota: u64,
    ) -> Result<Self, Error> {
        let mut take = |count| pool.take_aligned(hw, count).ok_or(Error::NoMemory);
        let host = take(ROOT_PAGES)?;
        let roots = take(ROOT_PAGES)?;
        for _ in 1..MAX_VMS {
            take(ROOT_PAGES)?;
        }
        let scratch = take(1)?;
        let host = Stage2::new(Space { vmid: 0, root: host });
        let guests = [const { None }; MAX_VMS];
        Ok(Self { pages, pool, quota, host, roots, scratch, guests })
    }

    /// The host's address space.
    pub fn host_space(&self) -> Space {
        self.host.space()
    }

    /// Table pages left for all.
    pub fn pool_left(&self) -> u64 {
        self.pool.left()
    }

    /// The state of a page.
    pub fn page(&self, pfn: u64) -> Page {
        self.pages.get(pfn)
    }

    /// Starts to use `count` host pages at the page-aligned address `pa` as shared buffers.
    pub fn pin(&mut self, pa: u64, count: u64) -> Result<(), Error> {
        if !pa.is_multiple_of(PAGE_SIZE) {
            return Err(Error::Address);
        }
        Ok(self.pages.apply_all(pa / PAGE_SIZE, count, Page::pin)?)
    }

    /// Stops using pages that [`Self::pin`] got.
    pub fn unpin(&mut self, pa: u64, count: u64) {
        let undone = self.pages.apply_all(pa / PAGE_SIZE, count, Page::unpin);
        debug_assert!(undone.is_ok(), "unpinned what was not pinned: {undone:?}");
    }

    /// Copies from memory that the host owns and that no protected VM has; the lock that protects
    /// `self` keeps it so meanwhile.
    pub fn read_host(&self, hw: &impl Hardware, pa: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let len = u64::try_from(bytes.len()).map_err(|_| Error::Address)?;
        let end = pa.checked_add(len).ok_or(Error::Address)?;
        for pfn in pa / PAGE_SIZE..end.div_ceil(PAGE_SIZE) {
            if !matches!(self.pages.get(pfn), Page::Host { .. }) {
                return Err(Error::Page(Refusal::NotHosts));
            }
        }
        hw.copy_in(pa, bytes);
        Ok(())
    }

    fn guest(&self, vm: usize) -> Result<&GuestSpace, Error> {
        self.guests.get(vm).and_then(Option::as_ref).ok_or(Error::Address)
    }
}
