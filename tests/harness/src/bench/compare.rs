// SPDX-License-Identifier: Apache-2.0
//! What was measured against the numbers that are checked in.

use std::path::Path;

use anyhow::{bail, Result};

use super::table::{Row, Table};
use super::windows::Measure;
use crate::libtest::{Case, Outcome};

/// How much worse, in percent, is too much.
const TOLERANCE: f64 = 5.0;
/// Changes of fewer instructions per event are noise of where code happens to lie.
const SMALLEST: f64 = 3.0;
/// The same for memory, in bytes: the kernel hands it out in pages.
const SMALLEST_BYTES: f64 = 4096.0;

/// What became of a row of the checked-in table, or of one that is not there yet.
struct Finding {
    name: String,
    verdict: Verdict,
}

enum Verdict {
    Kept,
    /// In words: what got worse.
    Worse(String),
    /// It was not measured.
    Missing,
    /// It is not checked in.
    New,
}

/// Fails when a number got worse and compiler, kernel and QEMU are those of the checked-in table;
/// warns when they are not.
///
/// # Errors
///
/// Names what got worse.
pub fn with_baseline(table: &Table, path: &Path) -> Result<()> {
    if !path.exists() {
        eprintln!("warning: no {}: nothing to compare with", path.display());
        return Ok(());
    }
    let baseline = Table::read(path)?;
    // Of a part of the benchmarks the rest is not missing.
    let worse: Vec<_> = findings(table, &baseline)
        .into_iter()
        .filter_map(|Finding { name, verdict }| match verdict {
            Verdict::Worse(how) => Some(format!("{name}: {how}")),
            _ => None,
        })
        .collect();
    if worse.is_empty() {
        return Ok(());
    }
    let list = worse.join("\n  ");
    if table.versions == baseline.versions {
        bail!("worse than {}:\n  {list}", path.display());
    }
    eprintln!("warning: worse than {}, made with other versions:\n  {list}", path.display());
    Ok(())
}

/// A test for each number: it fails when the number got worse with the versions of the checked-in
/// table, and is skipped where nothing can be said.
pub fn cases(table: &Table, baseline: &Table) -> Vec<Case> {
    let same = table.versions == baseline.versions;
    let case = |Finding { name, verdict }| {
        let (outcome, detail) = match verdict {
            Verdict::Kept => (Outcome::Passed, String::new()),
            Verdict::Worse(how) if same => (Outcome::Failed, how),
            Verdict::Worse(how) => {
                (Outcome::Skipped, format!("{how}; but the checked-in number has other versions"))
            }
            Verdict::Missing => (Outcome::Failed, "it was not measured".to_owned()),
            Verdict::New => (Outcome::Skipped, "no number is checked in".to_owned()),
        };
        Case { name, outcome, detail }
    };
    findings(table, baseline).into_iter().map(case).collect()
}

fn findings(table: &Table, baseline: &Table) -> Vec<Finding> {
    let rows = numbers(table);
    let old_rows = numbers(baseline);
    let mut found = Vec::new();
    for old in &old_rows {
        let verdict = match rows.iter().find(|new| new.name == old.name) {
            Some(new) => new.against(old),
            None => Verdict::Missing,
        };
        found.push(Finding { name: old.name.clone(), verdict });
    }
    for new in rows.into_iter().filter(|new| old_rows.iter().all(|old| old.name != new.name)) {
        found.push(Finding { name: new.name, verdict: Verdict::New });
    }
    found
}

/// The numbers of a row that must not grow, which the longest stay in EL2 is not: an interrupt that
/// happens to come makes it another, and the hypervisor's self-test limits it. Unit, number, and the smallest change that counts.
struct Numbers {
    name: String,
    numbers: Vec<(String, f64, f64)>,
}

fn numbers(table: &Table) -> Vec<Numbers> {
    let row = |row: &Row| Numbers {
        name: format!("{} {}", row.id, row.what),
        numbers: vec![
            // What two windows of one run differ by is no change.
            ("instructions".to_owned(), row.cost(), SMALLEST.max(row.spread)),
            ("hypercalls".to_owned(), row.hypercalls, 0.0),
        ],
    };
    let value = |value: &Measure| {
        let smallest = if value.unit == "bytes" { SMALLEST_BYTES } else { 1.0 };
        Numbers {
            name: format!("{} {}", value.id, value.what),
            numbers: vec![(value.unit.clone(), value.value as f64, smallest)],
        }
    };
    table.rows.iter().map(row).chain(table.values.iter().map(value)).collect()
}

