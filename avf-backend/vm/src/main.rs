// SPDX-License-Identifier: Apache-2.0
//! The vm command: starts VMs, with the subcommands and flags of AVF's own tool, for systems that
//! do not have it.
#![forbid(unsafe_code)]

mod argv;
mod cli;
mod clock;
mod config;
mod death;
mod launch;
mod partitions;
mod props;
mod run;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let logger = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(logger).format_timestamp(None).init();
    let result = match cli::Opt::parse() {
        cli::Opt::Run(args) => run::run(&args),
        cli::Opt::Clock(args) => clock::clock(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
