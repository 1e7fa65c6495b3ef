// SPDX-License-Identifier: Apache-2.0
//! Benchmarks: boots machines in which an instruction is a nanosecond, has QEMU's plugin count who
//! executes what between the marks of `tests/bench`, and makes tables of it.

mod compare;
mod plot;
mod symbols;
mod table;
mod windows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use clap::Args;

use crate::boot::Options;
use crate::cargo;
use crate::fetch::Fetcher;
use crate::initramfs::Archive;
use crate::kernel::Variant;
use crate::parts::{self, Parts};
use crate::process;
use crate::project::Project;
use crate::qemu::Limits;
use crate::toolchain;
use crate::ui::Step;
use symbols::Symbols;
use table::{Table, Versions};

/// Seconds for one machine, and without a word on its console.
const LIMITS: (u64, u64) = (1500, 600);
/// Where the table and plots of the checked-in numbers are.
const DOCUMENT: &str = "docs/performance.md";

/// What to measure, and what to do with it.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Only the machine with this many CPUs: one, two or eight
    #[arg(long)]
    group: Option<String>,
    /// Only this benchmark
    #[arg(long)]
    row: Option<String>,
    /// The tests' kernel with its checks: for trying the benchmarks, not for numbers
    #[arg(long)]
    usual_kernel: bool,
    /// Make what was measured the numbers that later ones are compared with
    #[arg(long, conflicts_with_all = ["group", "row", "usual_kernel"])]
    save: bool,
}

/// A machine that one part of the benchmarks needs.
struct Group {
    name: &'static str,
    cpus: u32,
    memory: u32,
}

const GROUPS: [Group; 3] = [
    Group { name: "one", cpus: 1, memory: 6144 },
    Group { name: "two", cpus: 2, memory: 2048 },
    Group { name: "eight", cpus: 8, memory: 4096 },
];

/// Measures, writes reports, compares with the checked-in numbers.
///
/// # Errors
///
/// When something cannot be built or run, or a number got worse.
pub fn run(project: &Project, choice: &Choice) -> Result<()> {
    let variant = if choice.usual_kernel { Variant::Usual } else { Variant::Bench };
    let parts = parts::build(project, variant)?;
    let plugin = plugin(project)?;
    let (initramfs, module) = initramfs(project, &parts)?;
    let mut table = Table::new(versions(&parts)?);
    let mut profile = String::new();
    for group in &GROUPS {
        if choice.group.as_deref().is_none_or(|name| name == group.name) {
            let (lines, counts) = boot(project, &parts, &initramfs, &plugin, group, choice)?;
            let symbols = Symbols::load(&parts, &module, &lines)?;
            let windows = windows::join(&lines, &counts, &symbols)?;
            profile += &table::profile(&windows);
            table.add(&windows, windows::values(&lines)?);
        }
    }
    let reports = project.reports();
    fs::create_dir_all(&reports)?;
    table.write(&reports.join("bench.json"))?;
    fs::write(reports.join("bench.md"), table.markdown())?;
    fs::write(reports.join("bench-profile.txt"), profile)?;
    plot::write_all(&table, &reports)?;
    println!("{}", table.markdown());
    eprintln!(
        "reports: {}/bench.md, bench.json, bench-profile.txt, bench-*.svg",
        reports.display()
    );
    let baseline = project.top.join("tests/bench/baseline.json");
    if choice.save {
        table.write(&baseline)?;
        plot::write_all(&table, &project.top.join("docs/performance"))?;
        return save_document(&project.top.join(DOCUMENT), &table);
    }
    compare::with_baseline(&table, &baseline)
}

fn save_document(path: &Path, table: &Table) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let all = table.markdown() + "\n" + &plot::links(table, "performance");
    let text = table::replace_in(&text, &all)
        .with_context(|| format!("{} has no place for the table", path.display()))?;
    Ok(fs::write(path, text)?)
}

/// Builds QEMU's plugin for this machine.
fn plugin(project: &Project) -> Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.current_dir(&project.top).args(["build", "--release", "-p", "gzvm-bench-plugin"]);
    build.arg("--target-dir").arg(&project.target);
    let mut step = Step::start("bench plugin");
    process::logged(&mut build, &project.log("cargo-bench-plugin"), |line| {
        step.update(line.trim());
    })?;
    step.done("");
    Ok(project.target.join("release/libgzvm_bench_plugin.so"))
}