impl Numbers {
    fn against(&self, old: &Self) -> Verdict {
        let grown = |((unit, new, smallest), (_, old, small)): (
            &(String, f64, f64),
            &(String, f64, f64),
        )| {
            let counts = new - old > smallest.max(*small);
            let worse = counts && *new > old * (1.0 + TOLERANCE / 100.0);
            let percent = (new / old - 1.0) * 100.0;
            worse.then(|| format!("{old:.1} {unit} before, now {new:.1} (+{percent:.1} %)"))
        };
        let worse: Vec<_> = self.numbers.iter().zip(&old.numbers).filter_map(grown).collect();
        if worse.is_empty() {
            Verdict::Kept
        } else {
            Verdict::Worse(worse.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Versions;
    use super::*;

    fn table(kernel: f64, hypercalls: f64) -> Table {
        let row = Row {
            id: "B1".to_owned(),
            what: "write".to_owned(),
            events: 1,
            classes: [1e9, 0.0, 0.0, kernel, 0.0],
            hypercalls,
            ..Row::default()
        };
        Table { rows: vec![row], ..Table::default() }
    }

    fn worse(table: &Table, baseline: &Table) -> Vec<String> {
        let failed = |case: Case| (case.outcome == Outcome::Failed).then_some(case.detail);
        cases(table, baseline).into_iter().filter_map(failed).collect()
    }

    #[test]
    fn five_percent_is_the_limit() {
        let before = table(1000.0, 1.0);
        assert!(worse(&table(1050.0, 1.0), &before).is_empty());
        assert!(worse(&table(10.0, 1.0), &before).is_empty());
        assert_eq!(
            worse(&table(1051.0, 1.0), &before),
            ["1000.0 instructions before, now 1051.0 (+5.1 %)"]
        );
        assert_eq!(worse(&table(1000.0, 1.06), &before).len(), 1);
        // What the guest itself does is nobody's fault.
        let mut longer = before.clone();
        longer.rows[0].classes[0] *= 2.0;
        assert!(worse(&longer, &before).is_empty());
    }

    #[test]
    fn the_spread_of_either_is_no_change() {
        let (before, now) = (table(1000.0, 1.0), table(1100.0, 1.0));
        let wide = |table: &Table| {
            let mut wide = table.clone();
            wide.rows[0].spread = 100.0;
            wide
        };
        assert_eq!(worse(&now, &before).len(), 1);
        assert!(worse(&wide(&now), &before).is_empty());
        assert!(worse(&now, &wide(&before)).is_empty());
    }

    #[test]
    fn other_numbers_count_too() {
        let with = |value, unit: &str| Table {
            values: vec![Measure {
                id: "B8".to_owned(),
                what: "VM".to_owned(),
                value,
                unit: unit.to_owned(),
            }],
            ..Table::default()
        };
        assert!(worse(&with(14_000, "bytes"), &with(10_000, "bytes")).is_empty());
        assert_eq!(worse(&with(15_000, "bytes"), &with(10_000, "bytes")).len(), 1);
        assert_eq!(worse(&with(12, "wake-ups"), &with(10, "wake-ups")).len(), 1);
    }

    #[test]
    fn what_is_not_measured_fails_and_what_is_new_does_not() {
        let (before, none) = (table(1000.0, 1.0), Table::default());
        assert_eq!(worse(&none, &before), ["it was not measured"]);
        assert!(worse(&before, &none).is_empty());
        assert_eq!(cases(&before, &none)[0].outcome, Outcome::Skipped);
    }

    #[test]
    fn other_versions_only_warn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("baseline.json");
        let mut slow = table(2000.0, 1.0);
        with_baseline(&slow, &path).unwrap();
        table(1000.0, 1.0).write(&path).unwrap();
        let error = with_baseline(&slow, &path).unwrap_err().to_string();
        assert!(error.contains("B1 write"), "{error}");
        // A part of the benchmarks lacks nothing.
        with_baseline(&Table::default(), &path).unwrap();
        slow.versions = Versions { qemu: "QEMU 10".to_owned(), ..Versions::default() };
        with_baseline(&slow, &path).unwrap();
        let case = &cases(&slow, &table(1000.0, 1.0))[0];
        assert_eq!(case.outcome, Outcome::Skipped);
        assert!(case.detail.contains("other versions"), "{}", case.detail);
    }
}
