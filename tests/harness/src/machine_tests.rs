// SPDX-License-Identifier: Apache-2.0
//! Tests in QEMU: the hypervisor's self-test, the device tests in both modes, the demo's claims.

use std::time::Instant;

use anyhow::Result;

use crate::boot::{self, Options};
use crate::kernel::Variant;
use crate::layout;
use crate::libtest::{Case, Outcome};
use crate::parts::{self, Parts};
use crate::patches;
use crate::project::Project;
use crate::qemu::Limits;
use crate::report::{Results, Suite};
use crate::sections;

/// Seconds for one boot with all device tests, and without a word on the console.
const DEVICE_LIMITS: (u64, u64) = (1800, 180);
/// The same for the hypervisor's self-test.
const SELFTEST_LIMITS: (u64, u64) = (300, 60);

/// The command line for device tests.
const DEVICE: &str = "loglevel=5 gzvm.mode=test";
/// What has the kernel run the module's KUnit suites, and keep all they say.
const KUNIT: &str = "kunit.enable=1 kunit.autorun=1 log_buf_len=1M";

/// All of them.
///
/// # Errors
///
/// When something cannot be built or the user interrupts; failures are among the results.
pub fn all(project: &Project, results: &mut Results) -> Result<()> {
    let parts = parts::build(project, Variant::Usual)?;
    layout_suite(project, &parts, results);
    results.add(patches::suite(project));
    let selftest = machine(&parts, true);
    boot_tests(project, &selftest, "selftest", "refhyp.selftest", SELFTEST_LIMITS, results)?;
    let strict = "refhyp.selftest refhyp.strict";
    boot_tests(project, &selftest, "selftest strict", strict, SELFTEST_LIMITS, results)?;
    // One instruction is a nanosecond there: how long interrupts are off is exact.
    let mut measured = machine(&parts, true);
    measured.options.cpus = 1;
    measured.options.qemu = ["-icount", "shift=0"].map(str::to_owned).into();
    let measure = "refhyp.selftest refhyp.measure";
    boot_tests(project, &measured, "selftest measured", measure, SELFTEST_LIMITS, results)?;
    let device = DEVICE;
    let default = format!("{device} {KUNIT}");
    boot_tests(project, &machine(&parts, true), "default", &default, DEVICE_LIMITS, results)?;
    let strict = format!("{device} refhyp.strict");
    boot_tests(project, &machine(&parts, false), "strict", &strict, DEVICE_LIMITS, results)?;
    // The policy's tests are run by name only (`--suite selinux`) until all of them have passed.
    let kexec = format!("{device} gzvm.tests={}", parts::ALONE[0]);
    boot_tests(project, &machine(&parts, true), parts::ALONE[0], &kexec, DEVICE_LIMITS, results)?;
    liars(project, &parts, results)?;
    // Pointer authentication and the other features that the usual CPU model lacks.
    let mut max = machine(&parts, true);
    max.options.cpu = "max,pauth-impdef=on".to_owned();
    let vcpus = format!("{device} gzvm.suite=vcpus");
    boot_tests(project, &max, "cpu max", &vcpus, DEVICE_LIMITS, results)?;
    let absent = format!("{device} gzvm.tests=absent");
    let mut bare = machine(&parts, false);
    bare.options.no_hypervisor = true;
    boot_tests(project, &bare, "no EL2", &absent, DEVICE_LIMITS, results)?;
    demo(project, &parts, results)
}

/// A hypervisor that refuses what the driver asks first, and one that answers rubbish.
fn liars(project: &Project, parts: &Parts, results: &mut Results) -> Result<()> {
    for (name, faults) in [
        ("mute", "refhyp.fault=13:0:3:-24 refhyp.fault=5:0:1:-8"),
        ("liar", "refhyp.fault=13:0:3:0:lie"),
    ] {
        let words = format!("{DEVICE} gzvm.suite=probing {faults}");
        boot_tests(project, &machine(parts, true), name, &words, DEVICE_LIMITS, results)?;
    }
    Ok(())
}

/// The device tests on the kernel that finds wrong accesses and leaks, with and without extensions
/// of the hypervisor.
///
/// # Errors
///
/// As for [`all`].
pub fn debug(project: &Project, results: &mut Results) -> Result<()> {
    let parts = parts::build(project, Variant::Debug)?;
    let default = format!("{DEVICE} {KUNIT}");
    boot_tests(project, &machine(&parts, true), "debug", &default, DEVICE_LIMITS, results)?;
    let strict = format!("{DEVICE} refhyp.strict");
    boot_tests(project, &machine(&parts, false), "debug strict", &strict, DEVICE_LIMITS, results)
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
    strict: bool,
    results: &mut Results,
) -> Result<()> {
    let parts = parts::build(project, variant)?;
    let (suite, filter) = suite;
    let mut words = one_suite(suite, filter);
    if strict {
        words += " refhyp.strict";
        let machine = machine(&parts, false);
        return boot_tests(project, &machine, "strict", &words, DEVICE_LIMITS, results);
    }
    if parts::ALONE.contains(&suite) {
        words += &format!(" gzvm.tests={suite}");
    }
    let name = if variant == Variant::Debug { "debug" } else { "default" };
    boot_tests(project, &machine(&parts, true), name, &words, DEVICE_LIMITS, results)
}

/// The command line for one test program, and of that the tests with `filter` in their names.
pub fn one_suite(suite: &str, filter: Option<&str>) -> String {
    let mut words = format!("{DEVICE} gzvm.suite={suite}");
    // KUnit's suites run as the module is loaded: the kernel does the filtering.
    if suite == "kunit" {
        words += &format!(" {KUNIT}");
        words += &filter.map_or_else(String::new, |text| format!(" kunit.filter_glob=*.*{text}*"));
    } else {
        words += &filter.map_or_else(String::new, |text| format!(" gzvm.filter={text}"));
    }
    words
}

struct Config<'a> {
    parts: &'a Parts,
    options: Options,
}

fn machine(parts: &Parts, test_hypervisor: bool) -> Config<'_> {
    Config { parts, options: Options::for_tests(test_hypervisor, parts.variant) }
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
    let limits = Limits::seconds(limits.0, limits.1) * config.parts.variant.slowness();
    let mut step = crate::ui::Step::start(&format!("qemu {name}"));
    let log = project.log(&format!("qemu-{}", name.replace(' ', "-")));
    let run = machine.run(&log, limits, |line| step.update(line))?;
    step.done("");
    for suite in sections::suites(name, &run, started.elapsed()) {
        results.add(suite);
    }
    Ok(())
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
    let machine = config.options.machine(parts, "quiet gzvm.mode=run gzvm.color=no");
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

    #[test]
    fn claims_of_the_demo_are_tests() {
        let text = "##demo-claim isolation ok\n##demo-claim payload failed no reveal\nx";
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let cases = claims(&lines);
        assert_eq!(cases[0].outcome, Outcome::Passed);
        assert_eq!((cases[1].outcome, cases[1].detail.as_str()), (Outcome::Failed, "no reveal"));
    }
}
