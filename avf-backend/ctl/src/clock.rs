// SPDX-License-Identifier: Apache-2.0
//! `vm clock`: how far a guest's wall clock is from the host's, and setting it right.

use crate::cli::ClockArgs;
use anyhow::{Context, Result};
use gzvm_clock::client::{ask, resync, ClockError};
use gzvm_clock::protocol::Request;
use gzvm_clock::watch::Watch;
use gzvm_clock::Report;

/// Does what the command line asks for.
pub fn clock(args: &ClockArgs) -> Result<()> {
    if args.watch {
        return watch(args.cid);
    }
    if args.resync {
        say(args.cid, resync(args.cid)?);
        return Ok(());
    }
    match ask(args.cid, Request::Sample) {
        Ok(report) => say(args.cid, report),
        // Not an error: most guests have no agent.
        Err(e @ ClockError::NoAgent { .. }) => println!("CID {}: unknown: {e}", args.cid),
        Err(e) => return Err(e.into()),
    }
    Ok(())
}

fn say(cid: u32, report: Report) {
    println!("CID {cid}: {report}");
}

/// Sets the guest's clock now and after each discontinuity of the host's, until the guest is gone.
fn watch(cid: u32) -> Result<()> {
    let watch = Watch::new().context("cannot watch the host's clock")?;
    loop {
        say(cid, resync(cid)?);
        watch.wait().context("cannot watch the host's clock")?;
    }
}
