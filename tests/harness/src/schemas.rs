// SPDX-License-Identifier: Apache-2.0
//! The VMM's device trees against the bindings of the kernel that the tests run: dt-schema's
//! `dt-validate` on trees of several shapes.
//!
//! The nodes' names are crosvm's, which bindings refuse, so the trees are looked at with the names
//! that bindings want ([`NAMES`]); what is then still objected to is listed ([`EXPECTED`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use crate::cache::{Cache, Key};
use crate::fetch::Fetcher;
use crate::interrupt;
use crate::kernel;
use crate::libtest::{Case, Outcome};
use crate::process;
use crate::project::Project;
use crate::report::Suite;

/// The version of dt-schema. Debian's objects to references between bindings that it has not read.
const VERSION: &str = "2026.9";

/// Where bindings are, in the kernel.
const BINDINGS: &str = "Documentation/devicetree/bindings";
/// The bindings of what is in the trees; those that they refer to are read, too.
const ROOTS: &[&str] = &[
    "arm/cpus.yaml",
    "arm/primecell.yaml",
    "arm/psci.yaml",
    "clock/fixed-clock.yaml",
    "interrupt-controller/arm,gic-v3.yaml",
    "misc/qemu,vcpu-stall-detector.yaml",
    "pci/host-generic-pci.yaml",
    "serial/8250.yaml",
    "timer/arm,arch_timer.yaml",
    "vendor-prefixes.yaml",
];

/// crosvm's names, which AVF's firmware and tests know, and names that bindings take. crosvm's root
/// has no model.
const NAMES: &[(&str, &str)] = &[
    ("\tintc {", "\tinterrupt-controller@3fff0000 {"),
    ("\tmemory {", "\tmemory@80000000 {"),
    ("\tpci {", "\tpci@2e000000 {"),
    ("pclk@3M", "clock-3141592"),
    ("U6_16550A@", "serial@"),
    ("\"linux,dummy-virt\";", "\"linux,dummy-virt\"; model = \"linux,dummy-virt\";"),
];

/// What else is objected to, each for a reason.
const EXPECTED: &[&str] = &[
    // The compatible of machines that are nothing but what their tree says; it has no binding.
    "/: failed to match any schema with compatible: ['linux,dummy-virt']",
    // Android's; it never became a binding of the kernel's.
    "/cpufreq: failed to match any schema with compatible: ['virtual,kvm-cpufreq']",
    // AVF's own, between VMM and firmware.
    "config: kernel-address: ",
    "config: kernel-size: ",
    // Linux takes the restricted-DMA pool of a host bridge for all devices behind it; the binding of
    // host bridges does not know that.
    "Unevaluated properties are not allowed ('memory-region' was unexpected)",
];

/// Mistakes, each of which must be objected to.
const MISTAKES: &[(&str, &str)] = &[
    ("method = \"hvc\"", "method = \"hvx\""),
    ("timeout-sec", "timeout-secs"),
    ("#interrupt-cells = <0x03>", "#interrupt-cells = <0x02>"),
];

/// Checks the trees; skipped, and said so, where dt-schema cannot be had.
pub fn suite(project: &Project) -> Suite {
    let started = Instant::now();
    let case = |outcome, detail| Case { name: "the VMM's device trees".into(), outcome, detail };
    let case = match tools(project) {
        Ok(tools) => match check(project, &tools) {
            Ok(()) => case(Outcome::Passed, String::new()),
            Err(error) => case(Outcome::Failed, format!("{error:#}")),
        },
        Err(error) => {
            eprintln!("bindings    not checked: {error:#}");
            case(Outcome::Skipped, format!("{error:#}"))
        }
    };
    let (cases, output) = (vec![case], String::new());
    Suite { name: "bindings".to_owned(), cases, output, time: started.elapsed() }
}

/// The directory with dt-schema's programs, in an environment of its own.
fn tools(project: &Project) -> Result<PathBuf> {
    ensure!(process::in_path("dtc"), "device-tree-compiler is missing");
    let package = format!("dtschema=={VERSION}");
    let key = Key::new(&format!("dtschema-{VERSION}")).with("package", &package);
    let environment = Cache::new(&project.cache).get_resumable("python", &key, |dir| {
        let log = project.log("dtschema");
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(dir);
        process::logged(&mut venv, &log, |_| ()).context("python3-venv is needed")?;
        let mut pip = Command::new(dir.join("bin/pip"));
        pip.args(["--disable-pip-version-check", "install", &package]);
        process::logged(&mut pip, &log, |_| ()).context("pip cannot install dt-schema")
    })?;
    Ok(environment.join("bin"))
}

