// SPDX-License-Identifier: Apache-2.0
//! Is `docs/weaknesses.md` true? Each weakness of the posted C driver has one row there; the tests and
//! mutations that a row names exist, and no test or mutation that is named after a weakness is missing.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// The page with the table.
const PAGE: &str = "docs/weaknesses.md";
/// How many weaknesses there are.
const COUNT: usize = 47;
/// Severities that want a test and a mutation: memory safety, wrong results.
const SEVERE: [&str; 2] = ["C", "H"];

/// A row: `| W-01 | C | what v13 did | what we do | tests | mutations |`.
struct Row<'a> {
    id: &'a str,
    severity: &'a str,
    tests: Vec<&'a str>,
    mutations: Vec<&'a str>,
}

/// What is wrong with the page; empty if nothing.
pub fn errors(sources: &[Source]) -> Vec<String> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else {
        return vec![format!("{PAGE} is missing")];
    };
    let rows: Vec<_> = page.text.lines().filter_map(row).collect();
    let (tests, mutations) = (tests(sources), mutations(sources));
    let mut errors = ids(&rows);
    for row in &rows {
        errors.extend(missing(row, &tests, &mutations));
        let argued = page.text.contains(&format!("\n### {}\n", row.id));
        let proved = !row.tests.is_empty() && !row.mutations.is_empty();
        if SEVERE.contains(&row.severity) && !proved && !argued {
            errors.push(format!(
                "{}: severity {} without test and mutation, and no section \"### {}\" that says why",
                row.id, row.severity, row.id
            ));
        }
        if row.tests.is_empty() && !argued {
            errors.push(format!("{}: no test, and no section \"### {}\"", row.id, row.id));
        }
    }
    errors.extend(unnamed(&rows, &tests, &mutations));
    errors
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut cells = line.strip_prefix("| W-")?.trim_end().strip_suffix('|')?.split('|');
    let number = cells.next()?.trim();
    let id = line.get(2..4 + number.len())?;
    let severity = cells.next()?.trim();
    let _ = (cells.next()?, cells.next()?);
    let (tests, mutations) = (quoted(cells.next()?), quoted(cells.next()?));
    Some(Row { id, severity, tests, mutations })
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Each weakness has exactly one row, in order.
fn ids(rows: &[Row<'_>]) -> Vec<String> {
    let got: Vec<_> = rows.iter().map(|row| row.id).collect();
    let want: Vec<_> = (1..=COUNT).map(|number| format!("W-{number:02}")).collect();
    if got == want {
        Vec::new()
    } else {
        let missing = want.iter().filter(|id| !got.contains(&id.as_str())).cloned();
        let missing: Vec<_> = missing.collect();
        vec![format!("{PAGE}: not W-01 to W-{COUNT} in order; missing: {}", missing.join(", "))]
    }
}

fn missing(
    row: &Row<'_>,
    tests: &BTreeSet<String>,
    mutations: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut errors = Vec::new();
    for test in row.tests.iter().filter(|test| !tests.contains(**test)) {
        errors.push(format!("{}: there is no test {test}", row.id));
    }
    for mutation in row.mutations.iter().filter(|name| !mutations.contains_key(**name)) {
        errors.push(format!("{}: there is no mutation {mutation}", row.id));
    }
    errors
}

/// Tests and mutations whose names say that they belong to a weakness, but not to a row.
fn unnamed(
    rows: &[Row<'_>],
    tests: &BTreeSet<String>,
    mutations: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut errors = Vec::new();
    for test in tests {
        let name = test.rsplit("::").next().unwrap_or_default();
        for id in belongs_to(name) {
            if !rows.iter().any(|row| row.id == id && row.tests.contains(&test.as_str())) {
                errors.push(format!("{PAGE}: {id} does not name the test {test}"));
            }
        }
    }
    for (mutation, fails) in mutations {
        for id in belongs_to(mutation) {
            let row =
                rows.iter().find(|row| row.id == id && row.mutations.contains(&mutation.as_str()));
            if row.is_none() {
                errors.push(format!("{PAGE}: {id} does not name the mutation {mutation}"));
            }
        }
        if fails.starts_with("leaks::") {
            continue;
        }
        let kunit = fails.strip_prefix("kunit::");
        let found = match kunit {
            Some(name) => tests.iter().any(|test| test.ends_with(&format!("::{name}"))),
            None => tests.contains(fails),
        };
        if !found {
            errors.push(format!("mutation {mutation}: there is no test {fails}"));
        }
    }
    errors
}

/// `w05_w24_x` belongs to W-05 and W-24.
fn belongs_to(name: &str) -> Vec<String> {
    let number = |word: &str| {
        let digits = word.strip_prefix('w').filter(|digits| digits.len() == 2)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("W-{digits}"))
    };
    name.split('_').map_while(number).collect()
}

/// All tests, as `program::name`: those in QEMU by their program, others by the directory's word.
fn tests(sources: &[Source]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for source in sources {
        let Some(program) = program(&source.path) else { continue };
        for line in source.text.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once("()"));
            if let Some((name, _)) = name {
                tests.insert(format!("{program}::{name}"));
            }
        }
    }
    tests
}

