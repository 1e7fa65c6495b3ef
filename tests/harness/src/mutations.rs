// SPDX-License-Identifier: Apache-2.0
//! Do the tests notice what they are for? Each patch below `tests/device/mutations/` breaks the
//! driver, the hypervisor, the VMM, the services or `vm` on purpose and names the test that must then
//! fail. Its head:
//!
//! ```text
//! Fails: PROGRAM TEST       the test that must fail, unless there is a line "Says:"
//! Runs: PROGRAM TEST        the test to run, where that is another one
//! Says: TEXT                instead of a failure, the console must report a defect with this text
//! Words: WORD...            more words for the kernel's command line
//! Kernel: debug             only the kernel of `test --debug` shows it
//! Mutation: ...             what is broken, and what then goes wrong
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, Context, Result};

use crate::boot::Options;
use crate::cache;
use crate::cargo;
use crate::fetch::Fetcher;
use crate::initramfs::Archive;
use crate::kernel::Variant;
use crate::libtest::{Case, Exit, Outcome, Parser};
use crate::machine_tests;
use crate::module;
use crate::parts::{self, Parts};
use crate::process;
use crate::project::Project;
use crate::qemu::Limits;
use crate::report::{Results, Suite};
use crate::sections;
use crate::source;
use crate::toolchain;
use crate::ui::Step;

/// Program names of tests that run on this machine instead of in QEMU, and the packages.
const ON_THIS_MACHINE: &[(&str, &str)] = &[
    ("model", "gzvm-model"),
    ("rpcbinder", "rpcbinder"),
    ("virtmgr", "gzvm-virtmgr"),
    ("virtualizationservice", "gzvm-virtualizationservice"),
    ("vm", "vm"),
];
/// Seconds for one boot with one test, and without a word on the console.
const LIMITS: (u64, u64) = (300, 150);

/// A patch and what it promises.
struct Mutation {
    name: String,
    patch: PathBuf,
    promise: Promise,
}

/// The head of a patch.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    /// Program and test that fail.
    program: String,
    test: String,
    /// Program and test that are run.
    runs: (String, String),
    says: Option<String>,
    /// More words for the command line.
    words: String,
    variant: Variant,
}

impl Promise {
    fn parse(text: &str) -> Option<Self> {
        let pair = |text: &str| {
            let (program, test) = text.trim().split_once(' ')?;
            Some((program.to_owned(), test.to_owned()))
        };
        let (program, test) = pair(text.lines().next()?.strip_prefix("Fails: ")?)?;
        let head = || {
            text.lines().take_while(|line| !line.starts_with("--- ") && !line.starts_with("diff "))
        };
        let field = |name: &str| head().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let variant = match field("Kernel:") {
            None => Variant::Usual,
            Some("debug") => Variant::Debug,
            Some(_) => return None,
        };
        let runs = match field("Runs:") {
            None => (program.clone(), test.clone()),
            Some(text) => pair(text)?,
        };
        let words = field("Words:").unwrap_or_default().to_owned();
        Some(Self { program, test, runs, says: field("Says:").map(str::to_owned), words, variant })
    }

    /// Whether a result is the promised one.
    fn kept(&self, case: &Case) -> bool {
        case.outcome == Outcome::Failed
            && match &self.says {
                Some(text) => case.name == sections::HEALTH && case.detail.contains(text),
                None => case.name.rsplit("::").next() == Some(&*self.test),
            }
    }
}

/// Tries all mutations for this kernel whose names contain `filter`.
///
/// # Errors
///
/// When something cannot be built or the user interrupts; a mutation that no test notices is
/// among the results.
pub fn run(project: &Project, variant: Variant, filter: &str, results: &mut Results) -> Result<()> {
    let mut mutations = find(&project.top.join("tests/device/mutations"), filter)?;
    mutations.retain(|mutation| mutation.promise.variant == variant);
    if mutations.is_empty() {
        bail!("all mutations with \"{filter}\" in their names are for the other kernel (--debug)");
    }
    let parts = parts::build(project, variant)?;
    // All of them are built in one place.
    let _lock = cache::lock(&project.out().join("mutant.lock"), "mutants")?;
    for mutation in mutations {
        let started = Instant::now();
        let case = match attempt(project, &parts, &mutation) {
            Ok(case) => case,
            Err(error) => {
                crate::interrupt::check()?;
                Case::failed(&mutation.name, &format!("{error:#}"))
            }
        };
        results.add(Suite {
            name: mutation.name,
            cases: vec![case],
            output: String::new(),
            time: started.elapsed(),
        });
    }
    Ok(())
}

