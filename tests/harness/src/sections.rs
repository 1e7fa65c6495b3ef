// SPDX-License-Identifier: Apache-2.0
//! Splits the console of a test machine into test programs: what lies between `##suite-begin NAME`
//! and `##suite-end NAME rc=N`, or all that follows KTAP's first line.

use std::time::Duration;

use crate::libtest::{Case, Exit, Outcome, Parser, KTAP_START};
use crate::qemu::Run;
use crate::report::Suite;

/// The machine's own test.
pub const HEALTH: &str = "host stays healthy and powers off";

/// The suites of a run, and one for the machine itself.
pub fn suites(name: &str, run: &Run, time: Duration) -> Vec<Suite> {
    let mut sections = Sections { prefix: name, ..Sections::default() };
    let mut now = Duration::ZERO;
    for (index, line) in run.lines.iter().enumerate() {
        now = run.times.get(index).copied().unwrap_or(now);
        sections.line(line, now);
    }
    // A machine that went off by itself ended its self-test; the plan tells if that was all.
    let ended = sections.alone && run.problems.is_empty();
    sections.close(if ended { Exit::Status(0) } else { Exit::Unknown }, now);
    let mut problems = run.problems.clone();
    if !sections.all_done && !sections.alone {
        problems.push("the test programs did not all run: ##all-done is missing".to_owned());
    }
    if sections.done.is_empty() {
        problems.push("no test program ran".to_owned());
    }
    let outcome = if problems.is_empty() { Outcome::Passed } else { Outcome::Failed };
    let name = HEALTH.to_owned();
    sections.done.push(Suite {
        name: format!("{}: machine", sections.prefix),
        cases: vec![Case { name, outcome, detail: problems.join("\n") }],
        output: run.lines.join("\n"),
        time,
    });
    sections.done
}

struct Section {
    name: String,
    parser: Parser,
    lines: Vec<String>,
    began: Duration,
}

#[derive(Default)]
struct Sections<'a> {
    prefix: &'a str,
    current: Option<Section>,
    done: Vec<Suite>,
    /// The machine's init ran all programs.
    all_done: bool,
    /// A self-test that has no init around it.
    alone: bool,
}

impl Sections<'_> {
    fn line(&mut self, line: &str, now: Duration) {
        match marker(line) {
            Some(Marker::Begin(name)) => self.open(name, now),
            Some(Marker::End(status)) => self.close(Exit::Status(status), now),
            Some(Marker::AllDone) => self.all_done = true,
            None => {
                if self.current.is_none() && line.starts_with(KTAP_START) {
                    self.alone = true;
                    self.open("refhyp", now);
                }
                if let Some(section) = &mut self.current {
                    section.parser.line(line);
                    section.lines.push(line.to_owned());
                }
            }
        }
    }

    fn open(&mut self, name: &str, now: Duration) {
        self.close(Exit::Unknown, now);
        let (parser, lines) = (Parser::default(), Vec::new());
        self.current = Some(Section { name: name.to_owned(), parser, lines, began: now });
    }

    fn close(&mut self, exit: Exit, now: Duration) {
        if let Some(section) = self.current.take() {
            self.done.push(Suite {
                name: format!("{}: {}", self.prefix, section.name),
                cases: section.parser.finish(exit),
                output: section.lines.join("\n"),
                time: now.saturating_sub(section.began),
            });
        }
    }
}

enum Marker<'a> {
    Begin(&'a str),
    End(i32),
    AllDone,
}

fn marker(line: &str) -> Option<Marker<'_>> {
    let line = line.trim_end();
    if line == "##all-done" {
        return Some(Marker::AllDone);
    }
    if let Some(name) = line.strip_prefix("##suite-begin ") {
        return Some(Marker::Begin(name));
    }
    let (_, status) = line.strip_prefix("##suite-end ")?.rsplit_once(" rc=")?;
    // A status that is no number is not a success.
    Some(Marker::End(status.parse().unwrap_or(-1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, problems: &[&str]) -> Run {
        Run {
            lines: text.lines().map(str::to_owned).collect(),
            times: Vec::new(),
            problems: problems.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn failed(suites: &[Suite]) -> Vec<String> {
        let cases = suites.iter().flat_map(|suite| {
            suite.cases.iter().map(move |case| (format!("{}: {}", suite.name, case.name), case))
        });
        cases.filter(|(_, case)| case.outcome == Outcome::Failed).map(|(name, _)| name).collect()
    }

    const GOOD: &str = "booting\n##suite-begin vm\nrunning 1 test\ntest create ... ok\n\
        ##suite-end vm rc=0\n##suite-begin irq\nrunning 1 test\ntest line ... ok\n\
        ##suite-end irq rc=0\n##all-done\n";

    #[test]
    fn suites_lie_between_their_markers() {
        let suites = suites("strict", &run(GOOD, &[]), Duration::ZERO);
        let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["strict: vm", "strict: irq", "strict: machine"]);
        assert!(failed(&suites).is_empty());
    }

    #[test]
    fn a_suite_has_its_own_time() {
        let mut run = run(GOOD, &[]);
        run.times = (0..).map(Duration::from_secs).take(run.lines.len()).collect();
        let suites = suites("d", &run, Duration::from_secs(60));
        let times: Vec<_> = suites.iter().map(|suite| suite.time.as_secs()).collect();
        assert_eq!(times, [3, 3, 60]);
    }

    #[test]
    fn a_machine_that_dies_fails_the_test_that_ran() {
        let text = "##suite-begin vm\nrunning 2 tests\ntest a ... ok\ntest b ... \n";
        let suites = suites("d", &run(text, &["the host's console says: panic"]), Duration::ZERO);
        let machine = "d: machine: host stays healthy and powers off";
        assert_eq!(failed(&suites), ["d: vm: b", "d: vm: (ends)", machine]);
        assert!(suites[1].cases[0].detail.contains("panic"));
    }

    #[test]
    fn a_kernel_warning_fails_a_run_whose_tests_pass() {
        let suites = suites("d", &run(GOOD, &["WARNING"]), Duration::ZERO);
        assert_eq!(failed(&suites), ["d: machine: host stays healthy and powers off"]);
    }

    #[test]
    fn a_boot_without_tests_fails() {
        assert_eq!(failed(&suites("d", &run("##all-done\n", &[]), Duration::ZERO)).len(), 1);
        assert_eq!(failed(&suites("d", &run("boot\n", &[]), Duration::ZERO)).len(), 1);
    }

    #[test]
    fn the_self_test_needs_no_markers() {
        let text = "refhyp: EL2\nKTAP version 1\nok 1 probe\nok 2 donate\n1..2\n";
        let good = suites("selftest", &run(text, &[]), Duration::ZERO);
        assert!(failed(&good).is_empty());
        assert_eq!(good[0].cases.len(), 2);
        let cut = suites("s", &run("KTAP version 1\nok 1 probe\n", &[]), Duration::ZERO);
        assert_eq!(failed(&cut), ["s: refhyp: (all results)"]);
        assert_eq!(failed(&suites("s", &run(text, &["killed"]), Duration::ZERO)).len(), 2);
    }
}
