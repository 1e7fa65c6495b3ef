// SPDX-License-Identifier: Apache-2.0
//! Links between Markdown files: to files of this tree, and to headings in them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::source::Source;

/// Pages that are also made into a book.
const BOOK: &str = "docs/";

/// Links that lead nowhere.
pub fn broken(sources: &[Source]) -> Vec<String> {
    let mut errors = Vec::new();
    for page in sources.iter().filter(|source| source.path.ends_with(".md")) {
        for (number, link) in links(&page.text) {
            if let Some(error) = problem(sources, page, link) {
                errors.push(format!("{}:{number}: {link}: {error}", page.path));
            }
        }
    }
    errors
}

/// Files outside of a directory that its pages link to.
pub fn files(sources: &[Source], dir: &str) -> BTreeSet<String> {
    let below = format!("{dir}/");
    let pages = sources
        .iter()
        .filter(|source| source.path.starts_with(&below) && source.path.ends_with(".md"));
    let targets = pages.flat_map(|page| {
        let files = links(&page.text).into_iter().filter(|(_, link)| !is_elsewhere(link));
        let files = files.map(|(_, link)| link.split('#').next().unwrap_or_default());
        files.filter(|file| !file.is_empty()).map(|file| resolve(&page.path, file))
    });
    targets.filter(|path| !path.starts_with(&below)).collect()
}

fn is_elsewhere(link: &str) -> bool {
    link.starts_with("https://") || link.starts_with("http://")
}

/// `](target)` outside of code, with its line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        // Every second part is code.
        for part in line.split('`').step_by(2) {
            let ends = part.match_indices("](").filter_map(|(at, _)| {
                let rest = part.get(at + 2..)?;
                rest.split_once(')').map(|(target, _)| target)
            });
            found.extend(ends.map(|target| (index + 1, target)));
        }
    }
    found
}

fn problem(sources: &[Source], page: &Source, link: &str) -> Option<String> {
    if is_elsewhere(link) {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(f, a)| (f, Some(a)));
    let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
    let directory = format!("{}/", path.trim_end_matches('/'));
    let target = sources.iter().find(|source| source.path == path);
    if target.is_none() && !sources.iter().any(|source| source.path.starts_with(&directory)) {
        return Some(format!("there is no {path}"));
    }
    if target.is_none() && page.path.starts_with(BOOK) {
        return Some("a directory: the book can only show files".to_owned());
    }
    let anchor = anchor?;
    let there = target.is_some_and(|target| headings(&target.text).iter().any(|has| has == anchor));
    (!there).then(|| format!("{path} has no heading \"{anchor}\""))
}

fn resolve(from: &str, file: &str) -> String {
    let mut path = PathBuf::from(from);
    path.pop();
    for part in Path::new(file).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => (),
            part => path.push(part),
        }
    }
    path.to_string_lossy().into_owned()
}

/// What GitHub and mdBook call the headings of a page.
fn headings(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if !fenced && title.len() < line.len() && title.starts_with(' ') {
            found.push(slug(title.trim()));
        }
    }
    found
}

fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        broken(&sources(source("docs/a.md", text)))
    }

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into() }
    }

    fn sources(page: Source) -> [Source; 3] {
        let other = "# Title\n## Host `x` calls: 2\n```\n# no\n```\n";
        [page, source("docs/aosp/b.md", other), source("tests/x/y.rs", "")]
    }

    #[test]
    fn links_that_lead_somewhere() {
        let good = "[b](aosp/b.md) [h](aosp/b.md#host-x-calls-2) [d](../tests/x/y.rs) [w](https://x.y/)\n\
            [own](#top)\n# Top\n`[code](nowhere)`\n```\n[code](nowhere)\n```\n    [code](nowhere)\n";
        assert_eq!(errors(good), Vec::<String>::new());
    }

    #[test]
    fn links_that_do_not() {
        assert_eq!(errors("[b](b.md)"), ["docs/a.md:1: b.md: there is no docs/b.md"]);
        let no = errors("\n[b](aosp/b.md#no)");
        assert_eq!(no, ["docs/a.md:2: aosp/b.md#no: docs/aosp/b.md has no heading \"no\""]);
        assert_eq!(errors("[b](#no)").len(), 1);
        assert!(errors("[d](../tests/x)")[0].contains("a directory"));
        let outside = sources(source("README.md", "[d](tests/x) [p](docs/aosp/b.md)"));
        assert_eq!(broken(&outside), Vec::<String>::new());
    }

    #[test]
    fn files_for_the_book_are_those_that_pages_link_to() {
        let page = "[y](../tests/x/y.rs#l) [b](aosp/b.md) [w](https://x/y) [own](#a)";
        let found = files(&sources(source("docs/a.md", page)), "docs");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["tests/x/y.rs"]);
    }
}
