// SPDX-License-Identifier: Apache-2.0
//! The vm command: starts VMs, with the subcommands and flags of AVF's own tool, for systems that
//! do not have it.
#![forbid(unsafe_code)]

mod app;
mod cli;
mod config;
mod death;
mod exit;
mod idsig;
mod list;
mod partition;
mod raw;
mod run;
mod stats;
mod terminal;

use clap::Parser;
use gzvm_ctl::output;
use std::process::ExitCode;

fn main() -> ExitCode {
    // What binder's library says of a peer that ends, or is not there, is handled where it matters.
    gzvm_logging::init("vm", "warn,rsbinder=error,rsbinder::hub=off");
    gzvm_ctl::status(match cli::Opt::parse() {
        cli::Opt::Run(args) => run::run(&args),
        cli::Opt::CreatePartition { path, size, kind } => {
            partition::create(&path, size, kind).map(|()| ExitCode::SUCCESS)
        }
        cli::Opt::CheckFeatureEnabled { feature } => {
            output::print(&app::feature(&feature)).map(|_| ExitCode::SUCCESS)
        }
        cli::Opt::List => list::list().map(|()| ExitCode::SUCCESS),
        cli::Opt::Info => list::info().map(|()| ExitCode::SUCCESS),
        cli::Opt::Console { cid } => list::console(cid).map(|()| ExitCode::SUCCESS),
        cli::Opt::RunApp(_) => Err(app::unsupported("run-app")),
        cli::Opt::RunMicrodroid(_) => Err(app::unsupported("run-microdroid")),
        cli::Opt::CreateIdsig { apk, path } => {
            idsig::create(&apk, &path).map(|()| ExitCode::SUCCESS)
        }
        cli::Opt::Ctl(command) => command.run(&stats::served),
    })
}
