// SPDX-License-Identifier: Apache-2.0
//! A page that the host may write to while it is shared.

use core::sync::atomic::{AtomicU64, Ordering};
use gzvm_guest::{Error, GenieZone, Hypervisor, SharedRange};

/// Bytes in a page.
const PAGE_SIZE: usize = 4096;

/// A page of memory, accessed word by word and never through a reference to plain data.
#[repr(C, align(4096))]
pub(super) struct Page([AtomicU64; PAGE_SIZE / 8]);

impl Page {
    /// A page of zeros.
    pub(super) const fn zeroed() -> Self {
        Self([const { AtomicU64::new(0) }; PAGE_SIZE / 8])
    }

    /// Shares it with the host until the value is dropped.
    pub(super) fn share<'a>(
        &'static self,
        geniezone: &'a GenieZone<Hypervisor>,
    ) -> Result<SharedRange<'a, Hypervisor>, Error> {
        // CAST: an address fits in 64 bits, 4096 too.
        let (ipa, size) = (core::ptr::from_ref(self).addr() as u64, PAGE_SIZE as u64);
        // SAFETY: The page lives for ever, the page table maps its address to itself, and all
        // access to it is by atomic operations, whoever else writes to it.
        unsafe { geniezone.share(ipa, size) }
    }

    /// Sets all words to `value`.
    pub(super) fn fill(&self, value: u64) {
        self.0.iter().for_each(|word| word.store(value, Ordering::Relaxed));
    }

    /// Whether all words are `value`.
    pub(super) fn is(&self, value: u64) -> bool {
        self.0.iter().all(|word| word.load(Ordering::Relaxed) == value)
    }
}
