// SPDX-License-Identifier: Apache-2.0
//! Test results from lines of text: libtest's (`test a::b ... ok`) and KTAP's (`ok 1 a`).

/// The first line of KTAP.
pub const KTAP_START: &str = "KTAP version 1";

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed,
    /// It did not run.
    Skipped,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name within its suite.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed or was skipped, as far as the test said.
    pub detail: String,
}

impl Case {
    /// A test that failed, and why.
    pub fn failed(name: &str, detail: &str) -> Self {
        Self { name: name.to_owned(), outcome: Outcome::Failed, detail: detail.to_owned() }
    }
}

/// Reads the output of one test program, line by line.
#[derive(Default)]
pub struct Parser {
    cases: Vec<Case>,
    /// A test whose result has not come yet: its own output may stand in between.
    pending: Option<String>,
    /// The failed test whose captured output is being printed.
    section: Option<usize>,
    announced: Option<usize>,
    /// KTAP promises a plan.
    ktap: bool,
    /// The group of tests whose indented KTAP comes now.
    subtest: Option<String>,
}

impl Parser {
    /// Takes the next line.
    pub fn line(&mut self, line: &str) {
        if self.summary(line) || self.section(line) {
            return;
        }
        if let Some((name, rest)) = test_line(line) {
            if let Some(lost) = self.pending.take() {
                self.cases.push(Case::failed(&lost, "it never reported a result"));
            }
            match outcome(rest) {
                Some((outcome, detail)) => self.push(name, outcome, detail),
                None => self.pending = Some(name.to_owned()),
            }
        } else if let Some(name) = line.trim_start().strip_prefix("# Subtest: ") {
            self.subtest = Some(name.trim_end().to_owned());
        } else if let Some((name, outcome, detail)) = ktap_line(line) {
            match &self.subtest {
                Some(group) if line.starts_with(' ') => {
                    self.push(&format!("{group}::{name}"), outcome, detail);
                }
                _ => self.push(name, outcome, detail),
            }
        } else if let Some((outcome, detail)) = self.pending.as_ref().and_then(|_| outcome(line)) {
            if let Some(name) = self.pending.take() {
                self.push(&name, outcome, detail);
            }
        }
    }

    fn push(&mut self, name: &str, outcome: Outcome, detail: &str) {
        self.cases.push(Case { name: name.to_owned(), outcome, detail: detail.to_owned() });
    }

    /// `test result: ok. 2 passed; 0 failed; 1 ignored; ...`, `running 3 tests`, KTAP's `1..3`.
    fn summary(&mut self, line: &str) -> bool {
        if line.starts_with("test result: ") {
            self.section = None;
            return true;
        }
        if line.starts_with(KTAP_START) {
            self.ktap = true;
            return true;
        }
        if let Some(Ok(count)) = line.trim().strip_prefix("1..").map(str::parse::<usize>) {
            *self.announced.get_or_insert(0) += count;
            return true;
        }
        let count = line.strip_prefix("running ").and_then(|rest| rest.split_once(" test"));
        if let Some((count, "" | "s")) = count {
            if let Ok(count) = count.parse::<usize>() {
                *self.announced.get_or_insert(0) += count;
                return true;
            }
        }
        false
    }

