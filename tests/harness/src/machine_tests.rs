// SPDX-License-Identifier: Apache-2.0
//! Tests in QEMU: the hypervisor's self-test, the device tests in both modes, the demo's claims.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::boot::{self, Options};
use crate::layout;
use crate::libtest::{Case, Exit, Outcome, Parser, KTAP_START};
use crate::parts::{self, Parts};
use crate::project::Project;
use crate::qemu::{Limits, Run};
use crate::report::{Results, Suite};

/// Seconds for one boot with all device tests, and without a word on the console.
const DEVICE_LIMITS: (u64, u64) = (1800, 180);
/// The same for the hypervisor's self-test.
const SELFTEST_LIMITS: (u64, u64) = (300, 60);

/// All of them.
///
/// # Errors
///
/// When something cannot be built or the user interrupts; failures are among the results.
pub fn all(project: &Project, results: &mut Results) -> Result<()> {
    let parts = parts::build(project)?;
    layout_suite(project, &parts, results);
    let selftest = machine(&parts, true);
    boot_tests(project, &selftest, "selftest", "refhyp.selftest", SELFTEST_LIMITS, results)?;
    let device = "loglevel=5 gzvm.mode=test";
    boot_tests(project, &machine(&parts, true), "default", device, DEVICE_LIMITS, results)?;
    let strict = format!("{device} refhyp.strict");
    boot_tests(project, &machine(&parts, false), "strict", &strict, DEVICE_LIMITS, results)?;
    let absent = format!("{device} gzvm.tests=absent");
    let mut bare = machine(&parts, false);
    bare.options.no_hypervisor = true;
    boot_tests(project, &bare, "no EL2", &absent, DEVICE_LIMITS, results)?;
    demo(project, &parts, results)
}

/// One test program in the default machine.
///
/// # Errors
///
/// As for [`all`].
pub fn one(
    project: &Project,
    suite: &str,
    filter: Option<String>,
    results: &mut Results,
) -> Result<()> {
    let parts = parts::build(project)?;
    let filter = filter.map_or_else(String::new, |filter| format!(" gzvm.filter={filter}"));
    let words = format!("loglevel=5 gzvm.mode=test gzvm.suite={suite}{filter}");
    boot_tests(project, &machine(&parts, true), "default", &words, DEVICE_LIMITS, results)
}

struct Config<'a> {
    parts: &'a Parts,
    options: Options,
}

fn machine(parts: &Parts, test_hypervisor: bool) -> Config<'_> {
    let options = Options {
        // The least that is supported: what fits here fits everywhere.
        memory: 2048,
        cpus: 4,
        cpu: "cortex-a76".to_owned(),
        no_hypervisor: false,
        test_hypervisor,
        append: String::new(),
        qemu: Vec::new(),
    };
    Config { parts, options }
}

/// Boots and turns what the console shows between the markers into suites.
fn boot_tests(
    project: &Project,
    config: &Config,
    name: &str,
    words: &str,
    limits: (u64, u64),
    results: &mut Results,
) -> Result<()> {
    let machine = config.options.machine(config.parts, words);
    let started = Instant::now();
    let limits = Limits::seconds(limits.0, limits.1);
    let mut step = crate::ui::Step::start(&format!("qemu {name}"));
    let log = project.log(&format!("qemu-{}", name.replace(' ', "-")));
    let run = machine.run(&log, limits, |line| step.update(line))?;
    step.done("");
    for suite in suites(name, &run, started.elapsed()) {
        results.add(suite);
    }
    Ok(())
}

