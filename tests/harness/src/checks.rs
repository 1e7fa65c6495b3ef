// SPDX-License-Identifier: Apache-2.0
//! What is checked and tested on the build machine: form, lints, documentation, `cargo test`.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::book;
use crate::interrupt;
use crate::libtest::{Case, Exit, Outcome, Parser};
use crate::process;
use crate::project::Project;
use crate::report::{Results, Suite};
use crate::reuse;
use crate::sepolicy;
use crate::soong;
use crate::source;
use crate::ui::Step;
use crate::weaknesses;

/// Runs all of it.
///
/// # Errors
///
/// When the user interrupts; failures are among the results.
pub fn run(project: &Project, results: &mut Results) -> Result<()> {
    results.add(form(project)?);
    results.add(lints(project)?);
    // Those that need a machine with GenieZone run in QEMU.
    let in_qemu = ["--exclude", "gzvm-device-test", "--exclude", "gzvm-vmm-test"];
    cargo_test(project, results, &[&["--workspace"], &in_qemu[..]].concat(), "")?;
    let parts = ["-p", "gzvm-device-test", "-p", "gzvm-vmm-test", "--lib"];
    cargo_test(project, results, &parts, " of the tests' parts")?;
    cargo_test(project, results, TEST_HYPERVISOR, " with test hooks")
}

/// The hypervisor has parts that only test builds have.
const TEST_HYPERVISOR: &[&str] = &["-p", "refhyp", "--lib", "--features", "test-hooks"];

/// Rules that need no compiler.
fn form(project: &Project) -> Result<Suite> {
    let started = Instant::now();
    let sources = source::all(&project.top)?;
    let cases = [
        ("licence lines", source::licence_errors(&sources)),
        ("every file has a licence", reuse::errors(&sources)),
        ("reasons for unsafe", source::safety_errors(&sources)),
        ("unsafe only in driver/kx", source::confinement_errors(&sources)),
        ("docs/weaknesses.md is true", weaknesses::errors(&sources)),
    ];
    let mut cases = Vec::from(cases.map(|(name, errors)| case(name, &errors.join("\n"))));
    let book = book::checks(&sources).map(|(name, errors)| case(name, &errors.join("\n")));
    cases.extend(book);
    cases.extend(soong::cases(&project.top, &sources)?);
    cases.extend(sepolicy::cases(project));
    Ok(suite("form", cases, String::new(), started.elapsed()))
}

fn case(name: &str, error: &str) -> Case {
    let outcome = if error.is_empty() { Outcome::Passed } else { Outcome::Failed };
    Case { name: name.to_owned(), outcome, detail: error.to_owned() }
}

fn suite(name: &str, cases: Vec<Case>, output: String, time: Duration) -> Suite {
    Suite { name: name.to_owned(), cases, output, time }
}

/// rustfmt, Clippy, rustdoc: skipped, and said so, where the tool is missing.
fn lints(project: &Project) -> Result<Suite> {
    let started = Instant::now();
    let cases = vec![
        tool(project, "fmt", &["fmt", "--version"], &["fmt", "--all", "--check"])?,
        tool(
            project,
            "clippy",
            &["clippy", "--version"],
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        )?,
        tool(
            project,
            "clippy with test hooks",
            &["clippy", "--version"],
            &[&["clippy", "--all-targets"], TEST_HYPERVISOR, &["--", "-D", "warnings"]].concat(),
        )?,
        tool(
            project,
            "doc",
            &["--version"],
            &["doc", "--workspace", "--no-deps", "--document-private-items"],
        )?,
    ];
    Ok(suite("lints", cases, String::new(), started.elapsed()))
}

/// One of Cargo's tools on the packages that are built for this machine.
fn tool(project: &Project, name: &str, probe: &[&str], args: &[&str]) -> Result<Case> {
    interrupt::check()?;
    if process::output(Command::new("cargo").current_dir(&project.top).args(probe)).is_err() {
        let detail = format!("cargo {name} is not installed");
        eprintln!("lints       {detail}: skipped");
        return Ok(Case { name: name.to_owned(), outcome: Outcome::Skipped, detail });
    }
    let mut command = Command::new("cargo");
    command.current_dir(&project.top).args(args).env("RUSTDOCFLAGS", "-D warnings");
    let mut step = Step::start(name);
    let log = project.log(&format!("cargo-{}", name.replace(' ', "-")));
    let done = process::logged(&mut command, &log, |line| step.update(line.trim()));
    step.done("");
    interrupt::check()?;
    Ok(case(name, &done.err().map_or_else(String::new, |error| format!("{error:#}"))))
}

