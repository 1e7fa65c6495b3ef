// SPDX-License-Identifier: Apache-2.0
//! `gzvmctl`: the subcommands that AVF's own `vm` lacks, for systems that have that one.

#![forbid(unsafe_code)]

use clap::Parser;
use std::process::ExitCode;

/// Looks after virtual machines under GenieZone
#[derive(Debug, Parser)]
#[command(name = "gzvmctl", version, max_term_width = 100)]
struct Opt {
    #[command(subcommand)]
    command: gzvm_ctl::Command,
}

fn main() -> ExitCode {
    gzvm_logging::init("gzvmctl", "warn");
    // Android's own services know nothing of the kind.
    gzvm_ctl::status(Opt::parse().command.run(&Vec::new))
}
