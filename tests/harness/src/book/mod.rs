// SPDX-License-Identifier: Apache-2.0
//! Is the book in docs/ whole and true? Links lead somewhere, every page is in the table of contents, error
//! messages that a page explains are ones that a program says, numbers are those of the ABI.

pub mod bringup;
pub mod html;
mod links;
mod numbers;
pub mod picture;
mod quotes;

use crate::source::Source;

/// The book's table of contents.
const CONTENTS: &str = "docs/SUMMARY.md";

/// The checks by name, with what each found.
pub fn checks(sources: &[Source]) -> [(&'static str, Vec<String>); 6] {
    [
        ("docs: links", links::broken(sources)),
        ("docs: table of contents", unlisted(sources)),
        ("docs: error messages", quotes::unsaid(sources)),
        ("docs: numbers of the ABI", numbers::wrong(sources)),
        ("docs: bring-up checklist", bringup::errors(sources)),
        ("docs: picture of the demo", picture::stale(sources)),
    ]
}

/// Pages that the table of contents does not have.
fn unlisted(sources: &[Source]) -> Vec<String> {
    let Some(contents) = sources.iter().find(|source| source.path == CONTENTS) else {
        return vec![format!("{CONTENTS} is missing")];
    };
    let pages = sources.iter().filter_map(|source| source.path.strip_prefix("docs/"));
    let pages = pages.filter(|page| page.ends_with(".md") && *page != "SUMMARY.md");
    pages
        .filter(|page| !contents.text.contains(&format!("]({page})")))
        .map(|page| format!("{CONTENTS} has no line for {page}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_nobody_finds_are_named() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let mut sources = vec![source("docs/a.md", ""), source(CONTENTS, "- [A](a.md)\n")];
        assert_eq!(unlisted(&sources), Vec::<String>::new());
        sources.push(source("docs/aosp/b.md", ""));
        assert_eq!(unlisted(&sources), ["docs/SUMMARY.md has no line for aosp/b.md"]);
        sources.remove(1);
        assert_eq!(unlisted(&sources), ["docs/SUMMARY.md is missing"]);
    }
}
