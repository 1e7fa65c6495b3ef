// SPDX-License-Identifier: Apache-2.0
//! Subcommands that AVF's own tool lacks. `vm` has them among its others; on a phone, where `vm` is
//! Android's, `gzvmctl` has them alone.

#![forbid(unsafe_code)]

mod check;
mod cli;
mod clock;
pub mod output;
mod stats;
mod stop;
pub mod terminal;
mod vmms;

pub use cli::Command;
pub use stats::{Served, Services};

use anyhow::Result;
use std::process::ExitCode;

impl Command {
    /// Does what the command line asks for; the exit status says how it went. `services` are asked for
    /// what the driver does not tell this user.
    ///
    /// # Errors
    ///
    /// It could not be done.
    pub fn run(&self, services: Services<'_>) -> Result<ExitCode> {
        match self {
            Self::Check(args) => check::check(args),
            Self::Stats(args) => stats::stats(args, services).map(|()| ExitCode::SUCCESS),
            Self::Clock(args) => clock::clock(args).map(|()| ExitCode::SUCCESS),
            Self::Stop(args) => stop::stop(args).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// The exit status of a program that ends with `result`, whose error is printed in one line.
pub fn status(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        output::tell(format_args!("Error: {error:#}"));
        ExitCode::FAILURE
    })
}