/// The name by which a file's tests are called.
fn program(path: &str) -> Option<&str> {
    let path = path.strip_suffix(".rs")?;
    let in_qemu = ["tests/device/tests/", "tests/vmm/tests/"];
    if let Some(file) = in_qemu.iter().find_map(|dir| path.strip_prefix(dir)) {
        return file.split('/').next();
    }
    [
        ("driver/model/", "model"),
        ("driver/kx/", "kunit"),
        ("driver/abi/tests/", "abi"),
        ("avf-backend/binder/rpcbinder/", "rpcbinder"),
        ("avf-backend/virtmgr/", "virtmgr"),
        ("avf-backend/virtualizationservice/", "virtualizationservice"),
        ("avf-backend/vm/", "vm"),
        ("tests/refhyp/", "refhyp"),
        ("tests/harness/src/", "xtask"),
    ]
    .into_iter()
    .find_map(|(dir, name)| path.starts_with(dir).then_some(name))
}

/// All mutations, and the test that each promises to make fail, as `program::name`.
fn mutations(sources: &[Source]) -> BTreeMap<String, String> {
    let mutation = |source: &Source| {
        let name = source.path.strip_prefix("tests/device/mutations/")?.strip_suffix(".patch")?;
        let fails = source.text.lines().next()?.strip_prefix("Fails: ")?;
        Some((name.to_owned(), fails.trim().replacen(' ', "::", 1)))
    };
    sources.iter().filter_map(mutation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// A good set of files: all rows but the first one are argued.
    fn good() -> Vec<Source> {
        let mut page =
            "| W-01 | C | x | y | `ioctls::w01_a`, `model::w01_b` | `w01_m` |\n".to_owned();
        for number in 2..=COUNT {
            page += &format!("| W-{number:02} | H | x | y | | |\n");
        }
        for number in 2..=COUNT {
            page += &format!("\n### W-{number:02}\n\nCannot be written.\n");
        }
        vec![
            source(PAGE, &page),
            source("tests/device/tests/ioctls.rs", "fn w01_a() {\n}\n"),
            source("driver/model/caps.rs", "    fn w01_b() {}\n"),
            source("tests/device/mutations/w01_m.patch", "Fails: ioctls w01_a\n"),
        ]
    }

    fn with(change: impl Fn(&mut Vec<Source>)) -> String {
        let mut sources = good();
        change(&mut sources);
        errors(&sources).join("\n")
    }

    #[test]
    fn a_true_page_has_no_errors() {
        assert_eq!(errors(&good()), Vec::<String>::new());
    }

    #[test]
    fn what_a_row_names_must_exist() {
        let error = with(|sources| sources[1].text = "fn other() {}".to_owned());
        assert!(error.contains("W-01: there is no test ioctls::w01_a"), "{error}");
        assert!(error.contains("mutation w01_m: there is no test ioctls::w01_a"), "{error}");
        let error = with(|sources| drop(sources.remove(3)));
        assert!(error.contains("W-01: there is no mutation w01_m"), "{error}");
    }

    #[test]
    fn what_is_named_after_a_weakness_is_in_its_row() {
        let error = with(|sources| sources[1].text += "fn w01_w03_new() {}\n");
        assert!(error.contains("W-01 does not name the test ioctls::w01_w03_new"), "{error}");
        assert!(error.contains("W-03 does not name the test ioctls::w01_w03_new"), "{error}");
        let patch = source("tests/device/mutations/w02_n.patch", "Fails: ioctls w01_a\n");
        let error = with(|sources| sources.push(source(&patch.path, &patch.text)));
        assert!(error.contains("W-02 does not name the mutation w02_n"), "{error}");
    }

    #[test]
    fn a_row_without_proof_needs_an_argument() {
        let error = with(|sources| sources[0].text = sources[0].text.replace("### W-05", "### x"));
        assert!(error.contains("W-05: no test"), "{error}");
        let error = with(|sources| sources[0].text = sources[0].text.replace("`w01_m`", ""));
        assert!(error.contains("W-01: severity C without"), "{error}");
    }

    #[test]
    fn every_weakness_has_its_row() {
        let error = with(|sources| sources[0].text = sources[0].text.replace("| W-07", "W-07"));
        assert!(error.contains("missing: W-07"), "{error}");
        assert!(with(|sources| drop(sources.remove(0))).contains("is missing"));
    }
}
