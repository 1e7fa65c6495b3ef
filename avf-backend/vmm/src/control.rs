// SPDX-License-Identifier: Apache-2.0
//! The control socket: crosvm's, as far as AVF and crosvm's own commands for a VM's life and balloon
//! use it. One SEQPACKET packet of JSON each way.

use crate::devices::virtio::balloon::handle::Handle;
use crate::devices::virtio::balloon::stats::BalloonStats;
use crate::event::VmEvent;
use crate::vcpu::VcpuThreads;
use nix::errno::Errno;
use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{
    accept4, bind, connect, getsockopt, listen, recv, send, socket, AddressFamily, Backlog,
    MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::unistd::unlink;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::Arc;
use std::thread;

/// Bytes of the largest request.
const PACKET: usize = 4096;
/// Clients that may wait for being accepted.
const BACKLOG: i32 = 8;
/// Clients that are served at once; further ones wait.
const CLIENTS: usize = 16;

/// What a client asks for. Devices only act for vCPUs, so that crosvm's two kinds of suspension are
/// one here.
#[derive(Debug, PartialEq, Eq, Deserialize)]
enum Request {
    #[serde(alias = "SuspendVm")]
    SuspendVcpus,
    #[serde(alias = "ResumeVm")]
    ResumeVcpus,
    Exit,
    BalloonCommand(BalloonRequest),
}

/// crosvm knows the request for statistics as a word, clients send it as an object, too.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum BalloonRequest {
    Command(BalloonCommand),
    Word(BalloonWord),
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
enum BalloonWord {
    Stats,
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
    BalloonStats {
        stats: BalloonStats,
        balloon_actual: u64,
    },
    /// An errno.
    Err(i32),
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
            return match getsockopt(&listener, AcceptConn) {
                Ok(true) => Ok(Self { listener }),
                Ok(false) => Err(io::Error::new(ErrorKind::InvalidInput, "it does not listen")),
                Err(Errno::ENOTSOCK) => Err(io::Error::new(ErrorKind::InvalidInput, "no socket")),
                Err(e) => Err(e.into()),
            };
        }
        let address = UnixAddr::new(path).map_err(|e| match e {
            Errno::ENAMETOOLONG => {
                io::Error::new(ErrorKind::InvalidInput, "a socket's name has 107 bytes at most")
            }
            other => other.into(),
        })?;
        remove_unused(path, &address)?;
        let listener = new_socket(SockFlag::empty())?;
        bind(listener.as_raw_fd(), &address)?;
        listen(&listener, Backlog::new(BACKLOG)?)?;
        Ok(Self { listener })
    }

    /// Serves clients for as long as the process lives.
    pub fn serve(self, vm: Commanded) -> io::Result<()> {
        let vm = Arc::new(vm);
        thread::Builder::new().name("control".into()).spawn(move || loop {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => {
                    // SAFETY: accept4 returned `fd`, new and owned by nobody else.
                    let client = unsafe { OwnedFd::from_raw_fd(fd) };
                    attend(client, &vm);
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

fn new_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, flags | SockFlag::SOCK_CLOEXEC, None)
}

/// Removes a socket that an earlier VM left behind; nothing else, and none where somebody listens.
fn remove_unused(path: &Path, address: &UnixAddr) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file already")),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match connect(new_socket(SockFlag::SOCK_NONBLOCK)?.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => Ok(unlink(path)?),
        Err(Errno::ENOENT) => Ok(()),
        // The latter where so many clients wait that the next one would have to.
        Ok(()) | Err(Errno::EAGAIN) => {
            Err(io::Error::new(ErrorKind::AddrInUse, "another VM uses it"))
        }
        Err(e) => Err(e.into()),
    }
}

