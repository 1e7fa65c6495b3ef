// SPDX-License-Identifier: GPL-2.0

//! What a vCPU did, in numbers.

use crate::model::exit;
use kernel::{
    fmt,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::Delta, //
};

/// Counters of one vCPU. Written by its thread only, read by anybody.
#[derive(Default)]
pub(crate) struct Stats {
    exits: [Counter; exit::NAMES.len()],
    faults: Counter,
    run_ns: Counter,
}

/// A counter.
struct Counter(Atomic<u64>);

impl Default for Counter {
    fn default() -> Self {
        Self(Atomic::new(0))
    }
}

impl Counter {
    fn add(&self, value: u64) {
        self.0.add(value, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Stats {
    /// Counts an exit, after a stay in the guest.
    pub(crate) fn exit(&self, reason: u64, stay: Delta) {
        if let Some(counter) = self.exits.get(exit::index(reason)) {
            counter.add(1);
        }
        self.run_ns.add(u64::try_from(stay.as_nanos()).unwrap_or(0));
    }

    /// Counts a page fault that was served.
    pub(crate) fn fault(&self) {
        self.faults.add(1);
    }

    /// Prints the counters that are not 0 in one line.
    pub(crate) fn print(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "run_ns={} faults={}", self.run_ns.get(), self.faults.get())?;
        for (name, counter) in exit::NAMES.iter().zip(&self.exits) {
            if counter.get() != 0 {
                write!(text, " {name}={}", counter.get())?;
            }
        }
        writeln!(text)
    }

    /// Prints all counters, a line each.
    pub(crate) fn print_lines(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "run_ns {}", self.run_ns.get())?;
        writeln!(text, "faults {}", self.faults.get())?;
        writeln!(text, "exits {}", self.exits.iter().map(Counter::get).sum::<u64>())?;
        for (name, counter) in exit::NAMES.iter().zip(&self.exits) {
            writeln!(text, "exit_{name} {}", counter.get())?;
        }
        Ok(())
    }
}