/// `cargo test` for packages that are built for this machine: one suite per test program. `what`
/// tells its runs apart.
fn cargo_test(
    project: &Project,
    results: &mut Results,
    packages: &[&str],
    what: &str,
) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(&project.top).args(["test", "--no-fail-fast", "--color=never"]);
    command.args(packages);
    let mut split = Splitter::default();
    let name = format!("cargo test{what}");
    let mut step = Step::start(&name);
    let log = project.log(&name.replace(' ', "-"));
    let done = process::logged(&mut command, &log, |line| {
        step.update(line.trim());
        split.line(line);
    });
    step.done("");
    interrupt::check()?;
    let suites = split.finish();
    let explained =
        suites.iter().any(|suite| suite.cases.iter().any(|case| case.outcome == Outcome::Failed));
    for suite in suites {
        results.add(Suite { name: format!("{}{what}", suite.name), ..suite });
    }
    if let Err(error) = done {
        // Cargo fails when a test does; without one it is the build that failed.
        if !explained {
            results.add(Suite::failed(&name, "builds", &format!("{error:#}")));
        }
    }
    Ok(())
}

/// Splits the output of `cargo test` into test programs.
#[derive(Default)]
struct Splitter {
    done: Vec<Suite>,
    current: Option<(String, Parser, Vec<String>, Instant)>,
}

impl Splitter {
    fn line(&mut self, line: &str) {
        if let Some(name) = program_name(line) {
            self.close();
            self.current = Some((name, Parser::default(), Vec::new(), Instant::now()));
        } else if let Some((_, parser, lines, _)) = &mut self.current {
            parser.line(line);
            lines.push(line.to_owned());
        }
    }

    fn close(&mut self) {
        if let Some((name, parser, lines, started)) = self.current.take() {
            // A crash shows as a missing result; the status is Cargo's to tell.
            let cases = parser.finish(Exit::Status(0));
            if !cases.is_empty() {
                self.done.push(suite(&name, cases, lines.join("\n"), started.elapsed()));
            }
        }
    }

    fn finish(mut self) -> Vec<Suite> {
        self.close();
        self.done
    }
}

/// `     Running unittests src/lib.rs (target/debug/deps/gzvm_abi-0123456789abcdef)` and
/// `   Doc-tests gzvm_abi`.
fn program_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} (documentation)"));
    }
    let (what, file) = line.strip_prefix("Running ")?.split_once(" (")?;
    let file = file.strip_suffix(')')?.rsplit('/').next()?;
    let name = file.rsplit_once('-')?.0;
    let unit = what.starts_with("unittests");
    Some(if unit { name.to_owned() } else { format!("{name} ({what})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_output_is_split_by_program() {
        let text =
            "   Compiling x\n     Running unittests src/lib.rs (target/debug/deps/a_b-0f1e)\n\
            running 1 test\ntest one ... ok\n\
            test result: ok. 1 passed; 0 failed\n\
            \x20    Running tests/prop.rs (/t/debug/deps/prop-0f1e)\n\
            running 1 test\ntest two ... FAILED\n\
            \x20  Doc-tests a_b\nrunning 0 tests\n";
        let mut split = Splitter::default();
        text.lines().for_each(|line| split.line(line));
        let suites = split.finish();
        let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["a_b", "prop (tests/prop.rs)"]);
        assert_eq!(suites[0].cases[0].outcome, Outcome::Passed);
        assert_eq!(suites[1].cases[0].outcome, Outcome::Failed);
    }

    #[test]
    fn a_crashed_program_does_not_pass() {
        let mut split = Splitter::default();
        for line in ["Running unittests src/lib.rs (t/a-0f)", "running 2 tests", "test a ... ok"] {
            split.line(line);
        }
        let cases = &split.finish()[0].cases;
        assert!(cases.iter().any(|case| case.outcome == Outcome::Failed));
    }

    #[test]
    fn the_project_follows_its_own_rules() {
        // The negative cases are beside the rules; here the tool itself must find files at all.
        let top = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let sources = source::all(top.as_ref()).unwrap();
        assert!(sources.iter().any(|source| source.path == "tests/harness/src/checks.rs"));
    }
}
