// SPDX-License-Identifier: Apache-2.0
//! Builds everything, runs QEMU, runs the tests, reports.

mod apt;
mod bench;
mod book;
mod boot;
mod cache;
mod cargo;
mod checks;
mod console;
mod disk;
mod fetch;
mod initramfs;
mod interrupt;
mod kernel;
mod layout;
mod libtest;
mod machine_tests;
mod module;
mod mutations;
mod parts;
mod patches;
mod process;
mod project;
mod qemu;
mod report;
mod reuse;
mod schemas;
mod sections;
mod sepolicy;
mod soong;
mod source;
mod toolchain;
mod ui;
mod weaknesses;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::boot::Options;
use crate::fetch::Fetcher;
use crate::kernel::Variant;
use crate::machine_tests::Storm;
use crate::project::Project;
use crate::report::{Results, Suite};

/// Builds everything, runs QEMU, runs the tests, reports
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything that a boot needs
    Build,
    /// Build the kernel, or find it in the cache, and print where it is
    Kernel {
        /// The one that `test --debug` boots
        #[arg(long)]
        debug: bool,
        /// The one for benchmarks, without checks
        #[arg(long, conflicts_with = "debug")]
        bench: bool,
    },
    /// Boot the demo and show it live
    Run(Options),
    /// Boot into a shell on the host
    Shell(Options),
    /// Run all tests, on this machine and in QEMU
    Test {
        /// Only what needs no QEMU and no kernel
        #[arg(long)]
        host: bool,
        /// Only what runs in QEMU
        #[arg(long, conflicts_with = "host")]
        machine: bool,
        /// The device tests on a kernel with KASAN and kmemleak, and nothing else
        #[arg(long, conflicts_with_all = ["host", "machine"])]
        debug: bool,
        /// Also storms of full length, not only a sample; with --suite, of those programs
        #[arg(long, conflicts_with_all = ["host", "debug"])]
        full: bool,
        /// What storms repeat: the seed that an earlier one printed
        #[arg(long, conflicts_with = "host")]
        seed: Option<u64>,
        /// Only this test program, or these with commas between, in the default machine
        #[arg(long)]
        suite: Option<String>,
        /// Only tests whose names contain this (with --suite)
        #[arg(long, requires = "suite")]
        filter: Option<String>,
        /// On the hypervisor without extensions (with --suite)
        #[arg(long, requires = "suite", conflicts_with = "debug")]
        strict: bool,
    },
    /// Break the driver on purpose and see that the tests notice
    Mutations {
        /// Those that only the kernel of `test --debug` shows
        #[arg(long)]
        debug: bool,
        /// Only mutations whose names contain this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Count what events cost, compare with the checked-in numbers
    Bench(bench::Choice),
    /// Make the patches for the kernel's mailing lists, and check them
    Patches {
        /// Without the build in the kernel's tree, which takes minutes
        #[arg(long)]
        quick: bool,
    },
    /// Make the book in docs/ as web pages, and check its links
    Docs,
    /// Draw the README's picture of the demo from what the last `run` printed
    Picture,
    /// Check the VMM's device trees against the kernel's bindings
    Bindings,
    /// Compare how C and Rust lay the kernel's structures out
    Layout,
    /// Remove what was built; the cache too when asked
    Clean {
        /// Remove the kernel and all downloads, which take long to make again
        #[arg(long)]
        cache: bool,
    },
}

fn main() -> ExitCode {
    let done = interrupt::install().and_then(|()| Project::find()).and_then(|project| {
        let cli = Cli::parse();
        task(&project, cli.command)
    });
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(interrupt::exit_status())
        }
    }
}

fn task(project: &Project, task: Task) -> Result<ExitCode> {
    if !matches!(task, Task::Clean { .. }) {
        disk::check(project)?;
    }
    match task {
        Task::Build => parts::build(project, Variant::Usual).map(drop)?,
        Task::Kernel { debug, bench } => {
            let variant = if bench { Variant::Bench } else { variant(debug) };
            let kernel = kernel::build(project, &Fetcher::new(project), variant)?;
            println!("{}", kernel.build.display());
        }
        Task::Run(options) => {
            boot::demo(project, &options, &parts::build(project, Variant::Usual)?)?
        }
        Task::Shell(options) => {
            let parts = parts::build(project, Variant::Usual)?;
            options.machine(&parts, "quiet gzvm.mode=shell").interactive()?;
        }
        Task::Test { host, machine, debug, full, seed, suite, filter, strict } => {
            let storm = Storm { full, seed };
            let what = What { here: !machine, in_qemu: (!host).then_some(storm) };
            let name = if debug { "debug" } else { "gzvm" };
            return report(project, name, |results| match suite {
                Some(suite) => {
                    let suite = (&*suite, filter.as_deref());
                    machine_tests::one(project, variant(debug), suite, (strict, storm), results)
                }
                None if debug => machine_tests::debug(project, results),
                None => all_tests(project, what, results),
            });
        }
        Task::Mutations { debug, filter } => {
            return report(project, "mutations", |results| {
                mutations::run(project, variant(debug), &filter, results)
            });
        }
        Task::Bench(choice) => bench::run(project, &choice)?,
        Task::Layout => {
            let kernel = kernel::build(project, &Fetcher::new(project), Variant::Usual)?;
            layout::check(project, &kernel)?;
        }
        Task::Docs => println!("{}", book::html::build(project)?.display()),
        Task::Picture => book::picture::draw(project)?,
        Task::Bindings => {
            return report(project, "bindings", |results| {
                results.add(schemas::suite(project));
                Ok(())
            });
        }
        Task::Patches { quick } => patches::make(project, quick)?,
        Task::Clean { cache } => clean(project, cache)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn variant(debug: bool) -> Variant {
    if debug {
        Variant::Debug
    } else {
        Variant::Usual
    }
}

/// Runs tests and ends with the totals, alone on the last line.
fn report(
    project: &Project,
    name: &str,
    run: impl FnOnce(&mut Results) -> Result<()>,
) -> Result<ExitCode> {
    let mut results = Results::default();
    let done = run(&mut results);
    interrupt::check()?;
    if let Err(error) = done {
        results.add(Suite::failed("harness", "builds", &format!("{error:#}")));
    }
    results.write_junit(&project.reports(), name)?;
    eprintln!("JUnit XML: {}", project.reports().display());
    println!("{}", results.summary());
    Ok(if results.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which tests to run.
struct What {
    here: bool,
    in_qemu: Option<Storm>,
}

fn all_tests(project: &Project, what: What, results: &mut Results) -> Result<()> {
    if what.here {
        checks::run(project, results)?;
    }
    if let Some(storm) = what.in_qemu {
        machine_tests::all(project, storm, results)?;
    }
    Ok(())
}

fn clean(project: &Project, cache: bool) -> Result<()> {
    let mut dirs = vec![project.out(), project.target.join("cross"), project.reports()];
    if cache {
        dirs.push(project.cache.clone());
    }
    for dir in dirs {
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
            eprintln!("removed {}", dir.display());
        }
    }
    Ok(())
}