    /// `---- a::b stdout ----` and the lines after it.
    fn section(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            let name = name.strip_suffix(" stdout").unwrap_or(name);
            let failed = |case: &Case| case.name == name && case.outcome == Outcome::Failed;
            self.section = self.cases.iter().rposition(failed);
            return true;
        }
        if line == "failures:" {
            self.section = None;
        }
        let Some(case) = self.section.and_then(|index| self.cases.get_mut(index)) else {
            return false;
        };
        if !(line.is_empty() && case.detail.is_empty()) {
            case.detail.push_str(line);
            case.detail.push('\n');
        }
        true
    }

    /// The results. A test without a result, a number of results that is not the announced one,
    /// and a bad exit status that no failed test explains are failures of their own.
    pub fn finish(mut self, exit: Exit) -> Vec<Case> {
        if let Some(name) = self.pending.take() {
            self.cases.push(Case::failed(&name, "it never reported a result"));
        }
        let failed = self.cases.iter().any(|case| case.outcome == Outcome::Failed);
        let got = self.cases.len();
        match (exit, self.announced) {
            (Exit::Unknown, _) => {
                self.cases.push(Case::failed("(ends)", "the program did not end by itself"));
            }
            (Exit::Status(status), _) if status != 0 && !failed => {
                let text = format!("exit status {status}, though no test failed");
                self.cases.push(Case::failed("(exit status)", &text));
            }
            (Exit::Status(_), Some(want)) if want != got => {
                let text = format!("{want} tests were announced, {got} results were seen");
                self.cases.push(Case::failed("(all results)", &text));
            }
            (Exit::Status(_), None) if self.ktap => {
                self.cases.push(Case::failed("(all results)", "KTAP's plan is missing"));
            }
            (Exit::Status(_), None) if got == 0 => {
                self.cases.push(Case::failed("(has tests)", "the program reported no test at all"));
            }
            (Exit::Status(_), _) => {}
        }
        self.cases
    }
}

/// How a test program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// It was killed, or the machine died.
    Unknown,
}

fn test_line(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ").or_else(|| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ...")?;
        Some((name, ""))
    })?;
    // rustdoc adds ` - compile`, libtest ` - should panic`.
    Some((name.strip_suffix(" - should panic").unwrap_or(name), rest.trim()))
}

fn outcome(text: &str) -> Option<(Outcome, &str)> {
    // `ok <0.001s>` with --report-time; `ok[   60.966505] ...` when the kernel logs right behind.
    let word = text.split([' ', ',', '[']).next()?;
    let detail = text.get(word.len()..)?.trim_start_matches([',', ' ']);
    match word {
        "ok" => Some((Outcome::Passed, "")),
        "FAILED" => Some((Outcome::Failed, detail)),
        "ignored" => Some((Outcome::Skipped, detail)),
        _ => None,
    }
}

