// SPDX-License-Identifier: Apache-2.0
//! Numbered streams of bytes that both ends know: each end sends its own and checks the other's.

use std::io::{self, Read, Write};
use std::thread;

/// Bytes of one write.
const CHUNK: usize = 64 * 1024;

/// A sequence of bytes that depends on its number only (xorshift64).
struct Bytes(u64);

impl Bytes {
    fn new(number: u64) -> Self {
        // Any constant but 0 will do.
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// Which stream an end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that connected.
    Connector,
    /// The one that accepted.
    Acceptor,
}

impl End {
    fn number(self, stream: u64) -> u64 {
        2 * stream + u64::from(self == Self::Acceptor)
    }
}

/// Sends `size` bytes of this end's stream while receiving and checking as many of the other's.
pub fn exchange<S: Read + Send, T: Write + Send>(
    (mut from, mut to): (S, T),
    end: End,
    stream: u64,
    size: usize,
) -> io::Result<()> {
    let other = if end == End::Connector { End::Acceptor } else { End::Connector };
    thread::scope(|scope| {
        let sending = scope.spawn(move || {
            let mut bytes = Bytes::new(end.number(stream));
            let mut buffer = vec![0; CHUNK];
            for start in (0..size).step_by(CHUNK) {
                let part = &mut buffer[..CHUNK.min(size - start)];
                bytes.fill(part);
                to.write_all(part)?;
            }
            to.flush()
        });
        let mut bytes = Bytes::new(other.number(stream));
        let (mut wanted, mut got) = (vec![0; CHUNK], vec![0; CHUNK]);
        for start in (0..size).step_by(CHUNK) {
            let len = CHUNK.min(size - start);
            bytes.fill(&mut wanted[..len]);
            from.read_exact(&mut got[..len])?;
            if wanted[..len] != got[..len] {
                return Err(io::Error::other(format!("stream {stream} differs behind {start}")));
            }
        }
        sending.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))
    })
}

/// Exchanges streams over all of `sockets` at once. Who accepts learns a stream's number from the
/// connector's first byte, because connections may be accepted in another order.
pub fn exchange_all<S>(sockets: Vec<S>, end: End, size: usize) -> io::Result<()>
where
    S: Sync,
    for<'a> &'a S: Read + Write + Send,
{
    thread::scope(|scope| {
        let start = |(index, socket)| {
            scope.spawn(move || {
                let number = agree(socket, end, index)?;
                exchange((socket, socket), end, number.into(), size)
            })
        };
        let running: Vec<_> = (0..).zip(&sockets).map(start).collect();
        let ended = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a stream panicked")))
        });
        ended.collect::<io::Result<Vec<()>>>().map(drop)
    })
}

fn agree<S>(socket: &S, end: End, index: u8) -> io::Result<u8>
where
    for<'a> &'a S: Read + Write,
{
    let (mut socket, mut number) = (socket, [index]);
    match end {
        End::Connector => socket.write_all(&number)?,
        End::Acceptor => socket.read_exact(&mut number)?,
    }
    Ok(number[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn ends_understand_each_other_and_notice_another_stream() {
        const SIZE: usize = 3 * CHUNK / 2 + 5;
        for (theirs, ok) in [(1, true), (2, false)] {
            let (a, b) = UnixStream::pair().unwrap();
            let other = thread::spawn(move || exchange((&b, &b), End::Acceptor, theirs, SIZE));
            assert_eq!(exchange((&a, &a), End::Connector, 1, SIZE).is_ok(), ok);
            drop(a);
            assert_eq!(other.join().unwrap().is_ok(), ok);
        }
    }

    #[test]
    fn streams_find_their_numbers() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (a, b) = UnixStream::pair().unwrap();
            ours.push(a);
            theirs.insert(0, b);
        }
        let other = thread::spawn(move || exchange_all(theirs, End::Acceptor, 1000));
        exchange_all(ours, End::Connector, 1000).unwrap();
        other.join().unwrap().unwrap();
    }
}