/// Serves a client in a thread of its own: one that stays connected, or waits for the balloon, is
/// nobody's obstacle. With [`CLIENTS`] such threads running it is served here.
fn attend(client: OwnedFd, vm: &Arc<Commanded>) {
    let serve = |client: &OwnedFd, vm: &Commanded| {
        if let Err(e) = vm.converse(client) {
            log::debug!("control socket: {e}");
        }
    };
    // Each thread holds a reference, and so does the caller.
    if Arc::strong_count(vm) > CLIENTS {
        return serve(&client, vm);
    }
    let vm = Arc::clone(vm);
    let thread = thread::Builder::new().name("control client".into());
    if let Err(e) = thread.spawn(move || serve(&client, &vm)) {
        log::warn!("a client of the control socket is not served: {e}");
    }
}

/// What commands act on.
#[derive(Debug)]
pub struct Commanded {
    /// The vCPUs.
    pub vcpus: Arc<VcpuThreads>,
    /// The balloon.
    pub balloon: Balloon,
    /// Told when a client asks for the end.
    pub events: Sender<VmEvent>,
}

impl Commanded {
    /// Answers one client until it closes.
    fn converse(&self, client: &OwnedFd) -> nix::Result<()> {
        let mut packet = [0; PACKET];
        loop {
            let len = match recv(client.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(0) => return Ok(()),
                Ok(len) => len,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e),
            };
            let request = serde_json::from_slice(&packet[..len]);
            let exit = matches!(request, Ok(Request::Exit));
            let response = match request {
                Ok(request) => self.answer(request),
                Err(e) => Response::ErrString(format!("not understood: {e}")),
            };
            // Nothing in a response can fail to become JSON.
            let text = serde_json::to_vec(&response).unwrap_or_default();
            send(client.as_raw_fd(), &text, MsgFlags::MSG_NOSIGNAL)?;
            if exit {
                // Behind the answer, which the end of the process could overtake. Nobody listens
                // any more when the VM is ending anyway.
                let _ = self.events.send(VmEvent::Stopped);
            }
        }
    }

    fn answer(&self, request: Request) -> Response {
        match request {
            Request::SuspendVcpus if self.vcpus.suspend() => Response::Ok,
            Request::SuspendVcpus => Response::ErrString("a vCPU does not stop".into()),
            Request::ResumeVcpus => {
                self.vcpus.resume();
                Response::Ok
            }
            Request::Exit => Response::Ok,
            Request::BalloonCommand(BalloonRequest::Command(BalloonCommand::Adjust {
                num_bytes,
                wait_for_success,
            })) => self.adjust(num_bytes, wait_for_success),
            Request::BalloonCommand(_) => self.stats(),
        }
    }

    fn adjust(&self, num_bytes: u64, wait: bool) -> Response {
        match &self.balloon {
            Ok(balloon) => match balloon.adjust(num_bytes, wait) {
                Ok(()) => Response::Ok,
                Err(why) => Response::ErrString(why),
            },
            Err(why) => Response::ErrString((*why).into()),
        }
    }

    /// virtmgr takes exactly ENOTSUP for "no balloon, or the guest does not use it (yet)", which is
    /// no error there; so the words go to the log.
    fn stats(&self) -> Response {
        let stats = match &self.balloon {
            Ok(balloon) => balloon.stats(),
            Err(why) => Err((*why).into()),
        };
        match stats {
            Ok((stats, balloon_actual)) => Response::BalloonStats { stats, balloon_actual },
            Err(why) => {
                log::debug!("balloon statistics: {why}");
                Response::Err(libc::ENOTSUP)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::mpsc::{channel, Receiver};

    fn vm(balloon: Balloon) -> (Commanded, Receiver<VmEvent>) {
        let (events, receiver) = channel();
        (Commanded { vcpus: Arc::default(), balloon, events }, receiver)
    }

    #[test]
    fn clients_are_answered_in_crosvms_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crosvm.sock");
        let control = Control::open(&path).unwrap();
        drop(control);
        // The name that is left behind is no obstacle.
        let (vm, events) = vm(Err("there is no balloon"));
        Control::open(&path).unwrap().serve(vm).unwrap();
        // Who stays connected is none either.
        let idle = client(&path);
        for (request, expected) in [
            (r#""SuspendVcpus""#, r#""Ok""#),
            (r#""ResumeVcpus""#, r#""Ok""#),
            (r#""SuspendVm""#, r#""Ok""#),
            (r#""ResumeVm""#, r#""Ok""#),
            (r#"{"BalloonCommand":"Stats"}"#, r#"{"Err":95}"#),
            (r#"{"BalloonCommand":{"Stats":{}}}"#, r#"{"Err":95}"#),
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
        assert!(events.try_recv().is_err());
        assert_eq!(ask(&path, r#""Exit""#), r#""Ok""#);
        assert_eq!(events.recv(), Ok(VmEvent::Stopped));
        drop(idle);
    }

    #[test]
    fn nobodys_file_or_socket_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Control::open(path).map(drop).unwrap_err().to_string();
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(refused(&file), "there is a file already");
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        let path = dir.path().join("crosvm.sock");
        let other = Control::open(&path).unwrap();
        assert_eq!(refused(&path), "another VM uses it");
        client(&path);
        drop(other);
        drop(Control::open(&path).unwrap());
        assert!(refused(&dir.path().join("x".repeat(200))).contains("107 bytes"));
        // Handed over, but nothing that listens.
        let client = new_socket(SockFlag::empty()).unwrap();
        let named = |fd: i32| PathBuf::from(format!("/proc/self/fd/{fd}"));
        assert_eq!(refused(&named(client.as_raw_fd())), "it does not listen");
        let file = std::fs::File::open(&file).unwrap();
        assert_eq!(refused(&named(file.as_raw_fd())), "no socket");
    }

    #[test]
    fn clients_wait_where_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crosvm.sock");
        let (vm, _events) = vm(Err(""));
        Control::open(&path).unwrap().serve(vm).unwrap();
        let mut idle: Vec<_> = (0..CLIENTS).map(|_| client(&path)).collect();
        let waiting = client(&path);
        send(waiting.as_raw_fd(), br#""ResumeVcpus""#, MsgFlags::empty()).unwrap();
        idle.clear();
        assert_eq!(receive(&waiting), r#""Ok""#);
    }

    #[test]
    fn the_balloon_is_adjusted_and_told() {
        let handle = Arc::new(Handle::new().unwrap());
        let (vm, _events) = vm(Ok(Arc::clone(&handle)));
        let told = |request: &str| {
            serde_json::to_string(&vm.answer(serde_json::from_str(request).unwrap())).unwrap()
        };
        let adjust = r#"{"BalloonCommand":{"Adjust":{"num_bytes":8192,"wait_for_success":false}}}"#;
        assert_eq!(told(adjust), r#""Ok""#);
        assert_eq!(handle.target(), 2);
        let stats = r#"{"BalloonCommand":{"Stats":{}}}"#;
        assert_eq!(told(stats), r#"{"Err":95}"#, "the guest does not use it");
        let stats = BalloonStats { swap_in: Some(3), ..BalloonStats::default() };
        let response = Response::BalloonStats { stats, balloon_actual: 4096 };
        let text = serde_json::to_string(&response).unwrap();
        // crosvm's words and order.
        let words = r#"{"BalloonStats":{"stats":{"swap_in":3,"swap_out":null,"major_faults":null,"#;
        assert!(text.starts_with(words), "{text}");
        assert!(text.ends_with(r#""unevictable_memory":null},"balloon_actual":4096}}"#), "{text}");
    }

    fn client(path: &Path) -> OwnedFd {
        let client =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        client
    }

    fn ask(path: &Path, request: &str) -> String {
        let client = client(path);
        send(client.as_raw_fd(), request.as_bytes(), MsgFlags::empty()).unwrap();
        receive(&client)
    }

    fn receive(client: &OwnedFd) -> String {
        let mut answer = [0; PACKET];
        let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
        String::from_utf8(answer[..len].to_vec()).unwrap()
    }
}
