// SPDX-License-Identifier: Apache-2.0
//! Tests in QEMU: the hypervisor's self-test, the device tests in both modes, the demo's claims.

use std::sync::{mpsc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench;
use crate::boot::{self, Options};
use crate::kernel::Variant;
use crate::layout;
use crate::libtest::{Case, Outcome};
use crate::parts::{self, Parts};
use crate::patches;
use crate::project::Project;
use crate::qemu::{Limits, Run};
use crate::report::{Results, Suite};
use crate::schemas;
use crate::sections;

/// Seconds for one boot with all device tests, and without a word on the console.
const DEVICE_LIMITS: (u64, u64) = (1800, 180);
/// The same for the hypervisor's self-test.
const SELFTEST_LIMITS: (u64, u64) = (300, 60);
/// The same for the demo.
const DEMO_LIMITS: (u64, u64) = (600, 120);
/// Machines that run at the same time, at most. Their CPUs wait for each other most of the time.
const AT_ONCE: usize = 2;

/// The command line for device tests.
pub const DEVICE: &str = "loglevel=5 gzvm.mode=test";
/// One program, on a hypervisor with this fault plan.
const PROBING: &str = "gzvm.suite=probing refhyp.fault=";
/// The name of the suite of benchmarks.
const BENCH: &str = "bench";
/// What has the kernel run the module's KUnit suites, and keep all they say.
const KUNIT: &str = "kunit.enable=1 kunit.autorun=1 log_buf_len=1M";

/// How long storms are, and what they repeat.
#[derive(Clone, Copy, Default)]
pub struct Storm {
    /// Not a sample, but all of it.
    pub full: bool,
    /// The seed that an earlier one printed.
    pub seed: Option<u64>,
}

impl Storm {
    /// Words for the command line, with a longer time limit for the program.
    fn words(self) -> String {
        let full = if self.full { " gzvm.full=1 gzvm.timeout=1700" } else { "" };
        full.to_owned() + &self.seed.map_or_else(String::new, |seed| format!(" gzvm.seed={seed}"))
    }
}

/// The program with storms.
const STORMS: &str = "gzvm.suite=vm_storm";

/// All of them.
///
/// # Errors
///
/// When something cannot be built or the user interrupts; failures are among the results.
pub fn all(project: &Project, storm: Storm, results: &mut Results) -> Result<()> {
    let parts = parts::build(project, Variant::Usual)?;
    layout_suite(project, &parts, results);
    results.add(patches::suite(project));
    results.add(schemas::suite(project));
    results.add(bench::guard(project, &parts));
    let [kexec, policy] = parts::ALONE;
    // Pointer authentication and the other features that the usual CPU model lacks.
    let mut max = machine(&parts, true);
    max.cpu = "max,pauth-impdef=on".to_owned();
    let mut bare = machine(&parts, false);
    bare.no_hypervisor = true;
    // One instruction is a nanosecond there: how long interrupts are off is exact.
    let mut measured = machine(&parts, true);
    measured.cpus = 1;
    measured.qemu = ["-icount", "shift=0"].map(str::to_owned).into();
    let mut demo = machine(&parts, false);
    demo.memory = 4096;
    let (test, user) = (machine(&parts, true), machine(&parts, false));
    let words = STORMS.to_owned() + &storm.words();
    let storms = [
        Boot::device("storms", &test, &words),
        Boot::device("storms strict", &user, &format!("{words} refhyp.strict")),
    ];
    let boots = [
        // The longest first: the others fill the time beside them.
        Boot::device("default", &test, KUNIT),
        Boot::device("strict", &user, "refhyp.strict"),
        Boot::selftest("selftest", &test, ""),
        Boot::selftest("selftest strict", &test, "refhyp.strict"),
        Boot::selftest("selftest measured", &measured, "refhyp.measure"),
        Boot::device(kexec, &test, &format!("gzvm.tests={kexec}")),
        Boot::device(policy, &test, &format!("gzvm.tests={policy}")),
        // A hypervisor that refuses what the driver asks first, and one that answers rubbish.
        Boot::device("mute", &test, &format!("{PROBING}13:0:3:-24 refhyp.fault=5:0:1:-8")),
        Boot::device("liar", &test, &format!("{PROBING}13:0:3:0:lie")),
        Boot::device("cpu max", &max, "gzvm.suite=vcpus"),
        Boot::device("no EL2", &bare, "gzvm.tests=absent"),
        Boot {
            name: "demo",
            options: &demo,
            words: "quiet gzvm.mode=run gzvm.color=no".to_owned(),
            limits: DEMO_LIMITS,
            judge: demo_suites,
        },
    ];
    boot_all(project, &parts, &boots, results)?;
    boot_all(project, &parts, if storm.full { &storms } else { &[] }, results)
}

/// The device tests on the kernel that finds wrong accesses and leaks, with and without extensions
/// of the hypervisor.
///
/// # Errors
///
/// As for [`all`].
pub fn debug(project: &Project, results: &mut Results) -> Result<()> {
    let parts = parts::build(project, Variant::Debug)?;
    let (test, user) = (machine(&parts, true), machine(&parts, false));
    let boots =
        [Boot::device("debug", &test, KUNIT), Boot::device("debug strict", &user, "refhyp.strict")];
    boot_all(project, &parts, &boots, results)
}

/// One test program, in the default machine or in that with the strict hypervisor.
///
/// # Errors
///
/// As for [`all`].
pub fn one(
    project: &Project,
    variant: Variant,
    suite: (&str, Option<&str>),
    (strict, storm): (bool, Storm),
    results: &mut Results,
) -> Result<()> {
    let parts = parts::build(project, variant)?;
    let (suite, filter) = suite;
    if suite == BENCH {
        results.add(bench::guard(project, &parts));
        return Ok(());
    }
    let mut words = one_suite(suite, filter) + &storm.words();
    let name = match (strict, variant) {
        (true, _) => "strict",
        (false, Variant::Debug) => "debug",
        (false, _) => "default",
    };
    if strict {
        words += " refhyp.strict";
    } else if parts::ALONE.contains(&suite) {
        words += &format!(" gzvm.tests={suite}");
    }
    let machine = machine(&parts, !strict);
    boot_all(project, &parts, &[Boot::device(name, &machine, &words)], results)
}

/// Words for the command line: one test program, and of that the tests with `filter` in their names.
pub fn one_suite(suite: &str, filter: Option<&str>) -> String {
    let mut words = format!("gzvm.suite={suite}");
    // KUnit's suites run as the module is loaded: the kernel does the filtering.
    if suite == "kunit" {
        words += &format!(" {KUNIT}");
        words += &filter.map_or_else(String::new, |text| format!(" kunit.filter_glob=*.*{text}*"));
    } else {
        words += &filter.map_or_else(String::new, |text| format!(" gzvm.filter={text}"));
    }
    words
}

fn machine(parts: &Parts, test_hypervisor: bool) -> Options {
    Options::for_tests(test_hypervisor, parts.variant)
}

/// A boot, and what makes suites of it.
struct Boot<'a> {
    name: &'a str,
    options: &'a Options,
    words: String,
    limits: (u64, u64),
    judge: fn(&str, &Run, Duration) -> Vec<Suite>,
}

