// SPDX-License-Identifier: Apache-2.0
//! A client of a bootstrap socket, byte by byte (libbinder's protocol, versions 0 to 2).

use crate::parcel::{Reader, Writer};
use nix::poll::{PollFd, PollFlags};
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Android 16's.
pub const VERSION: u32 = 2;
const FD_MODE_UNIX: u8 = 1;
/// The connection is for calls to the client.
const INCOMING: u8 = 1;

pub const TRANSACT: u32 = 0;
const REPLY: u32 = 1;
const DEC_STRONG: u32 = 2;
pub const ONEWAY: u32 = 1;

/// What every session has, at address 0.
const GET_ROOT: u32 = 0;
const GET_MAX_THREADS: u32 = 1;
const GET_SESSION_ID: u32 = 2;

/// A message.
pub struct Message {
    pub command: u32,
    pub body: Vec<u8>,
}

/// A connection.
pub struct Connection {
    socket: UnixStream,
    version: u32,
}

impl Connection {
    /// Makes a connection; `id` is empty for the first one of a session.
    fn new(bootstrap: &UnixStream, version: u32, options: u8, id: &[u8]) -> Self {
        // As libbinder makes them: neither end waits. Ours does here, for simplicity.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let socket = UnixStream::from(ours);
        socket.set_nonblocking(false).unwrap();
        send_with(bootstrap, &[0; 4], &[theirs.as_fd()]);
        let mut connection = Self { socket, version };
        let mut header = version.to_le_bytes().to_vec();
        header.extend([options, FD_MODE_UNIX]);
        header.extend([0; 8]);
        header.extend(u16::try_from(id.len()).unwrap().to_le_bytes());
        header.extend(id);
        connection.socket.write_all(&header).unwrap();
        connection
    }

    /// The first connection of a session.
    pub fn founding(bootstrap: &UnixStream) -> Self {
        let connection = Self::offering(bootstrap, VERSION);
        assert_eq!(connection.version, VERSION);
        connection
    }

    /// The first connection of a session, of a client whose newest version is this one.
    pub fn offering(bootstrap: &UnixStream, newest: u32) -> Self {
        let mut connection = Self::new(bootstrap, newest, 0, &[]);
        // The version that both speak.
        let answer = connection.read(8);
        connection.version = u32::from_le_bytes(answer[..4].try_into().unwrap());
        connection.initialize();
        connection
    }

    /// A further connection for calls to the server.
    pub fn outgoing(bootstrap: &UnixStream, id: &[u8]) -> Self {
        let mut connection = Self::new(bootstrap, VERSION, 0, id);
        connection.initialize();
        connection
    }

    /// Who will send calls says so.
    fn initialize(&mut self) {
        self.socket.write_all(b"cci\0\0\0\0\0").unwrap();
    }

    /// The version that both ends speak.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// A connection for calls to this end.
    pub fn incoming(bootstrap: &UnixStream, id: &[u8]) -> Self {
        let mut connection = Self::new(bootstrap, VERSION, INCOMING, id);
        assert_eq!(connection.read(8), b"cci\0\0\0\0\0");
        connection
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// For waiting on several.
    pub fn poll(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)
    }

    /// The next message; descriptors in it are not wanted.
    pub fn receive(&mut self) -> Message {
        let mut header = [0; 16];
        let mut filled = 0;
        while filled < header.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut fds = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut header[filled..])];
            let got = recvmsg(&self.socket, &mut parts, &mut fds, RecvFlags::CMSG_CLOEXEC).unwrap();
            assert_ne!(got.bytes, 0, "the server closed the connection");
            filled += got.bytes;
        }
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let body = self.read(usize::try_from(word(4)).unwrap());
        Message { command: word(0), body }
    }

    /// Calls; the answer is the reply's parcel.
    pub fn call(&mut self, address: u64, code: u32, parcel: &Writer) -> Vec<u8> {
        let mut body = address.to_le_bytes().to_vec();
        body.extend(code.to_le_bytes());
        body.extend([0; 12]);
        body.extend(u32::try_from(parcel.data.len()).unwrap().to_le_bytes());
        body.extend([0; 12]);
        body.extend(&parcel.data);
        body.extend(parcel.objects.iter().flat_map(|at| at.to_le_bytes()));
        let mut message = TRANSACT.to_le_bytes().to_vec();
        message.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        message.extend([0; 8]);
        message.extend(body);
        let fds: Vec<BorrowedFd<'_>> = parcel.fds.iter().map(AsFd::as_fd).collect();
        send_with(&self.socket, &message, &fds);
        loop {
            let message = self.receive();
            match message.command {
                REPLY => {
                    let status = i32::from_le_bytes(message.body[..4].try_into().unwrap());
                    assert_eq!(status, 0, "the call did not get through");
                    if self.version == 0 {
                        return message.body[4..].to_vec();
                    }
                    let size = u32::from_le_bytes(message.body[4..8].try_into().unwrap());
                    let end = 20 + usize::try_from(size).unwrap();
                    return message.body[20..end].to_vec();
                }
                // References that the server gives back.
                DEC_STRONG => {}
                other => panic!("command {other}"),
            }
        }
    }

    /// Gives back references to an object of the server's.
    pub fn release(&mut self, address: u64, count: u32) {
        let mut message = DEC_STRONG.to_le_bytes().to_vec();
        message.extend(16_u32.to_le_bytes());
        message.extend([0; 8]);
        message.extend(address.to_le_bytes());
        message.extend(count.to_le_bytes());
        message.extend([0; 4]);
        self.socket.write_all(&message).unwrap();
    }

    /// The server's root object.
    pub fn root(&mut self) -> u64 {
        Reader(&self.call(0, GET_ROOT, &Writer::default())).binder()
    }

    /// How many connections the server takes for calls to it.
    pub fn max_threads(&mut self) -> i32 {
        Reader(&self.call(0, GET_MAX_THREADS, &Writer::default())).int()
    }

    /// What further connections of the session say.
    pub fn session_id(&mut self) -> Vec<u8> {
        let reply = self.call(0, GET_SESSION_ID, &Writer::default());
        let mut reader = Reader(&reply);
        let len = usize::try_from(reader.int()).unwrap();
        reader.0[..len].to_vec()
    }
}

fn send_with(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let parts = [IoSlice::new(bytes)];
    let sent = sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    let mut socket = socket;
    socket.write_all(&bytes[sent..]).unwrap();
}
