// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Where tables keep their entries: the kernel and the host allocate differently, so tables are
//! generic over a vector's few operations.

use super::refusal::Result;

/// A growable array.
pub trait Store<T> {
    /// The entries.
    fn entries(&self) -> &[T];
    /// The entries, to be changed in place.
    fn entries_mut(&mut self) -> &mut [T];
    /// Inserts an entry at a position up to the length; nothing changes on failure.
    fn insert(&mut self, at: usize, entry: T) -> Result<()>;
    /// Removes the entry at a position; `None` if there is none.
    fn remove(&mut self, at: usize) -> Option<T>;
}

/// A store of fixed capacity, for tests that run where nothing allocates.
#[cfg(any(CONFIG_KUNIT = "y", test))]
pub(crate) mod fixed {
    use super::super::refusal::{Errno, Refusal, Result};
    use super::Store;

    /// Up to `N` entries.
    pub(crate) struct Fixed<T, const N: usize> {
        entries: [T; N],
        len: usize,
    }

    impl<T: Copy, const N: usize> Fixed<T, N> {
        /// An empty store; `filler` is never seen.
        pub(crate) fn new(filler: T) -> Self {
            Self { entries: [filler; N], len: 0 }
        }
    }

    impl<T: Copy, const N: usize> Store<T> for Fixed<T, N> {
        fn entries(&self) -> &[T] {
            &self.entries[..self.len]
        }

        fn entries_mut(&mut self) -> &mut [T] {
            &mut self.entries[..self.len]
        }

        fn insert(&mut self, at: usize, entry: T) -> Result<()> {
            if self.len == N {
                return Err(Refusal::new(Errno::NoMem, "full"));
            }
            self.entries.copy_within(at..self.len, at + 1);
            self.entries[at] = entry;
            self.len += 1;
            Ok(())
        }

        fn remove(&mut self, at: usize) -> Option<T> {
            let entry = *self.entries().get(at)?;
            self.entries.copy_within(at + 1..self.len, at);
            self.len -= 1;
            Some(entry)
        }
    }
}
