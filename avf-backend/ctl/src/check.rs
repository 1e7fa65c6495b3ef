// SPDX-License-Identifier: Apache-2.0
//! `check`: can this machine run VMs, and if not, why.

use crate::cli::CheckArgs;
use crate::{output, terminal};
use anyhow::Result;
use gzvm_preflight::check::{Facts, Report};
use gzvm_preflight::MIB;
use std::io::stdout;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command line asks for.
pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    let facts = Facts::gather(Path::new("/"));
    let report = Report::new(&facts, u64::from(args.mem.get()) * MIB);
    let text = if args.json {
        serde_json::to_string_pretty(&report.json())? + "\n"
    } else {
        let colour = terminal::has_colour(&stdout());
        report.text(&|word, good| terminal::paint(colour, word, good))
    };
    // The exit status is the answer, whether anybody reads more about it or not.
    output::print(&text)?;
    let answer = if args.protected { &report.protected_vms } else { &report.vms };
    Ok(answer.status().into())
}