/// The suites of a run, and one for the machine itself.
fn suites(name: &str, run: &Run, time: Duration) -> Vec<Suite> {
    let mut suites = Vec::new();
    let mut current: Option<(String, Parser, Vec<String>)> = None;
    let (mut all_done, mut alone) = (false, false);
    let mut close = |current: &mut Option<(String, Parser, Vec<String>)>, exit| {
        if let Some((suite, parser, lines)) = current.take() {
            suites.push(Suite {
                name: format!("{name}: {suite}"),
                cases: parser.finish(exit),
                output: lines.join("\n"),
                time: Duration::ZERO,
            });
        }
    };
    for line in &run.lines {
        match marker(line) {
            Some(Marker::Begin(suite)) => {
                close(&mut current, Exit::Unknown);
                current = Some((suite.to_owned(), Parser::default(), Vec::new()));
            }
            Some(Marker::End(status)) => close(&mut current, Exit::Status(status)),
            Some(Marker::AllDone) => all_done = true,
            None if current.is_none() && line.starts_with(KTAP_START) => {
                // The hypervisor's self-test has no init around it: all that follows is its.
                let mut parser = Parser::default();
                parser.line(line);
                current = Some(("refhyp".to_owned(), parser, Vec::new()));
                alone = true;
            }
            None => {
                if let Some((_, parser, lines)) = &mut current {
                    parser.line(line);
                    lines.push(line.clone());
                }
            }
        }
    }
    // A machine that went off by itself ended its self-test; the plan tells if that was all.
    let ended = alone && run.problems.is_empty();
    close(&mut current, if ended { Exit::Status(0) } else { Exit::Unknown });
    let mut problems = run.problems.clone();
    if !all_done && !alone {
        problems.push("the test programs did not all run: ##all-done is missing".to_owned());
    }
    if suites.is_empty() {
        problems.push("no test program ran".to_owned());
    }
    suites.push(Suite {
        name: format!("{name}: machine"),
        cases: vec![Case {
            name: "host stays healthy and powers off".to_owned(),
            outcome: if problems.is_empty() { Outcome::Passed } else { Outcome::Failed },
            detail: problems.join("\n"),
        }],
        output: run.lines.join("\n"),
        time,
    });
    suites
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

fn layout_suite(project: &Project, parts: &Parts, results: &mut Results) {
    let started = Instant::now();
    let checked = layout::check(project, &parts.kernel);
    let error = checked.err().map_or_else(String::new, |error| format!("{error:#}"));
    results.add(Suite {
        name: "kernel".to_owned(),
        cases: vec![Case {
            name: "C and Rust agree on the layout of structures".to_owned(),
            outcome: if error.is_empty() { Outcome::Passed } else { Outcome::Failed },
            detail: error,
        }],
        output: String::new(),
        time: started.elapsed(),
    });
}

/// The demo as `make run` boots it, with each of its claims as a test.
fn demo(project: &Project, parts: &Parts, results: &mut Results) -> Result<()> {
    let mut config = machine(parts, false);
    config.options.memory = 4096;
    let machine = config.options.machine(parts, "quiet gzvm.mode=run");
    let started = Instant::now();
    let mut step = crate::ui::Step::start("qemu demo");
    let log = project.log("qemu-demo");
    let run = machine.run(&log, Limits::seconds(600, 120), |line| step.update(line))?;
    step.done("");
    let mut cases = claims(&run.lines);
    let judged = boot::judge_demo(&run).err().map(|error| format!("{error:#}"));
    cases.push(Case {
        name: "all claims happened".to_owned(),
        outcome: if judged.is_none() { Outcome::Passed } else { Outcome::Failed },
        detail: judged.unwrap_or_default(),
    });
    let output = run.lines.join("\n");
    results.add(Suite { name: "demo".to_owned(), cases, output, time: started.elapsed() });
    Ok(())
}

/// `##demo-claim NAME ok|failed why`.
fn claims(lines: &[String]) -> Vec<Case> {
    let claim = |line: &String| {
        let (name, rest) = line.trim_end().strip_prefix("##demo-claim ")?.split_once(' ')?;
        let (verdict, why) = rest.split_once(' ').unwrap_or((rest, ""));
        let outcome = if verdict == "ok" { Outcome::Passed } else { Outcome::Failed };
        Some(Case { name: name.to_owned(), outcome, detail: why.to_owned() })
    };
    lines.iter().filter_map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, problems: &[&str]) -> Run {
        Run {
            lines: text.lines().map(str::to_owned).collect(),
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

    #[test]
    fn claims_of_the_demo_are_tests() {
        let text = "##demo-claim isolation ok\n##demo-claim payload failed no reveal\nx";
        let cases = claims(&run(text, &[]).lines);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!((cases[1].outcome, cases[1].detail.as_str()), (Outcome::Failed, "no reveal"));
    }
}
