// SPDX-License-Identifier: GPL-2.0

//! What `mmu_interval.rs` is on kernels that tell nobody of changes (`CONFIG_MMU_NOTIFIER=n`): the
//! same names, and a watch that nobody can have.

use super::gup::PinOwner;
use core::{
    convert::Infallible,
    marker::PhantomData, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Can changes be watched?
pub(crate) const AVAILABLE: bool = false;

/// What a change does to the pages behind its range.
#[expect(dead_code, reason = "there are no changes")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Others take their place, or none does.
    Replaced,
    /// They stay, with other rights for the process.
    Kept,
    /// The process has no memory any more.
    Over,
}

/// A change. There is none.
pub(crate) struct Change<'a>(Infallible, PhantomData<&'a ()>);

impl Change<'_> {
    /// What it does.
    pub(crate) fn kind(&self) -> Kind {
        match self.0 {}
    }

    /// The addresses.
    pub(crate) fn addresses(&self) -> (usize, usize) {
        match self.0 {}
    }

    /// May the watcher sleep?
    pub(crate) fn may_sleep(&self) -> bool {
        match self.0 {}
    }

    /// Makes [`Watch::settle`] wait.
    pub(crate) fn announce(&self) {
        match self.0 {}
    }
}

/// Who would be told.
pub(crate) trait Watcher: Send + Sync + 'static {
    /// Never called.
    #[expect(dead_code, reason = "there are no changes")]
    fn changing(&self, change: &Change<'_>) -> Result;
}

/// A watch. There is none.
pub(crate) struct Watch<T: Watcher>(Infallible, PhantomData<T>);

impl<T: Watcher> Watch<T> {
    /// -EOPNOTSUPP.
    pub(crate) fn new(_: &PinOwner, _: usize, _: usize, _: T) -> Result<Arc<Self>> {
        Err(EOPNOTSUPP)
    }

    /// Waits for changes.
    pub(crate) fn settle(&self) {
        match self.0 {}
    }
}
