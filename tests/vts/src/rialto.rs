// SPDX-License-Identifier: Apache-2.0
//! What AVF's bare-metal guest rialto and its host say to each other: CBOR, as serde has it for these
//! types, over a connection that the guest makes.

use std::io::Write;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde::{Deserialize, Serialize};
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY};

/// How often somebody looks for the guest's connection.
const INTERVAL: Duration = Duration::from_millis(50);

/// What the host asks for.
#[derive(Serialize)]
enum Request {
    Process(Task),
    Shutdown,
}

/// What the guest can do.
#[derive(Serialize)]
enum Task {
    Reverse(Vec<u8>),
}

/// What the guest answers.
#[derive(Debug, Deserialize)]
enum Response {
    Reverse(Vec<u8>),
}

/// Where the guest calls: one port for guests that firmware started, one for all others.
pub struct Port(VsockListener);

impl Port {
    /// From now on the guest can call.
    pub fn open(protected: bool) -> Result<Self> {
        let port = if protected { 5679 } else { 5680 };
        let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port);
        let listener = listener.with_context(|| format!("vsock port {port}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Waits for its call.
    pub fn accept(&self, patience: Duration) -> Result<Guest> {
        for _ in 0..patience.as_millis() / INTERVAL.as_millis() {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(patience))?;
                    stream.set_write_timeout(Some(patience))?;
                    return Ok(Guest(stream));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(INTERVAL);
                }
                Err(error) => return Err(error).context("vsock"),
            }
        }
        bail!("the guest did not call within {patience:?}")
    }
}

/// A guest that has called.
pub struct Guest(VsockStream);

impl Guest {
    /// It computes something, in memory of its own.
    pub fn reverses(&mut self, bytes: &[u8]) -> Result<()> {
        self.ask(&Request::Process(Task::Reverse(bytes.to_vec())))?;
        let answer = ciborium::from_reader(&mut self.0).context("the guest's answer")?;
        let Response::Reverse(answer) = answer;
        let count = bytes.len();
        ensure!(answer.iter().rev().eq(bytes), "{count} bytes came back wrong");
        Ok(())
    }

    /// It turns itself off.
    pub fn shut_down(mut self) -> Result<()> {
        self.ask(&Request::Shutdown)
    }

    fn ask(&mut self, request: &Request) -> Result<()> {
        let mut packet = Vec::new();
        ciborium::into_writer(request, &mut packet)?;
        self.0.write_all(&packet).context("a request to the guest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_that_rialto_reads() {
        let bytes = |request: &Request| {
            let mut packet = Vec::new();
            ciborium::into_writer(request, &mut packet).unwrap();
            packet
        };
        let reverse = Request::Process(Task::Reverse(vec![1, 200]));
        assert_eq!(bytes(&reverse), b"\xa1\x67Process\xa1\x67Reverse\x82\x01\x18\xc8");
        assert_eq!(bytes(&Request::Shutdown), b"\x68Shutdown");
    }
}