fn check(project: &Project, tools: &Path) -> Result<()> {
    let out = project.out().join("bindings");
    fs::create_dir_all(&out)?;
    let tree = match kernel::users_tree()? {
        Some(tree) => tree,
        None => Fetcher::new(project).kernel_source()?.dir,
    };
    let validator = Validator { tools, schema: out.join("schema.json"), out: &out };
    validator.make_schema(&tree.join(BINDINGS))?;
    let mut trees = Command::new("cargo");
    trees.current_dir(&project.top);
    trees.args(["run", "-q", "-p", "gzvm-vmm", "--example", "trees", "--"]).arg(&out);
    process::logged(&mut trees, &project.log("trees"), |_| ())?;
    let mut seen = BTreeSet::new();
    for shape in ["plain", "protected", "firmware"] {
        interrupt::check()?;
        let dts = validator.named(shape)?;
        let (expected, other) = validator.objections(shape, &dts)?;
        ensure!(other.is_empty(), "dt-validate on {shape}.dtb: {}", other.join("\n"));
        seen.extend(expected);
    }
    if let Some(gone) = EXPECTED.iter().find(|text| !seen.contains(*text)) {
        bail!("\"{gone}\" is no longer objected to: take it off the list");
    }
    let good = validator.named("protected")?;
    for (right, wrong) in MISTAKES {
        ensure!(good.contains(right), "there is no {right} to make a mistake of");
        let (_, other) = validator.objections("wrong", &good.replace(right, wrong))?;
        ensure!(!other.is_empty(), "dt-validate does not object to {wrong}");
    }
    Ok(())
}

struct Validator<'a> {
    tools: &'a Path,
    schema: PathBuf,
    out: &'a Path,
}

impl Validator<'_> {
    fn make_schema(&self, bindings: &Path) -> Result<()> {
        let mut make = Command::new(self.tools.join("dt-mk-schema"));
        make.arg("-j").arg("-o").arg(&self.schema).args(with_references(bindings)?);
        process::output(&mut make).map(drop)
    }

    /// A tree's source, with the names that bindings want.
    fn named(&self, shape: &str) -> Result<String> {
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-I", "dtb", "-O", "dts"]).arg(self.out.join(shape).with_extension("dtb"));
        let dts = process::output(&mut dtc)?;
        Ok(NAMES.iter().fold(dts, |dts, (crosvms, wanted)| dts.replace(crosvms, wanted)))
    }

    /// What is objected to in a tree: which of the expected, and whatever else.
    fn objections(&self, name: &str, dts: &str) -> Result<(Vec<&'static str>, Vec<String>)> {
        let [source, blob] =
            ["dts", "dtb"].map(|kind| self.out.join(format!("{name}-named")).with_extension(kind));
        fs::write(&source, dts)?;
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(&blob).arg(&source);
        process::output(&mut dtc)?;
        let mut validate = Command::new(self.tools.join("dt-validate"));
        // Its status does not say whether it objects.
        let said = validate.arg("-m").arg("-s").arg(&self.schema).arg(&blob).output()?;
        let said = [said.stdout, said.stderr].concat();
        let (mut expected, mut other) = (Vec::new(), Vec::new());
        // Lines that start with white space say where an objection comes from.
        let lines = String::from_utf8_lossy(&said);
        for line in lines.lines().filter(|line| !line.starts_with(char::is_whitespace)) {
            match EXPECTED.iter().find(|text| line.contains(*text)) {
                Some(text) => expected.push(*text),
                None => other.push(line.to_owned()),
            }
        }
        Ok((expected, other))
    }
}

/// The bindings that are needed, and those that they refer to. dt-schema's own are not among the
/// kernel's files.
fn with_references(bindings: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut waiting: Vec<PathBuf> = ROOTS.iter().map(|root| bindings.join(root)).collect();
    let mut read = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if read.contains(&path) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let dir = path.parent().unwrap_or(bindings);
        let found = references(&text).map(|reference| match reference.strip_prefix("/schemas/") {
            Some(rest) => bindings.join(rest),
            None => dir.join(reference),
        });
        waiting.extend(found.filter(|path| path.is_file()));
        read.insert(path);
    }
    Ok(read)
}

/// The files that a binding refers to: `$ref: FILE#…`, perhaps with quotes, or without a `#`.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (_, reference) = line.split_once("$ref:")?;
        let reference = reference.trim().trim_start_matches(['"', '\'']);
        reference.split(['#', '"', '\'', ' ']).next().filter(|file| !file.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_files() {
        let text = "allOf:\n  - $ref: serial.yaml#\n  - $ref: \"/schemas/cpu.yaml#/properties\"\n\
                    foo:\n  $ref: '#/definitions/x'\nbar:\n  $ref: rs485.yaml\n";
        let found: Vec<_> = references(text).collect();
        assert_eq!(found, ["serial.yaml", "/schemas/cpu.yaml", "rs485.yaml"]);
    }
}
