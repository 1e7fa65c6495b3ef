// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Guest page faults: which pages one fault brings in.

use super::addr::{Gfn, PageRange};
use crate::abi::BLOCK_PAGES;

/// How memory comes to the guest; the hypervisor decides at the VM's creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// All of it when a slot is set.
    Populate,
    /// A page at a fault.
    Page,
    /// A 2 MiB block at a fault, through the mailbox.
    Block,
}

/// The range a fault works on exclusively: its page or its aligned block. Independent of slots, so
/// that it can be claimed before the slot is looked up.
pub fn window(gfn: Gfn, paging: Paging) -> Option<PageRange> {
    match paging {
        Paging::Block => PageRange::new(Gfn(gfn.0 - gfn.0 % BLOCK_PAGES), BLOCK_PAGES),
        Paging::Page | Paging::Populate => PageRange::single(gfn),
    }
}

/// The pages to bring in for a fault at `gfn` that is not backed yet: as much of the window as the
/// slot covers; but only the page itself if something of it is backed already, because what is
/// missing then was given back by the guest.
pub fn pages(
    gfn: Gfn,
    window: PageRange,
    slot: PageRange,
    partly_backed: bool,
) -> Option<PageRange> {
    if partly_backed {
        PageRange::single(gfn)
    } else {
        window.intersection(slot)
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_fault))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w24_window_never_crosses_its_block() {
        // A slot that starts in the middle of a block and ends in the middle of the next one.
        let Some(slot) = PageRange::new(Gfn(700), 600) else { panic!("a good range") };
        for gfn in [700, 1023, 1024, 1299] {
            let window = window(Gfn(gfn), Paging::Block);
            let brought = window.and_then(|window| pages(Gfn(gfn), window, slot, false));
            let Some(brought) = brought else { panic!("a good range") };
            assert!(brought.contains(Gfn(gfn)));
            assert_eq!(brought.start().0 / BLOCK_PAGES, (brought.end().0 - 1) / BLOCK_PAGES);
            assert_eq!(brought.intersection(slot), Some(brought));
        }
    }

    #[test]
    fn given_back_pages_return_one_by_one() {
        let window = window(Gfn(513), Paging::Block);
        let brought = window.and_then(|window| pages(Gfn(513), window, window, true));
        assert_eq!(brought, PageRange::single(Gfn(513)));
    }
}