fn ktap_line(line: &str) -> Option<(&str, Outcome, &str)> {
    let line = line.trim_start();
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let name = name.trim_start_matches("- ").trim();
    let outcome = match (passed, directive.starts_with("SKIP")) {
        (_, true) => Outcome::Skipped,
        (true, false) => Outcome::Passed,
        (false, false) => Outcome::Failed,
    };
    Some((name, outcome, directive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_may_follow_a_result() {
        let mut parser = Parser::default();
        parser.line("running 2 tests");
        parser.line("test a ... ok[   60.966505] debugfs: out of free dentries");
        parser.line("test b ... [    1.000000] gzvm: refused");
        parser.line("FAILED[   61.0] x");
        let outcomes: Vec<_> =
            parser.finish(Exit::Status(101)).into_iter().map(|case| case.outcome).collect();
        assert_eq!(outcomes, [Outcome::Passed, Outcome::Failed]);
    }

    fn parse(text: &str, exit: Exit) -> Vec<Case> {
        let mut parser = Parser::default();
        text.lines().for_each(|line| parser.line(line));
        parser.finish(exit)
    }

    fn brief(cases: &[Case]) -> Vec<(&str, Outcome)> {
        cases.iter().map(|case| (case.name.as_str(), case.outcome)).collect()
    }

    #[test]
    fn libtest_s_output_is_understood() {
        let text = "\nrunning 4 tests\ntest a::b ... ok\ntest c ... FAILED\n\
            test d ... ignored, needs a phone\ntest e - should panic ... ok\n\nfailures:\n\n\
            ---- c stdout ----\n\nthread 'c' panicked at x.rs:1:1:\nleft != right\n\n\n\
            failures:\n    c\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored\n";
        let cases = parse(text, Exit::Status(101));
        let want = [
            ("a::b", Outcome::Passed),
            ("c", Outcome::Failed),
            ("d", Outcome::Skipped),
            ("e", Outcome::Passed),
        ];
        assert_eq!(brief(&cases), want);
        assert!(cases[1].detail.starts_with("thread 'c' panicked at x.rs:1:1:\nleft != right"));
        assert!(!cases[1].detail.contains("failures:"));
        assert_eq!(cases[2].detail, "needs a phone");
    }

    #[test]
    fn output_of_a_test_may_stand_before_its_result() {
        let cases =
            parse("running 2 tests\ntest a ... hello\nok\ntest b ... \nok\n", Exit::Status(0));
        assert_eq!(brief(&cases), [("a", Outcome::Passed), ("b", Outcome::Passed)]);
    }

    #[test]
    fn ktap_is_understood() {
        let text =
            "KTAP version 1\n1..3\n    ok 1 - inner\nnot ok 2 b # timeout\nok 3 c # SKIP no GIC\n\
                    ok computer\n";
        let cases = parse(text, Exit::Status(1));
        let want = [("inner", Outcome::Passed), ("b", Outcome::Failed), ("c", Outcome::Skipped)];
        assert_eq!(brief(&cases), want);
        assert_eq!(
            (cases[1].detail.as_str(), cases[2].detail.as_str()),
            ("timeout", "SKIP no GIC")
        );
    }

    #[test]
    fn tests_of_kunit_are_named_after_their_suites() {
        let text = "KTAP version 1\n1..2\n    KTAP version 1\n    # Subtest: rust_slots\n\
            \x20   1..2\n    ok 1 first\n    # second: ASSERTION FAILED at x.rs:1\n\
            \x20   not ok 2 second\n# rust_slots: pass:1 fail:1 skip:0 total:2\n\
            not ok 1 rust_slots\n    KTAP version 1\n    # Subtest: rust_irq\n    1..1\n\
            \x20   ok 1 first\nok 2 rust_irq\n";
        let cases = parse(text, Exit::Status(0));
        let want = [
            ("rust_slots::first", Outcome::Passed),
            ("rust_slots::second", Outcome::Failed),
            ("rust_slots", Outcome::Failed),
            ("rust_irq::first", Outcome::Passed),
            ("rust_irq", Outcome::Passed),
        ];
        assert_eq!(brief(&cases), want);
    }

    #[test]
    fn ktap_without_its_whole_plan_fails() {
        let want = [("a", Outcome::Passed), ("(all results)", Outcome::Failed)];
        for text in ["KTAP version 1\nok 1 a\n", "KTAP version 1\nok 1 a\n1..2\n"] {
            assert_eq!(brief(&parse(text, Exit::Status(0))), want);
        }
        assert_eq!(parse("KTAP version 1\nok 1 a\n1..1\n", Exit::Status(0)).len(), 1);
    }

    #[test]
    fn what_is_missing_fails() {
        let names = |text, exit| {
            let cases = parse(text, exit);
            let failed = cases.iter().filter(|case| case.outcome == Outcome::Failed);
            failed.map(|case| case.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("running 1 test\ntest a ... ok\n", Exit::Unknown), ["(ends)"]);
        assert_eq!(names("running 1 test\ntest a ... \n", Exit::Unknown), ["a", "(ends)"]);
        assert_eq!(names("running 1 test\ntest a ... ok\n", Exit::Status(3)), ["(exit status)"]);
        assert_eq!(names("running 2 tests\ntest a ... ok\n", Exit::Status(0)), ["(all results)"]);
        assert_eq!(names("nothing\n", Exit::Status(0)), ["(has tests)"]);
        assert!(names("running 0 tests\n", Exit::Status(0)).is_empty());
        assert!(names("running 1 test\ntest a ... ok\n", Exit::Status(0)).is_empty());
    }
}
