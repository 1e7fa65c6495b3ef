// SPDX-License-Identifier: Apache-2.0
//! The VMM's control socket: crosvm's. One SEQPACKET packet of JSON each way.

use anyhow::{anyhow, bail, Context, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    bind, connect, listen, recv, send, socket_with, AddressFamily, RecvFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::{json, Value};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its name in a VM's directory.
const NAME: &str = "crosvm.sock";
/// Clients that may wait.
const BACKLOG: i32 = 8;
/// How long the VMM may take: it may have to stop all vCPUs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the largest answer.
const PACKET: usize = 4096;

/// A VM's control socket.
#[derive(Clone, Debug)]
pub struct Control(PathBuf);

impl Control {
    /// Makes the socket in a VM's directory; the VMM gets the end that listens.
    pub fn create(dir: &Path) -> Result<(Self, OwnedFd)> {
        let path = dir.join(NAME);
        let make = || -> rustix::io::Result<OwnedFd> {
            let socket = seqpacket()?;
            bind(&socket, &SocketAddrUnix::new(&path)?)?;
            listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let socket = make().with_context(|| format!("cannot make {}", path.display()))?;
        Ok((Self(path), socket))
    }

    /// Stops all vCPUs.
    pub fn suspend(&self) -> Result<()> {
        accepted(&self.ask(&json!("SuspendVcpus"))?)
    }

    /// Has them go on.
    pub fn resume(&self) -> Result<()> {
        accepted(&self.ask(&json!("ResumeVcpus"))?)
    }

    /// Wishes for a balloon of this size in bytes. A wish is no order, in AVF too: that the VMM
    /// refuses is no error.
    pub fn set_balloon(&self, bytes: u64) -> Result<()> {
        let adjust = json!({ "Adjust": { "num_bytes": bytes, "wait_for_success": false } });
        let answer = self.ask(&json!({ "BalloonCommand": adjust }))?;
        if let Err(e) = accepted(&answer) {
            log::info!("the balloon stays as it is: {e}");
        }
        Ok(())
    }

    /// Bytes in the balloon; none in one that is not there, or that the guest does not use (yet).
    pub fn balloon(&self) -> Result<u64> {
        let answer = self.ask(&json!({ "BalloonCommand": { "Stats": {} } }))?;
        if answer == json!({ "Err": Errno::NOTSUP.raw_os_error() }) {
            return Ok(0);
        }
        let actual = answer.pointer("/BalloonStats/balloon_actual").and_then(Value::as_u64);
        actual.ok_or_else(|| refusal(&answer))
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let ask = || -> Result<Value> {
            let socket = seqpacket()?;
            for direction in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&socket, direction, Some(PATIENCE))?;
            }
            connect(&socket, &SocketAddrUnix::new(&self.0)?)?;
            send(&socket, &serde_json::to_vec(request)?, SendFlags::NOSIGNAL)?;
            let mut answer = [0; PACKET];
            let (_, len) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
            Ok(serde_json::from_slice(answer.get(..len).unwrap_or_default())?)
        };
        ask().with_context(|| format!("{}: the VMM does not answer", self.0.display()))
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

fn accepted(answer: &Value) -> Result<()> {
    if *answer != json!("Ok") {
        bail!(refusal(answer));
    }
    Ok(())
}

fn refusal(answer: &Value) -> anyhow::Error {
    let number = answer.get("Err").and_then(Value::as_i64).and_then(|e| i32::try_from(e).ok());
    match (answer.get("ErrString").and_then(Value::as_str), number) {
        (Some(words), _) => anyhow!("the VMM: {words}"),
        (None, Some(number)) => anyhow!("the VMM: {}", io::Error::from_raw_os_error(number)),
        (None, None) => anyhow!("the VMM's answer is not understood: {answer}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::accept;
    use std::thread::{self, JoinHandle};

    /// A VMM that answers once; the result is what it was asked.
    fn vmm(answer: &'static str) -> (tempfile::TempDir, Control, JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let (control, listener) = Control::create(dir.path()).unwrap();
        let thread = thread::spawn(move || {
            let client = accept(listener).unwrap();
            let mut packet = [0; PACKET];
            let (_, len) = recv(&client, &mut packet[..], RecvFlags::empty()).unwrap();
            send(&client, answer.as_bytes(), SendFlags::NOSIGNAL).unwrap();
            String::from_utf8(packet[..len].to_vec()).unwrap()
        });
        (dir, control, thread)
    }

    #[test]
    fn requests_are_crosvms() {
        let (_dir, control, asked) = vmm("\"Ok\"");
        control.suspend().unwrap();
        assert_eq!(asked.join().unwrap(), "\"SuspendVcpus\"");
        let (_dir, control, asked) = vmm("\"Ok\"");
        control.resume().unwrap();
        assert_eq!(asked.join().unwrap(), "\"ResumeVcpus\"");
        let (_dir, control, asked) = vmm("\"Ok\"");
        control.set_balloon(1 << 20).unwrap();
        let adjust =
            r#"{"BalloonCommand":{"Adjust":{"num_bytes":1048576,"wait_for_success":false}}}"#;
        assert_eq!(asked.join().unwrap(), adjust);
        let (_dir, control, asked) = vmm(r#"{"BalloonStats":{"stats":{},"balloon_actual":4096}}"#);
        assert_eq!(control.balloon().unwrap(), 4096);
        assert_eq!(asked.join().unwrap(), r#"{"BalloonCommand":{"Stats":{}}}"#);
    }

    #[test]
    fn a_refusal_has_the_vmms_words() {
        let (_dir, control, _asked) = vmm(r#"{"ErrString":"a vCPU does not stop"}"#);
        assert_eq!(control.suspend().unwrap_err().to_string(), "the VMM: a vCPU does not stop");
        let (_dir, control, _asked) = vmm(r#"{"Err":5}"#);
        let error = control.balloon().unwrap_err().to_string();
        assert!(error.contains("Input/output error"), "{error}");
        let (_dir, control, _asked) = vmm("7");
        assert!(control.suspend().unwrap_err().to_string().contains("not understood: 7"));
    }

    #[test]
    fn no_balloon_is_an_empty_one() {
        let (_dir, control, _asked) = vmm(r#"{"Err":95}"#);
        assert_eq!(control.balloon().unwrap(), 0);
        let (_dir, control, asked) = vmm(r#"{"ErrString":"there is no balloon"}"#);
        control.set_balloon(4096).unwrap();
        assert!(asked.join().unwrap().contains("4096"));
        let (_dir, control, asked) = vmm("\"Ok\"");
        drop((control.suspend(), asked.join()));
        assert!(control.set_balloon(4096).is_err(), "nobody listens");
    }
}
