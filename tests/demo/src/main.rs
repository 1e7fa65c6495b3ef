// SPDX-License-Identifier: Apache-2.0
//! Shows what the project does, live on one screen, and checks that each claim really happens.
//!
//! It runs as root on a host that has `/dev/gzvm`. Nothing is taken on trust: a claim is good only
//! if it was observed from outside, or contradicts nothing that was.

#![deny(unsafe_code)]

mod claims;
mod dump;
mod host;
mod isolation;
mod peek;
mod screen;
mod search;
mod secret;
mod tour;
mod vm;
mod vmm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows GenieZone VMs on this machine and checks what it shows
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the demo; status 0 only if all claims held
    Run(Tools),
    /// Accesses a file's pages by mapping it (used by `run` in child processes, which may die of it)
    #[command(subcommand)]
    Peek(peek::Access),
}

/// Where the demo finds what it runs.
#[derive(clap::Args, Debug)]
struct Tools {
    /// The vm tool
    #[arg(long, default_value = "vm")]
    vm: PathBuf,
    /// Directory with the guests and their configurations
    #[arg(long, default_value = "/usr/share/gzvm/guests")]
    guests: PathBuf,
}

fn main() -> Result<ExitCode> {
    let held = match Arguments::parse().command {
        Command::Run(tools) => tour::run(&tools),
        Command::Peek(access) => {
            peek::run(access)?;
            true
        }
    };
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