fn find(dir: &Path, filter: &str) -> Result<Vec<Mutation>> {
    let mut mutations = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let patch = entry?.path();
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if patch.extension().is_some_and(|ext| ext == "patch") && name.contains(filter) {
            let text = fs::read_to_string(&patch)?;
            let promise = Promise::parse(&text).with_context(|| {
                let patch = patch.display();
                format!("{patch}: its first line is not \"Fails: PROGRAM TEST\", or it has a bad line \"Kernel:\"")
            })?;
            mutations.push(Mutation { name, patch, promise });
        }
    }
    if mutations.is_empty() {
        bail!("no mutation in {} has a name with \"{filter}\" in it", dir.display());
    }
    mutations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutations)
}

/// Builds the broken driver or hypervisor and runs the test that should notice.
fn attempt(project: &Project, parts: &Parts, mutation: &Mutation) -> Result<Case> {
    let tree = project.out().join("mutant/tree");
    copy_sources(&project.top, &tree)?;
    apply(&mutation.patch, &tree)?;
    let promise = &mutation.promise;
    let package = ON_THIS_MACHINE.iter().find(|(program, _)| *program == promise.program);
    let cases = match package {
        Some((_, package)) => on_this_machine(project, &tree, mutation, package)?,
        None => in_qemu(project, parts, &tree, mutation)?,
    };
    if cases.iter().any(|case| promise.kept(case)) {
        let name = format!("{} {} notices it", promise.program, promise.test);
        return Ok(Case { name, outcome: Outcome::Passed, detail: String::new() });
    }
    let seen: Vec<_> =
        cases.iter().map(|case| format!("{}: {:?}", case.name, case.outcome)).collect();
    let what = promise.says.as_ref().map_or_else(
        || "did not fail".to_owned(),
        |text| format!("did not have the console say \"{text}\""),
    );
    let detail = format!("{} {} {what}\n{}", promise.program, promise.test, seen.join("\n"));
    Ok(Case::failed("no test notices it", &detail))
}

