// SPDX-License-Identifier: Apache-2.0
//! Results of a whole run: a line per suite, what failed, JUnit XML, and the totals.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::libtest::{Case, Outcome};
use crate::ui::human;

/// Lines of a suite's output that are shown when something in it failed.
const SHOWN: usize = 60;

/// The results of one program, check or machine.
pub struct Suite {
    /// Its name, unique in a run.
    pub name: String,
    /// What it tested.
    pub cases: Vec<Case>,
    /// All that it printed.
    pub output: String,
    /// How long it took.
    pub time: Duration,
}

impl Suite {
    /// A suite whose only test failed.
    pub fn failed(suite: &str, case: &str, detail: &str) -> Self {
        Self {
            name: suite.to_owned(),
            cases: vec![Case::failed(case, detail)],
            output: String::new(),
            time: Duration::ZERO,
        }
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|case| case.outcome == outcome).count()
    }
}

/// All results of a run.
#[derive(Default)]
pub struct Results {
    suites: Vec<Suite>,
}

impl Results {
    /// Adds a suite and shows how it went.
    pub fn add(&mut self, suite: Suite) {
        let counts = counts(&suite);
        eprintln!("{:<11} {counts} ({})", suite.name, human(suite.time));
        for case in suite.cases.iter().filter(|case| case.outcome == Outcome::Failed) {
            eprintln!("  FAILED: {}: {}", suite.name, case.name);
            case.detail.lines().for_each(|line| eprintln!("    | {line}"));
        }
        if suite.count(Outcome::Failed) > 0 && !suite.output.is_empty() {
            let lines: Vec<_> = suite.output.lines().collect();
            eprintln!("  last lines of {}:", suite.name);
            let start = lines.len().saturating_sub(SHOWN);
            lines[start..].iter().for_each(|line| eprintln!("  | {line}"));
        }
        self.suites.push(suite);
    }

    fn total(&self, outcome: Outcome) -> usize {
        self.suites.iter().map(|suite| suite.count(outcome)).sum()
    }

    /// Whether nothing failed, and something was tested at all.
    pub fn good(&self) -> bool {
        self.total(Outcome::Failed) == 0 && self.total(Outcome::Passed) > 0
    }

    /// The line that ends a run.
    pub fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.total(Outcome::Passed),
            self.total(Outcome::Failed),
            self.total(Outcome::Skipped)
        )
    }

    /// Writes `<dir>/<name>.xml` in JUnit's format.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write_junit(&self, dir: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join(format!("{name}.xml"));
        let xml = self.junit(name).to_string()?;
        fs::write(&path, xml).with_context(|| format!("cannot write {}", path.display()))
    }

    fn junit(&self, name: &str) -> Report {
        let mut report = Report::new(name);
        for suite in &self.suites {
            let mut xml = TestSuite::new(suite.name.as_str());
            xml.set_time(suite.time);
            xml.set_system_out(suite.output.as_str());
            for case in &suite.cases {
                let status = match case.outcome {
                    Outcome::Passed => TestCaseStatus::success(),
                    Outcome::Skipped => TestCaseStatus::skipped(),
                    Outcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
                };
                let mut xml_case = TestCase::new(case.name.as_str(), status);
                xml_case.set_classname(suite.name.as_str());
                if !case.detail.is_empty() {
                    let first = case.detail.lines().next().unwrap_or_default();
                    xml_case.status.set_message(first).set_description(case.detail.as_str());
                }
                xml.add_test_case(xml_case);
            }
            report.add_test_suite(xml);
        }
        report
    }
}

fn counts(suite: &Suite) -> String {
    let part = |outcome, what: &str| match suite.count(outcome) {
        0 => String::new(),
        count => format!(", {count} {what}"),
    };
    let passed = suite.count(Outcome::Passed);
    format!(
        "{passed} passed{}{}",
        part(Outcome::Failed, "FAILED"),
        part(Outcome::Skipped, "skipped")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let case = |name: &str, outcome, detail: &str| Case {
            name: name.to_owned(),
            outcome,
            detail: detail.to_owned(),
        };
        let mut results = Results::default();
        results.suites.push(Suite {
            name: "device".to_owned(),
            cases: vec![
                case("a", Outcome::Passed, ""),
                case("b", Outcome::Failed, "left <> right\nat line 3"),
                case("c", Outcome::Skipped, "needs a phone"),
            ],
            output: "\u{1b}[1mconsole & more".to_owned(),
            time: Duration::from_millis(1500),
        });
        results
    }

    #[test]
    fn totals_are_over_all_suites() {
        let mut results = results();
        assert_eq!(results.summary(), "1 passed, 1 failed, 1 skipped");
        assert!(!results.good());
        results.suites[0].cases.remove(1);
        assert!(results.good());
        results.suites.clear();
        assert!(!results.good(), "a run without tests is not a good one");
    }

    #[test]
    fn junit_is_well_formed() {
        let xml = results().junit("gzvm").to_string().unwrap();
        for part in [
            "<testsuites name=\"gzvm\" tests=\"3\" failures=\"1\" errors=\"0\"",
            "<testsuite name=\"device\" tests=\"3\" disabled=\"1\" errors=\"0\" failures=\"1\"",
            "<testcase name=\"a\" classname=\"device\"",
            "<failure message=\"left &lt;&gt; right\"",
            "<skipped message=\"needs a phone\"",
            "console &amp; more",
        ] {
            assert!(xml.contains(part), "no {part} in {xml}");
        }
        assert!(!xml.contains('\u{1b}'));
    }
}
