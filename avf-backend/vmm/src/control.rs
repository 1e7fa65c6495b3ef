// SPDX-License-Identifier: Apache-2.0
//! The control socket: crosvm's, as far as virtmgr uses it. One SEQPACKET packet of JSON each way.

use crate::devices::virtio::balloon::handle::Handle;
use crate::devices::virtio::balloon::stats::BalloonStats;
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
    BalloonCommand(BalloonCommand),
}

/// What a client wants of the balloon.
#[derive(Debug, PartialEq, Eq, Deserialize)]
enum BalloonCommand {
    Adjust {
        num_bytes: u64,
        #[serde(default)]
        wait_for_success: bool,
    },
    Stats {},
}

/// The balloon, or why there is none.
pub type Balloon = Result<Arc<Handle>, &'static str>;

/// What it is told.
#[derive(Debug, PartialEq, Eq, Serialize)]
enum Response {
    Ok,
    BalloonStats { stats: BalloonStats, balloon_actual: u64 },
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
    pub fn serve(self, vcpus: Arc<VcpuThreads>, balloon: Balloon) -> io::Result<()> {
        thread::Builder::new().name("control".into()).spawn(move || loop {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => {
                    // SAFETY: accept4 returned `fd`, new and owned by nobody else.
                    let client = unsafe { OwnedFd::from_raw_fd(fd) };
                    if let Err(e) = converse(&client, &vcpus, &balloon) {
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
fn converse(client: &OwnedFd, vcpus: &VcpuThreads, balloon: &Balloon) -> nix::Result<()> {
    let mut packet = [0; PACKET];
    loop {
        let len = match recv(client.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(e),
        };
        let response = answer(&packet[..len], vcpus, balloon);
        // Nothing in a response can fail to become JSON.
        let text = serde_json::to_vec(&response).unwrap_or_default();
        send(client.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)?;
    }
}

fn answer(packet: &[u8], vcpus: &VcpuThreads, balloon: &Balloon) -> Response {
    match serde_json::from_slice(packet) {
        Ok(Request::SuspendVcpus) if vcpus.suspend() => Response::Ok,
        Ok(Request::SuspendVcpus) => Response::ErrString("a vCPU does not stop".into()),
        Ok(Request::ResumeVcpus) => {
            vcpus.resume();
            Response::Ok
        }
        Ok(Request::BalloonCommand(command)) => match balloon {
            Ok(balloon) => ask_balloon(command, balloon).unwrap_or_else(Response::ErrString),
            Err(why) => Response::ErrString((*why).into()),
        },
        Err(e) => Response::ErrString(format!("not understood: {e}")),
    }
}

fn ask_balloon(command: BalloonCommand, balloon: &Handle) -> Result<Response, String> {
    match command {
        BalloonCommand::Adjust { num_bytes, wait_for_success } => {
            balloon.adjust(num_bytes, wait_for_success).map(|()| Response::Ok)
        }
        BalloonCommand::Stats {} => {
            let (stats, balloon_actual) = balloon.stats()?;
            Ok(Response::BalloonStats { stats, balloon_actual })
        }
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
        let none = Err("there is no balloon");
        Control::open(&path).unwrap().serve(Arc::default(), none).unwrap();
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
        let adjust = r#"{"BalloonCommand":{"Adjust":{"num_bytes":"1"}}}"#;
        assert!(ask(&path, adjust).starts_with(r#"{"ErrString":"not understood"#));
        assert!(ask(&path, "\"MakeRT\"").starts_with(r#"{"ErrString":"not understood"#));
        assert!(ask(&path, "\u{0}").starts_with(r#"{"ErrString":"not understood"#));
    }

    #[test]
    fn the_balloon_is_adjusted_and_told() {
        let handle = Arc::new(Handle::new().unwrap());
        let balloon = Ok(Arc::clone(&handle));
        let told = |request: &str| {
            let response = answer(request.as_bytes(), &VcpuThreads::default(), &balloon);
            serde_json::to_string(&response).unwrap()
        };
        let adjust = r#"{"BalloonCommand":{"Adjust":{"num_bytes":8192,"wait_for_success":false}}}"#;
        assert_eq!(told(adjust), r#""Ok""#);
        assert_eq!(handle.target(), 2);
        let stats = r#"{"BalloonCommand":{"Stats":{}}}"#;
        assert!(told(stats).starts_with(r#"{"ErrString":"the guest does not use"#));
        let stats = BalloonStats { swap_in: Some(3), ..BalloonStats::default() };
        let response = Response::BalloonStats { stats, balloon_actual: 4096 };
        let text = serde_json::to_string(&response).unwrap();
        // crosvm's words and order.
        let words = r#"{"BalloonStats":{"stats":{"swap_in":3,"swap_out":null,"major_faults":null,"#;
        assert!(text.starts_with(words), "{text}");
        assert!(text.ends_with(r#""unevictable_memory":null},"balloon_actual":4096}}"#), "{text}");
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
