// SPDX-License-Identifier: Apache-2.0
//! Benchmarks: boots machines in which an instruction is a nanosecond, has QEMU's plugin count who
//! executes what between the marks of `tests/bench`, and makes tables of it.

mod compare;
mod machine;
mod plot;
mod symbols;
mod table;
mod windows;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use clap::Args;

use crate::fetch::Fetcher;
use crate::kernel::Variant;
use crate::libtest::{Case, Outcome};
use crate::parts::{self, Parts};
use crate::project::Project;
use crate::report::Suite;
use crate::toolchain;
use machine::{Bench, Group};
use table::{Table, Versions};

/// Where the table and plots of the checked-in numbers are.
const DOCUMENT: &str = "docs/performance.md";
/// The checked-in numbers of all benchmarks, and of the part that is measured with the tests.
const BASELINE: &str = "tests/bench/baseline.json";
const GUARD_BASELINE: &str = "tests/bench/guard.json";

/// What to measure, and what to do with it.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Only this machine: one, two or eight, which is its number of CPUs, or guests
    #[arg(long)]
    group: Option<String>,
    /// Only this benchmark
    #[arg(long)]
    row: Option<String>,
    /// The tests' kernel with its checks: for trying the benchmarks, not for numbers
    #[arg(long)]
    usual_kernel: bool,
    /// The short part that `make test` measures, on the tests' kernel
    #[arg(long, conflicts_with_all = ["group", "usual_kernel"])]
    guard: bool,
    /// Make what was measured the numbers that later ones are compared with
    #[arg(long, conflicts_with_all = ["group", "row", "usual_kernel"])]
    save: bool,
}

/// Measures, writes reports, compares with the checked-in numbers.
///
/// # Errors
///
/// When something cannot be built or run, or a number got worse.
pub fn run(project: &Project, choice: &Choice) -> Result<()> {
    let usual = choice.usual_kernel || choice.guard;
    let variant = if usual { Variant::Usual } else { Variant::Bench };
    let parts = parts::build(project, variant)?;
    let name = if choice.guard { "bench-guard" } else { "bench" };
    let groups: &[Group] = if choice.guard { &machine::GUARD } else { &machine::ALL };
    let wanted = |group: &&Group| choice.group.as_deref().is_none_or(|name| name == group.name);
    let groups: Vec<_> = groups.iter().filter(wanted).collect();
    if groups.is_empty() {
        bail!("--group is one, two, eight or guests");
    }
    let table = measure(project, &parts, &groups, choice.row.as_deref(), name)?;
    println!("{}", table.markdown());
    eprintln!(
        "reports: {}/{name}.md, {name}.json, {name}-profile.txt",
        project.reports().display()
    );
    let baseline = project.top.join(if choice.guard { GUARD_BASELINE } else { BASELINE });
    if choice.save {
        table.write(&baseline)?;
        if choice.guard {
            return Ok(());
        }
        plot::write_all(&table, &project.top.join("docs/performance"))?;
        return save_document(&project.top.join(DOCUMENT), &table);
    }
    if usual && !choice.guard {
        return Ok(());
    }
    compare::with_baseline(&table, &baseline)
}

/// The short part of the benchmarks, as tests: one for each number that is checked in.
pub fn guard(project: &Project, parts: &Parts) -> Suite {
    let started = Instant::now();
    let (cases, output) = guarded(project, parts).unwrap_or_else(|error| {
        (vec![Case::failed("is measured", &format!("{error:#}"))], String::new())
    });
    Suite { name: "bench".to_owned(), cases, output, time: started.elapsed() }
}

fn guarded(project: &Project, parts: &Parts) -> Result<(Vec<Case>, String)> {
    if let Some(detail) = machine::cannot_count(&machine::qemu_version()?) {
        let name = "is measured".to_owned();
        return Ok((vec![Case { name, outcome: Outcome::Skipped, detail }], String::new()));
    }
    let groups: Vec<_> = machine::GUARD.iter().collect();
    let table = measure(project, parts, &groups, None, "bench-guard")?;
    let baseline = Table::read(&project.top.join(GUARD_BASELINE))?;
    Ok((compare::cases(&table, &baseline), table.markdown()))
}

/// Measures and writes reports that begin with `name`.
fn measure(
    project: &Project,
    parts: &Parts,
    groups: &[&Group],
    row: Option<&str>,
    name: &str,
) -> Result<Table> {
    let bench = Bench::new(project, parts)?;
    let mut table = Table::new(versions(project, parts)?);
    let mut profile = String::new();
    for group in groups {
        let measured = bench.measure(group, row)?;
        profile += &table::profile(&measured.windows);
        table.add(&measured.windows, measured.values);
    }
    if table.rows.is_empty() && table.values.is_empty() {
        bail!("no such benchmark on these machines: see docs/performance.md for --row and --group");
    }
    let reports = project.reports();
    fs::create_dir_all(&reports)?;
    table.write(&reports.join(format!("{name}.json")))?;
    fs::write(reports.join(format!("{name}.md")), table.markdown())?;
    fs::write(reports.join(format!("{name}-profile.txt")), profile)?;
    plot::write_all(&table, &reports.join(name))?;
    Ok(table)
}

fn save_document(path: &Path, table: &Table) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let all = table.markdown() + "\n" + &plot::links(table, "performance");
    let text = table::replace_in(&text, &all)
        .with_context(|| format!("{} has no place for the table", path.display()))?;
    Ok(fs::write(path, text)?)
}

/// What the numbers depend on beside our own sources.
fn versions(project: &Project, parts: &Parts) -> Result<Versions> {
    // The name of its directory in the cache tells the version and has a hash of the rest.
    let kernel = parts.kernel.build.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (rustc, _) = toolchain::kernel()?;
    let linux = toolchain::linux(&Fetcher::new(project))?;
    let bare_metal = toolchain::bare_metal()?;
    Ok(Versions {
        qemu: machine::qemu_version()?,
        kernel: format!("{kernel} ({:?})", parts.variant),
        module_compiler: machine::first_line(&rustc)?,
        program_compiler: machine::first_line(&linux.rustc())?,
        hypervisor_compiler: machine::first_line(&bare_metal.rustc())?,
    })
}
