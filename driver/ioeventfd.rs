// SPDX-License-Identifier: GPL-2.0

//! Guest writes that signal eventfds without leaving the kernel.

use crate::{
    abi::{
        run::Mmio,
        uapi, //
    },
    kx::eventfd::EventFd,
    model::{
        ioeventfd::{
            self,
            Pattern,
            Request,
            Table, //
        },
        refusal::{
            Errno,
            Refusal, //
        }, //
    },
    store::KernelStore, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

struct Entry {
    pattern: Pattern,
    eventfd: EventFd,
}

impl ioeventfd::Entry for Entry {
    fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

/// A VM's ioeventfds.
#[pin_data]
pub(crate) struct Ioeventfds {
    #[pin]
    table: Mutex<Table<KernelStore<Entry>>>,
}

impl Ioeventfds {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { table <- new_mutex!(Table::new(KernelStore::new()), "gzvm_ioeventfds") })
    }

    /// IOEVENTFD.
    pub(crate) fn set(&self, argument: &uapi::Ioeventfd) -> Result {
        let request = ioeventfd::parse(argument)?;
        let eventfd = EventFd::from_fd(argument.fd)?;
        match request {
            Request::Assign(pattern) => Ok(self.table.lock().insert(Entry { pattern, eventfd })?),
            Request::Deassign(pattern) => {
                let same = |entry: &Entry| entry.eventfd.same(&eventfd);
                let removed = self.table.lock().remove(&pattern, same);
                let unknown = Refusal::new(Errno::NoEnt, "no such ioeventfd to disconnect");
                Ok(removed.map(drop).ok_or(unknown)?)
            }
        }
    }

    /// Signals the eventfd that waits for this write; `false` if there is none.
    pub(crate) fn signal(&self, write: &Mmio) -> bool {
        let table = self.table.lock();
        let entry = table.find::<Entry>(write);
        entry.inspect(|entry| entry.eventfd.signal()).is_some()
    }
}
