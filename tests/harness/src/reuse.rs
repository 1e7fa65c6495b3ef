// SPDX-License-Identifier: Apache-2.0
//! Does every file have a licence? Either in its first lines, or in `REUSE.toml`, whose form is that of
//! reuse.software; and the text of each licence is in `LICENSES/`.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use crate::source::Source;

const TABLE: &str = "REUSE.toml";
/// Where licences' texts are: they need none themselves.
const TEXTS: &str = "LICENSES/";
/// What precedes a licence in a file.
const TAG: &str = "SPDX-License-Identifier: ";
/// Lines of a file in which it may stand: scripts begin with another.
const HEAD: usize = 3;
/// The kernel's old names of licences, and the present ones.
const RENAMED: [(&str, &str); 1] = [("GPL-2.0", "GPL-2.0-only")];

#[derive(Deserialize)]
struct Table {
    #[serde(default)]
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    path: Paths,
    #[serde(default)]
    precedence: Precedence,
    #[serde(rename = "SPDX-License-Identifier")]
    licence: Option<String>,
}

/// What counts where a file has a licence line too.
#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Precedence {
    #[default]
    Closest,
    Aggregate,
    Override,
}

/// One pattern, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

impl Paths {
    fn all(&self) -> &[String] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Many(paths) => paths,
        }
    }
}

/// What is wrong with licences.
pub fn errors(sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|source| source.path == TABLE) else {
        return vec![format!("{TABLE} is missing")];
    };
    let table: Table = match toml::from_str(&table.text) {
        Ok(table) => table,
        Err(error) => return vec![format!("{TABLE}: {error}")],
    };
    let licensing: Vec<_> = table.annotations.iter().filter(|one| one.licence.is_some()).collect();
    let mut errors = Vec::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    // Files that only look as if they had one are known to have a line.
    let alone = licensing.iter().filter(|one| one.precedence != Precedence::Override);
    let patterns: Vec<_> = alone.flat_map(|one| one.path.all()).collect();
    let covered = match set(&patterns) {
        Ok(set) => set,
        Err(error) => return vec![format!("{TABLE}: {error}")],
    };
    let mut used = vec![false; patterns.len()];
    for source in sources.iter().filter(|source| !source.path.starts_with(TEXTS)) {
        if let Some(licence) = own(source) {
            named.extend(simple(licence));
            continue;
        }
        let matches = covered.matches(&source.path);
        if matches.is_empty() {
            errors.push(format!("{}: no line \"{TAG}...\", and not in {TABLE}", source.path));
        }
        matches.into_iter().for_each(|index| used[index] = true);
    }
    for (pattern, _) in patterns.iter().zip(used).filter(|(_, used)| !used) {
        errors.push(format!("{TABLE}: no file without a licence of its own is {pattern}"));
    }
    named.extend(licensing.iter().filter_map(|one| one.licence.as_deref()).flat_map(simple));
    errors.extend(texts(sources, &named));
    errors
}

fn set(patterns: &[&String]) -> Result<GlobSet, globset::Error> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    builder.build()
}

/// The licence that a file names.
fn own(source: &Source) -> Option<&str> {
    let found = source.text.lines().take(HEAD).find_map(|line| line.split_once(TAG))?;
    Some(found.1.trim_end_matches("*/").trim_end_matches("-->").trim())
}

/// The licences and exceptions of an expression.
fn simple(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split([' ', '(', ')']).filter(|word| !word.is_empty());
    let words = words.filter(|word| !["AND", "OR", "WITH"].contains(word));
    words.map(|word| {
        RENAMED.iter().find(|(old, _)| *old == word).map_or(word, |&(_, present)| present)
    })
}

/// Texts that are missing, or that nothing needs.
fn texts(sources: &[Source], named: &BTreeSet<&str>) -> Vec<String> {
    let texts = sources.iter().filter_map(|source| source.path.strip_prefix(TEXTS));
    let texts: BTreeSet<_> = texts.filter_map(|name| name.strip_suffix(".txt")).collect();
    let missing = named.difference(&texts).map(|name| format!("{TEXTS}{name}.txt is missing"));
    let unused = texts.difference(named).map(|name| format!("nothing needs {TEXTS}{name}.txt"));
    missing.chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\n[[annotations]]\npath = \"**\"\n\
        SPDX-FileCopyrightText = \"x\"\n\
        [[annotations]]\npath = [\"*.md\", \"docs/**/*.md\"]\nSPDX-License-Identifier = \"Apache-2.0\"\n";

    fn with(more: &[(&str, &str)], table: &str) -> Vec<String> {
        let tag = |licence: &str| format!("// {TAG}{licence}\n");
        let mut files = vec![
            (TABLE.to_owned(), format!("# {TAG}Apache-2.0\n{table}")),
            ("README.md".into(), "words".into()),
            ("docs/aosp/x.md".into(), "words".into()),
            ("driver/abi/lib.rs".into(), tag("GPL-2.0 OR Apache-2.0")),
            ("LICENSES/Apache-2.0.txt".into(), "text".into()),
            ("LICENSES/GPL-2.0-only.txt".into(), "text".into()),
        ];
        files.extend(more.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        let sources: Vec<_> = files.into_iter().map(|(path, text)| Source { path, text }).collect();
        errors(&sources)
    }

    #[test]
    fn a_right_tree_has_no_errors() {
        assert_eq!(with(&[], GOOD), Vec::<String>::new());
    }

    #[test]
    fn files_without_a_licence_are_named() {
        let error = with(&[("tests/x.json", "{}")], GOOD);
        assert_eq!(error.len(), 1);
        assert!(error[0].starts_with("tests/x.json: no line"), "{error:?}");
        // `*` stays in its directory.
        assert_eq!(with(&[("tests/x.md", "")], GOOD).len(), 1);
        assert!(errors(&[])[0].contains("is missing"));
        assert!(with(&[], "version =")[0].starts_with(TABLE));
    }

    #[test]
    fn lines_of_the_table_that_nothing_needs_are_named() {
        let error = with(&[], &GOOD.replace("*.md\", ", "*.md\", \"gone/*\", "));
        assert_eq!(error, ["REUSE.toml: no file without a licence of its own is gone/*"]);
    }

    #[test]
    fn each_licence_has_its_text() {
        let error = with(&[("x.rs", "// SPDX-License-Identifier: (MIT WITH exception)\n")], GOOD);
        assert_eq!(error, ["LICENSES/MIT.txt is missing", "LICENSES/exception.txt is missing"]);
        let error = with(&[("LICENSES/MIT.txt", "")], GOOD);
        assert_eq!(error, ["nothing needs LICENSES/MIT.txt"]);
    }
}