impl<'a> Boot<'a> {
    /// Linux with device tests.
    fn device(name: &'a str, options: &'a Options, words: &str) -> Self {
        let words = format!("{DEVICE} {words}");
        Self { name, options, words, limits: DEVICE_LIMITS, judge: sections::suites }
    }

    /// The hypervisor's self-test in Linux's place.
    fn selftest(name: &'a str, options: &'a Options, words: &str) -> Self {
        let words = format!("refhyp.selftest {words}");
        Self { name, options, words, limits: SELFTEST_LIMITS, judge: sections::suites }
    }

    fn run(&self, project: &Project, parts: &Parts) -> Result<Vec<Suite>> {
        let machine = self.options.machine(parts, &self.words);
        let started = Instant::now();
        let limits = Limits::seconds(self.limits.0, self.limits.1) * parts.variant.slowness();
        let mut step = crate::ui::Step::start(&format!("qemu {}", self.name));
        let log = project.log(&format!("qemu-{}", self.name.replace(' ', "-")));
        let run = machine.run(&log, limits, |line| step.update(line))?;
        step.done("");
        Ok((self.judge)(self.name, &run, started.elapsed()))
    }
}

/// Boots all, some at the same time, in order; their suites come in the order in which they end.
fn boot_all(
    project: &Project,
    parts: &Parts,
    boots: &[Boot<'_>],
    results: &mut Results,
) -> Result<()> {
    let waiting = Mutex::new(boots.iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let (send, done) = mpsc::channel();
        for _ in 0..AT_ONCE.min(boots.len()) {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some(boot) = next() {
                    // Nobody listens any more once a boot was interrupted.
                    if send.send(boot.run(project, parts)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        for suites in done {
            suites?.into_iter().for_each(|suite| results.add(suite));
        }
        Ok(())
    })
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
fn demo_suites(name: &str, run: &Run, time: Duration) -> Vec<Suite> {
    let mut cases = claims(&run.lines);
    let judged = boot::judge_demo(run).err().map(|error| format!("{error:#}"));
    cases.push(Case {
        name: "all claims happened".to_owned(),
        outcome: if judged.is_none() { Outcome::Passed } else { Outcome::Failed },
        detail: judged.unwrap_or_default(),
    });
    vec![Suite { name: name.to_owned(), cases, output: run.lines.join("\n"), time }]
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

    #[test]
    fn claims_of_the_demo_are_tests() {
        let text = "##demo-claim isolation ok\n##demo-claim payload failed no reveal\nx";
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let cases = claims(&lines);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!((cases[1].outcome, cases[1].detail.as_str()), (Outcome::Failed, "no reveal"));
    }
}
