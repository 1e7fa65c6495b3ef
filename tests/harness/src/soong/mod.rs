// SPDX-License-Identifier: Apache-2.0
//! Do the Android.bp files hold together? There is no Soong here, so they are compared with what is
//! known: the tree itself, Cargo's manifests, and a table of facts about AOSP with their sources.

mod bazel;
mod blueprint;
mod configs;
mod crates;
mod facts;
mod names;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use self::blueprint::File;
use self::crates::Package;
use self::facts::Facts;
use crate::libtest::{Case, Outcome};
use crate::process;
use crate::source::Source;

/// The table of facts.
const FACTS: &str = "tests/soong/facts.tsv";
/// File name of a blueprint; templates under docs/ end with it.
const NAME: &str = "Android.bp";

/// Everything that the checks look at.
struct Tree<'a> {
    files: Vec<File>,
    facts: Facts,
    packages: Vec<Package>,
    sources: &'a [Source],
}

/// All checks, one case each.
///
/// # Errors
///
/// When Cargo cannot describe the workspace.
pub fn cases(top: &Path, sources: &[Source]) -> Result<Vec<Case>> {
    let packages = Package::all(&metadata(top)?, top)?;
    let mut cases = checks(sources, packages)
        .into_iter()
        .map(|(name, errors)| case(name, &errors))
        .collect::<Vec<_>>();
    cases.push(format(top, sources));
    Ok(cases)
}

/// The checks that need no other program, by name, with what each found.
fn checks(sources: &[Source], packages: Vec<Package>) -> Vec<(&'static str, Vec<String>)> {
    let (files, syntax) = parse(sources);
    let table = sources.iter().find(|source| source.path == FACTS);
    let (facts, mut bad_facts) =
        table.map_or_else(Facts::missing, |table| Facts::parse(&table.text));
    let tree = Tree { files, facts, packages, sources };
    bad_facts.extend(names::unused_facts(&tree));
    bad_facts.extend(names::undocumented_changes(&tree));
    vec![
        ("Android.bp: syntax", syntax),
        ("Android.bp: facts about AOSP", bad_facts),
        ("Android.bp: module types and properties", names::properties(&tree)),
        ("Android.bp: names are unique and ours", names::own(&tree)),
        ("Android.bp: other modules exist", names::references(&tree)),
        ("Android.bp: paths exist", names::paths(&tree)),
        ("Android.bp: modules named elsewhere", names::elsewhere(&tree)),
        ("Android.bp: AIDL files are listed", names::unlisted_aidl(&tree)),
        ("Android.bp: agree with Cargo.toml", crates::errors(&tree)),
        ("Android.bp: AOSP's crate versions", crates::versions(&tree)),
        ("AndroidTest.xml: agree with Android.bp", configs::errors(&tree)),
        ("BUILD.bazel: rules and attributes", bazel::errors(&tree)),
    ]
}

fn parse(sources: &[Source]) -> (Vec<File>, Vec<String>) {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(|source| is_blueprint(&source.path)) {
        match File::parse(&source.path, &source.text) {
            Ok(file) => files.push(file),
            Err(error) => errors.push(error),
        }
    }
    if files.is_empty() {
        errors.push(format!("no {NAME} found"));
    }
    (files, errors)
}

fn is_blueprint(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.ends_with(NAME))
}

fn case(name: &str, errors: &[String]) -> Case {
    let outcome = if errors.is_empty() { Outcome::Passed } else { Outcome::Failed };
    Case { name: name.to_owned(), outcome, detail: errors.join("\n") }
}

fn metadata(top: &Path) -> Result<serde_json::Value> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(top).args(["metadata", "--no-deps", "--format-version=1"]);
    let text = process::output(&mut cargo).context("cannot ask Cargo for the workspace")?;
    serde_json::from_str(&text).context("cargo metadata")
}

/// Blueprint's own formatter.
fn format(top: &Path, sources: &[Source]) -> Case {
    let name = "Android.bp: format";
    if !process::in_path("bpfmt") {
        let detail = "bpfmt is not installed (Debian's blueprint-tools)".to_owned();
        eprintln!("form        {detail}: skipped");
        return Case { name: name.to_owned(), outcome: Outcome::Skipped, detail };
    }
    let paths = sources.iter().map(|source| &source.path).filter(|path| is_blueprint(path));
    let mut bpfmt = Command::new("bpfmt");
    bpfmt.current_dir(top).arg("-l").args(paths);
    case(name, &unformatted(process::output(&mut bpfmt)))
}

fn unformatted(said: Result<String>) -> Vec<String> {
    match said {
        Ok(list) => list.lines().map(|path| format!("run bpfmt -w {path}")).collect(),
        Err(error) => vec![format!("{error:#}")],
    }
}
