// SPDX-License-Identifier: Apache-2.0
//! The vm command: starts VMs, with the subcommands and flags of AVF's own tool, for systems that
//! do not have it.
#![forbid(unsafe_code)]

mod app;
mod argv;
mod cli;
mod config;
mod death;
mod idsig;
mod launch;
mod partitions;
mod props;
mod run;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    gzvm_logging::init("vm", "warn");
    gzvm_ctl::status(match cli::Opt::parse() {
        cli::Opt::Run(args) => run::run(&args).map(|()| ExitCode::SUCCESS),
        cli::Opt::CheckFeatureEnabled { feature } => {
            println!("{}", app::feature(&feature));
            Ok(ExitCode::SUCCESS)
        }
        cli::Opt::RunApp(_) => Err(app::unsupported("run-app")),
        cli::Opt::RunMicrodroid(_) => Err(app::unsupported("run-microdroid")),
        cli::Opt::CreateIdsig { apk, path } => {
            idsig::create(&apk, &path).map(|()| ExitCode::SUCCESS)
        }
        cli::Opt::Ctl(command) => command.run(),
    })
}
