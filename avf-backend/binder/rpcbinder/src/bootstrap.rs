// SPDX-License-Identifier: Apache-2.0
//! The bootstrap socket: one message for each connection.

use rustix::fs::{fcntl_getfl, fcntl_setfl, OFlags};
use rustix::io::Errno;
use rustix::net::{
    recvmsg, sendmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage,
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// What travels beside a descriptor: an `int` of value 0.
const MESSAGE: [u8; 4] = [0; 4];

/// Makes a connection: sends one end of a new socketpair, and returns the other.
pub fn connect(bootstrap: impl AsFd) -> io::Result<OwnedFd> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let fds = [theirs.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // There is room for it.
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    loop {
        let parts = [IoSlice::new(&MESSAGE)];
        match sendmsg(&bootstrap, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(len) if len == MESSAGE.len() => return Ok(ours),
            // Four bytes are not split.
            Ok(len) => return Err(io::Error::other(format!("{len} bytes of 4 were sent"))),
        }
    }
}

/// Waits for a connection. `None`: the client has closed the socket.
pub fn accept(bootstrap: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut message = MESSAGE;
    // Room for more than one: what does not fit would be lost unseen.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut message)];
        match recvmsg(&bootstrap, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The client died with messages unread.
            Err(Errno::CONNRESET) => return Ok(None),
            Err(e) => return Err(e.into()),
            Ok(received) => break received.bytes,
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let mut fds = ancillary.drain().flat_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    match (fds.next(), fds.next()) {
        (Some(fd), None) => blocking(fd).map(Some),
        (None, _) => Err(invalid("a message without a descriptor")),
        (Some(_), Some(_)) => Err(invalid("a message with several descriptors")),
    }
}

/// Has calls on a socket wait. libbinder's client makes sockets that do not; the flag is the end's own.
pub fn blocking(socket: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&socket)?;
    if flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(&socket, flags - OFlags::NONBLOCK)?;
    }
    Ok(socket)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bootstrap socket: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_connection_is_a_new_socket() {
        let (client, server) = UnixStream::pair().unwrap();
        let mut ours = UnixStream::from(connect(&client).unwrap());
        let mut theirs = UnixStream::from(accept(&server).unwrap().unwrap());
        ours.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        theirs.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
        drop(client);
        assert!(accept(&server).unwrap().is_none());
    }

    #[test]
    fn sockets_that_do_not_wait_are_made_to() {
        let (client, server) = UnixStream::pair().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let parts = [IoSlice::new(&MESSAGE)];
        sendmsg(&client, &parts, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        let accepted = accept(&server).unwrap().unwrap();
        assert!(!fcntl_getfl(&accepted).unwrap().contains(OFlags::NONBLOCK));
        // The other end is the client's business.
        assert!(fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_message_without_descriptor_is_an_error() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&MESSAGE).unwrap();
        assert_eq!(accept(&server).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nobody_listens() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(server);
        assert_eq!(connect(&client).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
