// SPDX-License-Identifier: Apache-2.0
//! The agent as a program for a Linux guest: answers the host, and nobody else.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use gzvm_clock::agent::serve;
use gzvm_clock::ptp::PtpClocks;
use gzvm_clock::PORT;
use std::time::Duration;
use vsock::{VsockListener, VMADDR_CID_ANY, VMADDR_CID_HOST};

/// A client that says nothing for so long makes room for the next one.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut clocks = PtpClocks::open().context("the host's clock")?;
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PORT)
        .with_context(|| format!("vsock port {PORT}"))?;
    loop {
        let (stream, peer) = listener.accept().context("vsock")?;
        if peer.cid() != VMADDR_CID_HOST {
            continue;
        }
        stream.set_read_timeout(Some(PATIENCE)).context("vsock")?;
        if let Err(e) = serve(stream, &mut clocks) {
            eprintln!("gzvm-clock-agent: {e}");
        }
    }
}
