// SPDX-License-Identifier: Apache-2.0
//! The record of attacks: each attempt, what came of it, and the controls that show that the attack
//! works where nothing stands against it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What an attacker got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// What it wanted.
    Through,
    /// An answer that says no, with this status or errno.
    Refused(i32),
    /// The attacking process was killed by this signal.
    Killed(i32),
    /// No error, and no effect: it read something else, or wrote to nowhere.
    Nothing,
}

impl Got {
    /// What a child process got that exits with 1 when it is through, else with 0.
    pub fn of_child(status: i32) -> Self {
        match status {
            0 => Self::Nothing,
            signal if signal < 0 => Self::Killed(-signal),
            _ => Self::Through,
        }
    }

    /// What a call got that should not have succeeded.
    pub fn of_status(status: i32) -> Self {
        if status == 0 {
            Self::Through
        } else {
            Self::Refused(status)
        }
    }

    /// What a reader got that looks for a secret.
    pub fn of_value(value: u64, secret: u64) -> Self {
        if value == secret {
            Self::Through
        } else {
            Self::Nothing
        }
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Through => write!(f, "through"),
            Self::Refused(status) => write!(f, "refused {status}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
            Self::Nothing => write!(f, "nothing"),
        }
    }
}

#[derive(Default)]
struct Row {
    /// Outcomes of attempts, with their numbers.
    outcomes: BTreeMap<String, u32>,
    attempts: u32,
    through: u32,
    controls: u32,
    controls_through: u32,
}

static ROWS: Mutex<BTreeMap<String, Row>> = Mutex::new(BTreeMap::new());

fn note(name: &str, change: impl FnOnce(&mut Row)) {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    change(rows.entry(name.to_owned()).or_default());
}

/// An attempt that must not get through.
///
/// # Panics
///
/// When it did.
pub fn attempt(name: &str, got: Got) {
    note(name, |row| {
        row.attempts += 1;
        row.through += u32::from(got == Got::Through);
        *row.outcomes.entry(got.to_string()).or_default() += 1;
    });
    assert_ne!(got, Got::Through, "attack: {name}");
}

/// The same attack where nothing stands against it: must get through.
///
/// # Panics
///
/// When it did not.
pub fn control(name: &str, got: Got) {
    note(name, |row| {
        row.controls += 1;
        row.controls_through += u32::from(got == Got::Through);
    });
    assert_eq!(got, Got::Through, "control of the attack: {name}");
}

/// Prints all that was tried.
pub fn print_table() {
    let rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let width = rows.keys().map(String::len).max().unwrap_or(0);
    println!("\n{:width$}  attempts  controls  outcome", "attack");
    for (name, row) in rows.iter() {
        let times = |(what, count): (&String, &u32)| format!("{what} x{count}");
        let outcomes: Vec<_> = row.outcomes.iter().map(times).collect();
        let controls = format!("{}/{}", row.controls_through, row.controls);
        println!("{name:width$}  {:8}  {controls:8}  {}", row.attempts, outcomes.join(", "));
    }
    let sum = |count: fn(&Row) -> u32| rows.values().map(count).sum::<u32>();
    println!(
        "{} attacks, {} attempts, {} got through; {} controls, {} got through; {} without a control",
        rows.len(),
        sum(|row| row.attempts),
        sum(|row| row.through),
        sum(|row| row.controls),
        sum(|row| row.controls_through),
        sum(|row| u32::from(row.controls == 0)),
    );
}
