// SPDX-License-Identifier: Apache-2.0
//! A table of what driver and hypervisor offer, and whether it works: for who brings up a device.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

struct Entry {
    name: &'static str,
    offered: String,
    works: bool,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A row of the table. It says "no" unless somebody says that it works.
#[must_use]
pub struct Row(usize);

/// A row: what it is about, and what is offered.
pub fn row(name: &'static str, offered: impl Display) -> Row {
    let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    entries.push(Entry { name, offered: offered.to_string(), works: false });
    Row(entries.len() - 1)
}

impl Row {
    /// It does what it is offered as: what is offered works, what is not offered is refused.
    pub fn works(self) {
        let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(self.0) {
            entry.works = true;
        }
    }
}

/// Prints the table, in Markdown.
pub fn print() {
    print!("{}", table(&ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)));
}

fn table(entries: &[Entry]) -> String {
    let mut table = "\n| capability | offered | as offered |\n| --- | --- | --- |\n".to_owned();
    for Entry { name, offered, works } in entries {
        let works = if *works { "yes" } else { "NO" };
        table += &format!("| {name} | {offered} | {works} |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_whose_check_ended_early_says_no() {
        row("vCPUs of a VM", 8).works();
        let _ = row("protected VMs", "yes");
        let table = table(&ENTRIES.lock().unwrap());
        assert!(table.contains("| vCPUs of a VM | 8 | yes |\n"), "{table}");
        assert!(table.ends_with("| protected VMs | yes | NO |\n"), "{table}");
    }
}
