// SPDX-License-Identifier: Apache-2.0
//! The table: one row for each kind of event, as JSON and as Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use super::windows::{Measure, Window, CLASSES};

/// What the numbers depend on beside our own sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// QEMU.
    pub qemu: String,
    /// The kernel: version, hash of its options and compilers, variant.
    pub kernel: String,
    /// Compiler of the module.
    pub module_compiler: String,
    /// Compiler of the benchmarks.
    pub program_compiler: String,
    /// Compiler of the hypervisor.
    pub hypervisor_compiler: String,
}

/// What one kind of event costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Which benchmark.
    pub id: String,
    /// The event.
    pub what: String,
    /// Number of events that were taken over.
    pub events: u64,
    /// Instructions per event of each class.
    pub classes: [f64; CLASSES.len()],
    /// Hypercalls per event.
    pub hypercalls: f64,
    /// Instructions of driver and kernel with a mutex held, per event.
    pub locked: f64,
    /// The hypervisor's longest stay, in instructions.
    pub stay: u64,
    /// Difference of the cost between the windows of this row, per event.
    pub spread: f64,
}

impl Row {
    /// Instructions per event of all but the guest.
    pub fn cost(&self) -> f64 {
        self.classes.iter().skip(1).sum()
    }
}

/// All that was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// By what.
    pub versions: Versions,
    /// Instructions.
    pub rows: Vec<Row>,
    /// Other numbers.
    pub values: Vec<Measure>,
}

const START: &str = "<!-- table: `make bench` with --save writes it -->\n";
const END: &str = "<!-- end of table -->\n";

/// Instructions and counts are far below 2^52.
fn float(number: u64) -> f64 {
    number as f64
}

/// To a tenth: below that there is nothing to see.
fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

impl Table {
    /// Nothing measured.
    pub fn new(versions: Versions) -> Self {
        Self { versions, ..Self::default() }
    }

    /// Adds what one machine measured: the last window of each kind counts, those before show the
    /// spread.
    pub fn add(&mut self, windows: &[Window], values: Vec<Measure>) {
        for window in windows {
            let events = float(window.events);
            let mut row = Row {
                id: window.id.clone(),
                what: window.what.clone(),
                events: window.events,
                classes: window.classes.map(|sum| tenth(float(sum) / events)),
                hypercalls: (float(window.hypercalls) / events * 100.0).round() / 100.0,
                locked: tenth(float(window.locked) / events),
                stay: window.stay,
                spread: 0.0,
            };
            let same = |old: &&mut Row| old.id == row.id && old.what == row.what;
            if let Some(old) = self.rows.iter_mut().find(same) {
                row.spread = tenth((row.cost() - old.cost()).abs().max(old.spread));
                *old = row;
            } else {
                self.rows.push(row);
            }
        }
        self.values.extend(values);
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let rows: Vec<_> = self.rows.iter().map(row_json).collect();
        let values: Vec<_> = self.values.iter().map(measure_json).collect();
        let Versions { qemu, kernel, module_compiler, program_compiler, hypervisor_compiler } =
            &self.versions;
        let versions = json!({
            "qemu": qemu, "kernel": kernel, "module_compiler": module_compiler,
            "program_compiler": program_compiler, "hypervisor_compiler": hypervisor_compiler,
        });
        let all = json!({"versions": versions, "rows": rows, "values": values});
        let text = serde_json::to_string_pretty(&all)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads what [`Table::write`] wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has another form.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let all: Value = serde_json::from_str(&text)?;
        parse(&all).with_context(|| format!("{} has another form", path.display()))
    }

    /// As Markdown: a table of instructions, and one of the other numbers.
    pub fn markdown(&self) -> String {
        let mut text = "| | event | guest | EL2 | driver | kernel | program | sum | hypercalls | \
            locked | longest in EL2 | spread |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
        for row in &self.rows {
            let [guest, hypervisor, module, kernel, user] = row.classes.map(count);
            let [sum, locked, spread] = [row.cost(), row.locked, row.spread].map(count);
            let Row { id, what, hypercalls, stay, .. } = row;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {id} | {what} | {guest} | {hypervisor} | {module} | {kernel} | {user} | {sum} | \
                 {hypercalls} | {locked} | {stay} | {spread} |"
            );
        }
        text += "\n| | what | number | unit |\n|---|---|--:|---|\n";
        for Measure { id, what, value, unit } in &self.values {
            let _ = writeln!(text, "| {id} | {what} | {value} | {unit} |");
        }
        let Versions { qemu, kernel, module_compiler, program_compiler, hypervisor_compiler } =
            &self.versions;
        let _ = writeln!(
            text,
            "\nMeasured with {qemu}; kernel {kernel}; driver by {module_compiler}; programs by \
             {program_compiler}; refhyp by {hypervisor_compiler}."
        );
        text
    }
}

