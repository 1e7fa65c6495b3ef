// SPDX-License-Identifier: GPL-2.0

//! The model's tables, kept in kernel memory.

use crate::model::{
    refusal::{
        self,
        Errno,
        Refusal, //
    },
    store::Store, //
};
use kernel::prelude::*;

/// A growable array in vmalloc or slab memory.
pub(crate) struct KernelStore<T>(KVVec<T>);

impl<T> KernelStore<T> {
    /// An empty store.
    pub(crate) const fn new() -> Self {
        Self(KVVec::new())
    }

    /// An empty store with room for so many entries.
    pub(crate) fn with_room(entries: usize) -> Result<Self> {
        Ok(Self(KVVec::with_capacity(entries, GFP_KERNEL_ACCOUNT)?))
    }
}

impl<T> Store<T> for KernelStore<T> {
    fn entries(&self) -> &[T] {
        &self.0
    }

    fn entries_mut(&mut self) -> &mut [T] {
        &mut self.0
    }

    fn insert(&mut self, at: usize, entry: T) -> refusal::Result<()> {
        let no_memory = Refusal::new(Errno::NoMem, "no memory for another table entry");
        self.0.reserve(1, GFP_KERNEL_ACCOUNT).map_err(|_| no_memory)?;
        self.0.insert_within_capacity(at, entry).map_err(|_| no_memory)
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        self.0.remove(at).ok()
    }
}
