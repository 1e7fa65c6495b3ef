// SPDX-License-Identifier: Apache-2.0
//! `stats`: what the driver counts for each VM, once or again and again.

mod debugfs;
mod print;

use crate::cli::StatsArgs;
use crate::vmms;
use anyhow::{Context, Result};
use debugfs::VmStats;
use std::io::{stdout, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Does what the command line asks for.
pub fn stats(args: &StatsArgs) -> Result<()> {
    let root = Path::new("/");
    let wanted = |vm: &VmStats| args.vm.as_ref().is_none_or(|what| vm.vmm.is(what));
    let read = || -> Result<_> {
        let vms = debugfs::read(root)?.into_iter().filter(wanted);
        Ok((vms.collect::<Vec<_>>(), Instant::now()))
    };
    let (mut vms, mut when) = read()?;
    if let (Some(what), true) = (&args.vm, vms.is_empty()) {
        // Says which there are.
        vmms::find(debugfs::read(root)?.into_iter().map(|vm| vm.vmm).collect(), what)?;
    }
    show(args, &vms, &[], None)?;
    let Some(seconds) = args.watch else { return Ok(()) };
    loop {
        thread::sleep(Duration::from_secs(seconds.get().into()));
        let (next, now) = read()?;
        if args.vm.is_some() && next.is_empty() {
            return Ok(());
        }
        show(args, &next, &vms, Some(now.saturating_duration_since(when)))?;
        (vms, when) = (next, now);
    }
}

/// Prints VMs; with a time, what happened in it since `before`.
fn show(
    args: &StatsArgs,
    vms: &[VmStats],
    before: &[VmStats],
    elapsed: Option<Duration>,
) -> Result<()> {
    let text = match (args.json, elapsed) {
        (true, _) => format!("{}\n", print::json(vms)),
        (false, None) => print::totals(vms),
        (false, Some(elapsed)) => format!("\n{}", print::changes(vms, before, elapsed)),
    };
    let mut out = stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot print")
}
