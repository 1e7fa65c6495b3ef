// SPDX-License-Identifier: Apache-2.0
//! Plots: a horizontal bar for each row of a benchmark, with who spends the instructions.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::table::{Row, Table};

/// Colours of [`super::windows::CLASSES`] but the guest.
const COLOURS: [(&str, &str); 4] =
    [("EL2", "#4c72b0"), ("driver", "#dd8452"), ("kernel", "#55a868"), ("program", "#8c8c8c")];
/// Pixels.
const TEXT: f64 = 420.0;
const BAR: f64 = 480.0;
const LINE: f64 = 24.0;

/// The benchmarks that have rows, in order.
fn ids(table: &Table) -> Vec<&str> {
    let mut ids: Vec<_> = table.rows.iter().map(|row| row.id.as_str()).collect();
    ids.dedup();
    ids
}

/// What shows the plots in a document beside the directory `dir`.
pub fn links(table: &Table, dir: &str) -> String {
    ids(table).iter().map(|id| format!("![{id}]({dir}/bench-{id}.svg)\n")).collect()
}

/// Writes `bench-ID.svg` for each benchmark.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write_all(table: &Table, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for id in ids(table) {
        let rows: Vec<_> = table.rows.iter().filter(|row| row.id == id).collect();
        let path = dir.join(format!("bench-{id}.svg"));
        fs::write(&path, svg(id, &rows))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn svg(id: &str, rows: &[&Row]) -> String {
    let longest = rows.iter().map(|row| row.cost()).fold(1.0, f64::max);
    let lines = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let (width, height) = (TEXT + BAR + 100.0, LINE * (f64::from(lines) + 2.5));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <!-- SPDX-License-Identifier: Apache-2.0 -->\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{id}: instructions per event</text>\n"
    );
    let mut x = TEXT;
    for (name, colour) in COLOURS {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"8\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"18\">{name}</text>",
            x + 16.0
        );
        x += 90.0;
    }
    let mut y = LINE * 1.5;
    for row in rows {
        let what = escaped(&row.what);
        let _ = writeln!(text, "<text x=\"8\" y=\"{}\">{what}</text>", y + 15.0);
        let mut x = TEXT;
        for (instructions, (_, colour)) in row.classes.iter().skip(1).zip(COLOURS) {
            let width = instructions / longest * BAR;
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" \
                 fill=\"{colour}\"/>",
                LINE - 6.0
            );
            x += width;
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{}\">{:.0}</text>",
            x + 6.0,
            y + 15.0,
            row.cost()
        );
        y += LINE;
    }
    text + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plot_is_shown() {
        let row = |id: &str| Row { id: id.to_owned(), ..Row::default() };
        let table = Table { rows: vec![row("B1"), row("B1"), row("B2")], ..Table::default() };
        let dir = tempfile::tempdir().unwrap();
        write_all(&table, dir.path()).unwrap();
        for line in links(&table, ".").lines() {
            let file = line.split(['(', ')']).nth(1).unwrap();
            assert!(dir.path().join(file).exists(), "{line}");
        }
        assert_eq!(links(&table, ".").lines().count(), 2);
    }

    #[test]
    fn bars_are_as_long_as_the_numbers() {
        let row = |kernel: f64| Row {
            what: "a < b".to_owned(),
            classes: [5e6, 0.0, 0.0, kernel, 0.0],
            ..Row::default()
        };
        let text = svg("B1", &[&row(100.0), &row(50.0)]);
        assert!(text.contains("width=\"480.0\"") && text.contains("width=\"240.0\""));
        assert!(text.contains("a &lt; b") && text.ends_with("</svg>\n"));
    }
}
