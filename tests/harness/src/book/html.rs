// SPDX-License-Identifier: Apache-2.0
//! The book as web pages: made by mdBook, with those files of the tree beside it that its pages link to, and
//! then looked through for links that lead nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use super::links;
use crate::process;
use crate::project::Project;
use crate::source;

/// Where the pages are, in the tree and in the output.
const PAGES: &str = "docs";
/// mdBook's page for addresses that do not exist: its links are for a web server's root.
const NOT_FOUND: &str = "404.html";

/// Makes the book below `target/book` and returns its first page.
///
/// # Errors
///
/// When mdBook is missing or fails, or a link of a page leads nowhere.
pub fn build(project: &Project) -> Result<PathBuf> {
    if !process::in_path("mdbook") {
        bail!("mdbook is missing: cargo install mdbook --locked");
    }
    let top = project.target.join("book");
    if top.exists() {
        fs::remove_dir_all(&top)?;
    }
    let pages = top.join(PAGES);
    let mut mdbook = Command::new("mdbook");
    process::output(mdbook.arg("build").arg(&project.top).arg("--dest-dir").arg(&pages))?;
    let sources = source::all(&project.top)?;
    for file in links::files(&sources, PAGES) {
        let to = top.join(&file);
        if let Some(dir) = to.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::copy(project.top.join(&file), &to).with_context(|| format!("cannot copy {file}"))?;
    }
    let broken = broken(&pages)?;
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n{}", broken.join("\n"));
    }
    Ok(pages.join("index.html"))
}

/// Local addresses in the pages of a directory that no file is behind.
fn broken(dir: &Path) -> Result<Vec<String>> {
    let mut errors = BTreeSet::new();
    for page in html(dir)? {
        let text = fs::read_to_string(&page)?;
        for address in addresses(&text) {
            let Some(file) = local(address) else { continue };
            let base = page.parent().unwrap_or(dir);
            if !base.join(file).is_file() {
                errors.insert(format!("{}: {address}", page.display()));
            }
        }
    }
    Ok(errors.into_iter().collect())
}

/// All pages below a directory but the one for errors.
fn html(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            pages.extend(html(&path)?);
        } else if path.extension().is_some_and(|ext| ext == "html") && !path.ends_with(NOT_FOUND) {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// What the attributes `href` and `src` of a page name.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    [" href=\"", " src=\""].into_iter().flat_map(move |attribute| {
        text.split(attribute).skip(1).filter_map(|rest| rest.split_once('"').map(|(to, _)| to))
    })
}

/// The file of an address that is none on the Web and no place in the same page.
fn local(address: &str) -> Option<&str> {
    let elsewhere = ["http:", "https:", "mailto:", "data:", "javascript:"];
    let file = address.split(['#', '?']).next().unwrap_or_default();
    let here = !file.is_empty() && !elsewhere.iter().any(|scheme| address.starts_with(scheme));
    here.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let page = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        page("a.html", "<a href=\"b.html#x\">b</a> <img src=\"https://x/y.png\"> <a href=\"#z\">");
        page("b.html", "");
        page("404.html", "<a href=\"/nowhere.html\">");
        assert_eq!(broken(dir.path()).unwrap(), Vec::<String>::new());
        fs::create_dir(dir.path().join("c")).unwrap();
        page("c/d.html", "<img alt=\"\" src=\"b.png\"><a class=\"x\" href=\"../b.html?q\">");
        let found = broken(dir.path()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with("c/d.html: b.png"), "{found:?}");
    }
}