/// Large numbers have no decimals.
fn count(number: f64) -> String {
    if number < 1000.0 {
        format!("{number}")
    } else {
        format!("{number:.0}")
    }
}

fn row_json(row: &Row) -> Value {
    json!({
        "id": row.id, "what": row.what, "events": row.events, "instructions": row.classes,
        "hypercalls": row.hypercalls, "locked": row.locked, "stay": row.stay, "spread": row.spread,
    })
}

fn measure_json(measure: &Measure) -> Value {
    let Measure { id, what, value, unit } = measure;
    json!({"id": id, "what": what, "value": value, "unit": unit})
}

fn parse(all: &Value) -> Option<Table> {
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let versions = all.get("versions")?;
    let versions = Versions {
        qemu: text(versions, "qemu")?,
        kernel: text(versions, "kernel")?,
        module_compiler: text(versions, "module_compiler")?,
        program_compiler: text(versions, "program_compiler")?,
        hypervisor_compiler: text(versions, "hypervisor_compiler")?,
    };
    let row = |row: &Value| {
        let mut classes = [0.0; CLASSES.len()];
        for (class, value) in classes.iter_mut().zip(row.get("instructions")?.as_array()?) {
            *class = value.as_f64()?;
        }
        Some(Row {
            id: text(row, "id")?,
            what: text(row, "what")?,
            events: row.get("events")?.as_u64()?,
            classes,
            hypercalls: row.get("hypercalls")?.as_f64()?,
            locked: row.get("locked")?.as_f64()?,
            stay: row.get("stay")?.as_u64()?,
            spread: row.get("spread")?.as_f64()?,
        })
    };
    let measure = |value: &Value| {
        Some(Measure {
            id: text(value, "id")?,
            what: text(value, "what")?,
            value: value.get("value")?.as_u64()?,
            unit: text(value, "unit")?,
        })
    };
    let rows = all.get("rows")?.as_array()?.iter().map(row).collect::<Option<_>>()?;
    let values = all.get("values")?.as_array()?.iter().map(measure).collect::<Option<_>>()?;
    Some(Table { versions, rows, values })
}

/// A document with the table between its marks replaced.
pub fn replace_in(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(START)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{START}\n{table}\n{END}{after}"))
}

/// Functions of kernel and module by instructions, for each window; those below a hundredth of the
/// sum are left out. Then who took mutexes, with the instructions until their ends.
pub fn profile(windows: &[Window]) -> String {
    let mut text = String::new();
    for window in windows {
        let events = float(window.events);
        let _ = writeln!(text, "{} {} ({} events)", window.id, window.what, window.events);
        let mut functions: Vec<_> = window.functions.iter().collect();
        functions.sort_by_key(|(_, (_, sum))| std::cmp::Reverse(*sum));
        for ((class, name), (calls, sum)) in functions {
            if *sum * 100 >= window.cost() {
                let (calls, sum) = (float(*calls) / events, float(*sum) / events);
                let _ = writeln!(text, "  {sum:>12.1} {calls:>10.2} calls  {class} {name}");
            }
        }
        for (name, sum) in &window.lockers {
            let sum = float(*sum) / events;
            let _ = writeln!(text, "  {sum:>12.1} with a mutex held that was taken in {name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(module: u64) -> Window {
        Window {
            id: "B1".to_owned(),
            what: "write".to_owned(),
            events: 10,
            classes: [70, 100, module, 30, 0],
            hypercalls: 10,
            stay: 9,
            locked: 7,
            ..Window::default()
        }
    }

    fn table() -> Table {
        let mut table = Table::new(Versions { qemu: "q".to_owned(), ..Versions::default() });
        let unit = "bytes".to_owned();
        let value = Measure { id: "B8".to_owned(), what: "VM".to_owned(), value: 7, unit };
        table.add(&[window(50), window(52)], vec![value]);
        table
    }

    #[test]
    fn the_last_window_counts_and_all_make_the_spread() {
        let row = &table().rows[0];
        assert_eq!(row.classes, [7.0, 10.0, 5.2, 3.0, 0.0]);
        assert_eq!((row.hypercalls, row.stay, row.spread), (1.0, 9, 0.2));
        assert!((row.cost() - 18.2).abs() < 1e-9);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        table().write(&path).unwrap();
        assert_eq!(Table::read(&path).unwrap(), table());
        std::fs::write(&path, "{}").unwrap();
        assert!(Table::read(&path).is_err());
    }

    #[test]
    fn documents_keep_what_is_around_the_table() {
        let document = format!("a\n{START}old\n{END}b\n");
        let new = replace_in(&document, "new\n").unwrap();
        assert_eq!(new, format!("a\n{START}\nnew\n\n{END}b\n"));
        assert_eq!(replace_in("a", "b"), None);
        let text = table().markdown();
        assert!(text.contains("| B1 | write | 7 | 10 | 5.2 | 3 | 0 | 18.2 | 1 | 0.7 | 9 | 0.2 |"));
    }
}
