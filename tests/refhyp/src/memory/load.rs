// SPDX-License-Identifier: Apache-2.0
//! Firmware for a protected VM, before that VM first runs.

use super::{Error, Memory};
use crate::firmware::{Firmware, WINDOW_PAGES};
use crate::hw::{Hardware, PAGE_SIZE};
use crate::page::{Page, Refusal};
use crate::stage2::Leaf;

/// Pages of the window that one call fills at most.
const SLICE: u64 = 16;

/// How far the window is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Altogether.
    All,
    /// Up to this page; call again.
    UpTo(u64),
    /// Up to this page, which the host has to bring first.
    Missing(u64),
}

impl Memory<'_> {
    /// Fills a slice of the window of a VM at guest frame `gfn` from page `from` on: with the
    /// image's pages, then with zeros. What the host left in these pages is gone; what is in the
    /// window was given to the VM and is hidden from the host.
    pub fn load(
        &mut self,
        hw: &impl Hardware,
        vm: usize,
        firmware: &Firmware,
        gfn: u64,
        from: u64,
    ) -> Result<Loaded, Error> {
        let owner = u8::try_from(vm).map_err(|_| Error::Address)?;
        let end = (from + SLICE).min(WINDOW_PAGES);
        for index in from..end {
            let Leaf::Mapped(to) = self.lookup(hw, vm, (gfn + index) * PAGE_SIZE)? else {
                return Ok(Loaded::Missing(index));
            };
            if self.pages.get(to / PAGE_SIZE) != (Page::Guest { vm: owner, open: false }) {
                return Err(Error::Page(Refusal::NotGuests));
            }
            match firmware.page(index) {
                Some(page) => hw.copy_page(page, to),
                None => hw.wipe_page(to),
            }
        }
        Ok(if end == WINDOW_PAGES { Loaded::All } else { Loaded::UpTo(end) })
    }
}
