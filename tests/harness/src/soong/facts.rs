// SPDX-License-Identifier: Apache-2.0
//! The table of facts about AOSP's build: what exists there, and where that was read.
//!
//! Tab-separated lines `kind name detail source`:
//!
//! | kind | name | detail |
//! | --- | --- | --- |
//! | `type` | a module type | `rust`, `defaults`, `other` (rust: built from a Cargo target) |
//! | `property` | `type.property` | the value's kind: str, list, bool, dict |
//! | `module` | a module of AOSP | `device`, `host`, `baremetal` |
//! | `change` | a module that AOSP lacks, or has not in the form needed | what must change |
//! | `crate` | a crate's Cargo name | module name and version in AOSP |
//! | `bazel` | `rule.attribute` of Kleaf | what it is |
//! | `cargo-only` | a Cargo package without Android.bp, or `package:test` without a module | why |

use std::collections::{BTreeMap, BTreeSet};

/// The table, by kind and name.
pub struct Facts {
    rows: BTreeMap<(String, String), Row>,
}

/// One row.
pub struct Row {
    /// What is said about the name.
    pub detail: String,
    /// Where it was read.
    pub source: String,
}

const KINDS: [&str; 7] = ["type", "property", "module", "change", "crate", "bazel", "cargo-only"];

impl Facts {
    /// No table at all.
    pub fn missing() -> (Self, Vec<String>) {
        (Self { rows: BTreeMap::new() }, vec![format!("{} is missing", super::FACTS)])
    }

    /// Parses the table; what is wrong with it comes second.
    pub fn parse(text: &str) -> (Self, Vec<String>) {
        let (mut rows, mut errors) = (BTreeMap::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let place = format!("{}:{}", super::FACTS, index + 1);
            let cells: Vec<_> = line.split('\t').collect();
            let [kind, name, detail, source] = cells[..] else {
                errors.push(format!("{place}: {} cells instead of 4", cells.len()));
                continue;
            };
            if !KINDS.contains(&kind) {
                errors.push(format!("{place}: kind {kind} is none of {}", KINDS.join(", ")));
            }
            if source.trim().is_empty() || detail.trim().is_empty() {
                errors.push(format!("{place}: {name} has no detail or no source"));
            }
            let row = Row { detail: detail.to_owned(), source: source.to_owned() };
            if rows.insert((kind.to_owned(), name.to_owned()), row).is_some() {
                errors.push(format!("{place}: {kind} {name} is there twice"));
            }
        }
        (Self { rows }, errors)
    }

    /// The row for a name.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Row> {
        self.rows.get(&(kind.to_owned(), name.to_owned()))
    }

    /// All rows of a kind.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a Row)> {
        self.rows.iter().filter(move |(key, _)| key.0 == kind).map(|(key, row)| (&*key.1, row))
    }

    /// Names of a kind that are not in `used`.
    pub fn unused(&self, kind: &str, used: &BTreeSet<String>) -> Vec<String> {
        let names = self.all(kind).filter(|(name, _)| !used.contains(*name));
        names.map(|(name, _)| format!("{}: nothing uses {kind} {name}", super::FACTS)).collect()
    }
}
