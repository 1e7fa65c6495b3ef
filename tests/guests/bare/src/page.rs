// SPDX-License-Identifier: Apache-2.0
//! A page that somebody else may write to at any moment.

use core::sync::atomic::{AtomicU64, Ordering};
use gzvm_guest::{Error, GenieZone, Hvc, SharedRange};
use sha2::{Digest, Sha256};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// A page of memory, accessed word by word and never through a reference to plain data: in a VM
/// that is not protected, the host may change it at any moment, and so it may where it is shared.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page([AtomicU64; PAGE_SIZE / 8]);

impl Page {
    /// A page of zeros.
    pub const fn zeroed() -> Self {
        Self([const { AtomicU64::new(0) }; PAGE_SIZE / 8])
    }

    /// Its guest physical address: the page table maps each address to itself.
    pub fn ipa(&self) -> u64 {
        // CAST: an address fits in 64 bits.
        core::ptr::from_ref(self).addr() as u64
    }

    /// Shares it with the host until the value is dropped.
    ///
    /// # Errors
    ///
    /// As [`GenieZone::share`].
    pub fn share<'a, H: Hvc>(
        &'static self,
        geniezone: &'a GenieZone<H>,
    ) -> Result<SharedRange<'a, H>, Error> {
        // SAFETY: The page lives for ever, and all access to it is by atomic operations, whoever
        // else writes to it.
        // CAST: 4096 fits.
        unsafe { geniezone.share(self.ipa(), PAGE_SIZE as u64) }
    }

    /// The words, in order of address.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// Sets each word to what `next` gives for it.
    ///
    /// # Errors
    ///
    /// Stops at the first error of `next`.
    pub fn fill<E>(&self, mut next: impl FnMut() -> Result<u64, E>) -> Result<(), E> {
        for word in &self.0 {
            word.store(next()?, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The SHA-256 hash of the page's bytes.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for word in self.words() {
            hash.update(word.to_le_bytes());
        }
        hash.finalize().into()
    }
}
