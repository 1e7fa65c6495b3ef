// SPDX-License-Identifier: Apache-2.0
//! What was measured against the numbers that are checked in.

use std::path::Path;

use anyhow::{bail, Result};

use super::table::{Row, Table};

/// How much worse, in percent, is too much.
const TOLERANCE: f64 = 5.0;
/// Changes of fewer instructions, or hypercalls, per event are noise of where code happens to lie.
const SMALLEST: f64 = 3.0;

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
    let worse = worse(table, &baseline);
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

/// What got worse, in words. Rows that one side has not are left out.
fn worse(table: &Table, baseline: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for row in &table.rows {
        let same = |old: &&Row| old.id == row.id && old.what == row.what;
        let Some(old) = baseline.rows.iter().find(same) else { continue };
        let name = format!("{} {}", row.id, row.what);
        for (unit, new, old, smallest) in [
            ("instructions", row.cost(), old.cost(), SMALLEST),
            ("hypercalls", row.hypercalls, old.hypercalls, 0.0),
        ] {
            if new - old > smallest && new > old * (1.0 + TOLERANCE / 100.0) {
                let percent = (new / old - 1.0) * 100.0;
                found.push(format!("{name}: {old} {unit} before, now {new} (+{percent:.1} %)"));
            }
        }
    }
    found
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

    #[test]
    fn five_percent_is_the_limit() {
        let before = table(1000.0, 1.0);
        assert!(worse(&table(1050.0, 1.0), &before).is_empty());
        assert!(worse(&table(10.0, 1.0), &before).is_empty());
        let found = worse(&table(1051.0, 1.0), &before);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("1000 instructions before, now 1051 (+5.1 %)"), "{}", found[0]);
        assert_eq!(worse(&table(1000.0, 1.06), &before).len(), 1);
        // What the guest itself does is nobody's fault.
        let mut longer = before.clone();
        longer.rows[0].classes[0] *= 2.0;
        assert!(worse(&longer, &before).is_empty());
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
        slow.versions = Versions { qemu: "QEMU 10".to_owned(), ..Versions::default() };
        with_baseline(&slow, &path).unwrap();
    }
}
