// SPDX-License-Identifier: Apache-2.0
//! The control socket: crosvm's, as far as virtmgr uses it. One SEQPACKET packet of JSON each way.

use crate::vcpu::VcpuThreads;
use nix::errno::Errno;
use nix::sys::socket::{
    accept4, bind, listen, recv, send, socket, AddressFamily, Backlog, MsgFlags, SockFlag,
    SockType, UnixAddr,
};
use nix::unistd::unlink;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Bytes of the largest request.
const PACKET: usize = 4096;
/// Clients that may wait; they are served one after the other.
const BACKLOG: i32 = 8;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
enum Request {
    SuspendVcpus,
    ResumeVcpus,
    BalloonCommand(serde_json::Value),
}

/// What it is told.
#[derive(Debug, PartialEq, Eq, Serialize)]
enum Response {
    Ok,
    ErrString(String),
}

/// A listening socket.
#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
}

impl Control {
    /// Takes the socket that `path` names: an inherited one, listening already, or a new one.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(listener) = crate::files::take_inherited(path)? {
            return Ok(Self { listener });
        }
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        // One that an earlier VM left behind.
        match unlink(path) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(Self { listener })
    }

    /// Serves clients for as long as the process lives.
    pub fn serve(self, vcpus: Arc<VcpuThreads>) -> io::Result<()> {
        thread::Builder::new().name("control".into()).spawn(move || loop {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => {
                    // SAFETY: accept4 returned `fd`, new and owned by nobody else.
                    let client = unsafe { OwnedFd::from_raw_fd(fd) };
                    if let Err(e) = converse(&client, &vcpus) {
                        log::debug!("control socket: {e}");
                    }
                }
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(e) => {
                    log::warn!("no more commands are taken: {e}");
                    return;
                }
            }
        })?;
        Ok(())
    }
}

/// Answers one client until it closes.
fn converse(client: &OwnedFd, vcpus: &VcpuThreads) -> nix::Result<()> {
    let mut packet = [0; PACKET];
    loop {
        let len = match recv(client.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
        };
        let response = answer(&packet[..len], vcpus);
        // Nothing in a response can fail to become JSON.
        let text = serde_json::to_vec(&response).unwrap_or_default();
        send(client.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)?;
    }
}

fn answer(packet: &[u8], vcpus: &VcpuThreads) -> Response {
    match serde_json::from_slice(packet) {
        Ok(Request::SuspendVcpus) if vcpus.suspend() => Response::Ok,
        Ok(Request::SuspendVcpus) => Response::ErrString("a vCPU does not stop".into()),
        Ok(Request::ResumeVcpus) => {
            vcpus.resume();
            Response::Ok
        }
        Ok(Request::BalloonCommand(_)) => Response::ErrString("there is no balloon".into()),
        Err(e) => Response::ErrString(format!("not understood: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::connect;

    #[test]
    fn clients_are_answered_in_crosvms_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crosvm.sock");
        let control = Control::open(&path).unwrap();
        drop(control);
        // The name that is left behind is no obstacle.
        Control::open(&path).unwrap().serve(Arc::default()).unwrap();
        for (request, expected) in [
            (r#""SuspendVcpus""#, r#""Ok""#),
            (r#""ResumeVcpus""#, r#""Ok""#),
            (
                r#"{"BalloonCommand":{"Adjust":{"num_bytes":1,"wait_for_success":false}}}"#,
                r#"{"ErrString":"there is no balloon"}"#,
            ),
        ] {
            assert_eq!(ask(&path, request), expected);
        }
        assert!(ask(&path, "\"MakeRT\"").starts_with(r#"{"ErrString":"not understood"#));
        assert!(ask(&path, "\u{0}").starts_with(r#"{"ErrString":"not understood"#));
    }

    fn ask(path: &Path, request: &str) -> String {
        let client =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        send(client.as_raw_fd(), request.as_bytes(), MsgFlags::empty()).unwrap();
        let mut answer = [0; PACKET];
        let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        String::from_utf8(answer[..len].to_vec()).unwrap()
    }
}