/// A fresh copy of the sources; unchanged files keep their times, for the sake of rebuilds.
fn copy_sources(top: &Path, tree: &Path) -> Result<()> {
    for source in source::all(top)? {
        let copy = tree.join(&source.path);
        if fs::read_to_string(&copy).is_ok_and(|old| old == source.text) {
            continue;
        }
        if let Some(dir) = copy.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&copy, source.text)
            .with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

fn apply(patch: &Path, tree: &Path) -> Result<()> {
    let mut git = Command::new("git");
    // The tree lies in a directory that Git ignores, but inside the project's own repository.
    git.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    git.arg("-C").arg(tree).args(["apply", "--recount"]).arg(patch);
    process::output(&mut git)
        .map(drop)
        .context("the patch does not apply any more: make it anew for the present code")
}

fn on_this_machine(
    project: &Project,
    tree: &Path,
    mutation: &Mutation,
    package: &str,
) -> Result<Vec<Case>> {
    let mut command = Command::new("cargo");
    command.current_dir(tree).args(["test", "--color=never", "-p", package, "--target-dir"]);
    command.arg(project.target.join("mutant")).args(["--", &mutation.promise.test]);
    let mut parser = Parser::default();
    let mut step = Step::start(&mutation.name);
    let log = project.log(&format!("mutant-{}", mutation.name));
    // It is to fail: what the tests report tells whether by the right test.
    let done = process::logged(&mut command, &log, |line| {
        step.update(line.trim());
        parser.line(line);
    });
    step.done("");
    Ok(parser.finish(Exit::Status(i32::from(done.is_err()))))
}

fn in_qemu(
    project: &Project,
    parts: &Parts,
    tree: &Path,
    mutation: &Mutation,
) -> Result<Vec<Case>> {
    let (program, test) = &mutation.promise.runs;
    let only = machine_tests::one_suite(program, Some(test));
    let words = format!("{} {only}", machine_tests::DEVICE);
    let words = format!("{words} {}", mutation.promise.words);
    let mut machine = Options::for_tests(true, parts.variant).machine(parts, &words);
    let patch = fs::read_to_string(&mutation.patch)?;
    // Not where the sound ones are built: the programs have the same names.
    let target = project.target.join("mutant");
    let broken = Project { top: tree.to_path_buf(), target, ..project.clone() };
    if patch.contains("\n+++ b/tests/refhyp/") {
        machine.hypervisor = Some(parts::test_hypervisor(&broken, "mutant-refhyp")?);
    } else if patch.contains("\n+++ b/avf-backend/vmm/") {
        let linux = toolchain::linux(&Fetcher::new(project))?;
        let built =
            cargo::build(&broken, &linux, "build", &["gzvm-vmm"], &["--bins"], "mutant-vmm")?;
        let vmm = built.first().context("the package has no program")?;
        machine.initramfs = with_file(project, parts, "usr/bin/gzvm_vmm", &vmm.path)?;
    } else {
        let name = format!("mutant{}", parts.variant.suffix());
        let built = module::build(project, &parts.kernel, &tree.join("driver"), &name)?;
        machine.initramfs =
            with_file(project, parts, "lib/modules/gzvm.ko", &built.join("gzvm.ko"))?;
    }
    let mut step = Step::start(&mutation.name);
    let log = project.log(&format!("mutant-{}", mutation.name));
    let limits = Limits::seconds(LIMITS.0, LIMITS.1) * parts.variant.slowness();
    let run = machine.run(&log, limits, |line| step.update(line))?;
    step.done("");
    let suites = sections::suites("mutant", &run, run.times.last().copied().unwrap_or_default());
    Ok(suites.into_iter().flat_map(|suite| suite.cases).collect())
}

/// The host's initramfs with another file of this name.
fn with_file(project: &Project, parts: &Parts, name: &str, file: &Path) -> Result<PathBuf> {
    let mut overlay = Archive::default();
    overlay.file(name, file)?;
    // Linux unpacks archives that follow one another; the last file of a name wins.
    let mut archive = fs::read(&parts.initramfs)?;
    archive.extend(overlay.write(Vec::new())?);
    let initramfs = project.out().join("mutant/host-initramfs.cpio");
    fs::write(&initramfs, archive)?;
    Ok(initramfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_its_test() {
        let text = "Fails: memory w25_overlap\nMutation: x\n\n--- a/driver/x.rs\n";
        let promise = Promise::parse(text).unwrap();
        assert_eq!((&*promise.program, &*promise.test), ("memory", "w25_overlap"));
        assert_eq!((promise.says, promise.variant), (None, Variant::Usual));
        for bad in ["--- a/driver/x.rs\n", "Fails: memory\n", "Fails: a b\nKernel: other\n"] {
            assert_eq!(Promise::parse(bad), None, "{bad}");
        }
        let text =
            "Fails: leaks a\nRuns: memory b\nWords: x y=1\nKernel: debug\nSays: BUG: KASAN\n\n--- a\nSays: x\n";
        let promise = Promise::parse(text).unwrap();
        assert_eq!(
            (promise.says.as_deref(), promise.variant),
            (Some("BUG: KASAN"), Variant::Debug)
        );
        assert_eq!(promise.runs, ("memory".to_owned(), "b".to_owned()));
        assert_eq!(promise.words, "x y=1");
    }

    #[test]
    fn only_the_promised_failure_counts() {
        let plain = Promise::parse("Fails: memory a\n").unwrap();
        assert!(plain.kept(&Case::failed("a", "")) && plain.kept(&Case::failed("tests::a", "")));
        assert!(!plain.kept(&Case::failed("b", "")));
        let passed = Case { outcome: Outcome::Passed, ..Case::failed("a", "") };
        assert!(!plain.kept(&passed));
        let says = Promise::parse("Fails: memory a\nSays: KASAN\n").unwrap();
        assert!(says.kept(&Case::failed(sections::HEALTH, "BUG: KASAN: x")));
        assert!(!says.kept(&Case::failed(sections::HEALTH, "said nothing")));
        assert!(!says.kept(&Case::failed("a", "KASAN")));
    }

    #[test]
    fn a_patch_is_applied_to_the_copy_only() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("driver")).unwrap();
        fs::write(tree.join("driver/x.rs"), "a\nb\nc\n").unwrap();
        let patch = dir.path().join("p.patch");
        let text =
            "Fails: m t\n\n--- a/driver/x.rs\n+++ b/driver/x.rs\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
        fs::write(&patch, text).unwrap();
        apply(&patch, &tree).unwrap();
        assert_eq!(fs::read_to_string(tree.join("driver/x.rs")).unwrap(), "a\nB\nc\n");
        let error = format!("{:#}", apply(&patch, &tree).unwrap_err());
        assert!(error.contains("does not apply any more"), "{error}");
    }

    #[test]
    fn every_patch_of_the_project_names_its_test() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../device/mutations");
        assert!(find(dir.as_ref(), "").unwrap().len() > 5);
        assert!(find(dir.as_ref(), "no such mutation").is_err());
    }
}