/// The host's initramfs with the benchmarks, and the module under test.
fn initramfs(project: &Project, parts: &Parts) -> Result<(PathBuf, PathBuf)> {
    let linux = toolchain::linux(&Fetcher::new(project))?;
    let programs = cargo::build(project, &linux, "build", &["gzvm-bench"], &["--bins"], "bench")?;
    let program = programs.first().context("gzvm-bench has no program")?;
    let copy = project.out().join("stripped").join(&program.name);
    cargo::stripped(&program.path, &copy)?;
    // Linux unpacks one archive after the other: later files replace earlier ones.
    let mut more = Archive::default();
    more.file("usr/libexec/gzvm/gzvm-bench", &copy)?;
    let module = match std::env::var_os("GZVM_MODULE").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            more.file("lib/modules/gzvm.ko", &path)?;
            path
        }
        None => {
            let name = format!("gzvm{}", parts.variant.suffix());
            project.out().join("module").join(name).join("gzvm.ko")
        }
    };
    let mut all = fs::read(&parts.initramfs)?;
    all.resize(all.len().next_multiple_of(512), 0);
    let archive = project.out().join("host-initramfs-benchmarks.cpio");
    fs::write(&archive, more.write(all)?)?;
    Ok((archive, module))
}

/// Boots; answers the console and what the plugin counted.
fn boot(
    project: &Project,
    parts: &Parts,
    initramfs: &Path,
    plugin: &Path,
    group: &Group,
    choice: &Choice,
) -> Result<(Vec<String>, String)> {
    let counts = project.out().join(format!("bench-{}.txt", group.name));
    let map = symbols::read_map(parts)?;
    let mutex: String = [("lock", "mutex_lock"), ("unlock", "mutex_unlock")]
        .iter()
        .filter_map(|(name, function)| Some(format!(",{name}={}", map.address(function)?)))
        .collect();
    let mut options = Options::for_tests(false, parts.variant);
    options.cpus = group.cpus;
    options.memory = group.memory;
    options.qemu = [
        "-icount",
        "shift=0,sleep=off",
        "-rtc",
        "base=2026-01-01,clock=vm",
        "-seed",
        "1",
        // Added to what the harness says of the machine.
        "-M",
        "dtb-randomness=off",
        "-plugin",
        &format!("{},out={}{mutex}", plugin.display(), counts.display()),
    ]
    .map(str::to_owned)
    .into();
    let mut words = format!("loglevel=4 nokaslr gzvm.mode=bench gzvm.bench={}", group.name);
    words += &choice.row.as_ref().map_or_else(String::new, |row| format!(" gzvm.filter={row}"));
    let mut machine = options.machine(parts, &words);
    machine.initramfs = initramfs.to_owned();
    let name = format!("bench {}", group.name);
    let mut step = Step::start(&name);
    let log = project.log(&name.replace(' ', "-"));
    let limits = Limits::seconds(LIMITS.0, LIMITS.1);
    let run = machine.run(&log, limits, |line| step.update(line))?;
    step.done("measured");
    let finished = run.lines.iter().any(|line| line.trim_end() == "##suite-end gzvm-bench rc=0");
    if !run.problems.is_empty() || !finished {
        bail!(
            "the benchmarks did not end well, see {}\n  {}",
            log.display(),
            run.problems.join("\n  ")
        );
    }
    let counts = fs::read_to_string(&counts)
        .with_context(|| format!("QEMU's plugin left nothing in {}", counts.display()))?;
    Ok((run.lines, counts))
}

/// What the numbers depend on beside our own sources.
fn versions(parts: &Parts) -> Result<Versions> {
    let first = |program: &str| -> Result<String> {
        let text = process::output(Command::new(program).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    // The name of its directory in the cache tells the version and has a hash of the rest.
    let kernel = parts.kernel.build.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (rustc, _) = toolchain::kernel()?;
    Ok(Versions {
        qemu: first("qemu-system-aarch64")?,
        kernel: format!("{kernel} ({:?})", parts.variant),
        module_compiler: first(&rustc)?,
        compiler: first("rustc")?,
    })
}
