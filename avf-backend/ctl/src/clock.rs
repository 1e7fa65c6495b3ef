// SPDX-License-Identifier: Apache-2.0
//! `vm clock`: how far a guest's wall clock is from the host's, and setting it right.

use crate::cli::ClockArgs;
use crate::output;
use anyhow::{Context, Result};
use gzvm_clock::client::{ask, resync, ClockError};
use gzvm_clock::protocol::Request;
use gzvm_clock::watch::Watch;
use std::fmt::Display;

/// Does what the command line asks for.
pub fn clock(args: &ClockArgs) -> Result<()> {
    if args.watch {
        return watch(args.cid);
    }
    if args.resync {
        return say(args.cid, &resync(args.cid)?).map(drop);
    }
    match ask(args.cid, Request::Sample) {
        Ok(report) => say(args.cid, &report).map(drop),
        // Not an error: most guests have no agent.
        Err(e @ ClockError::NoAgent { .. }) => say(args.cid, &format!("unknown: {e}")).map(drop),
        Err(e) => Err(e.into()),
    }
}

fn say(cid: u32, what: &impl Display) -> Result<bool> {
    output::print(&format!("CID {cid}: {what}\n"))
}

/// Sets the guest's clock now and after each discontinuity of the host's, until the guest is gone, or
/// whoever reads about it.
fn watch(cid: u32) -> Result<()> {
    let watch = Watch::new().context("cannot watch the host's clock")?;
    while say(cid, &resync(cid)?)? {
        watch.wait().context("cannot watch the host's clock")?;
    }
    Ok(())
}
