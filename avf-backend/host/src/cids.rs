// SPDX-License-Identifier: Apache-2.0
//! vsock context ids of VMs. Who gives one away takes a socket's name with it, in the abstract
//! namespace: others see that it is in use for as long as the socket is open, also after processes
//! were killed.

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Those that VMs have, as in AVF.
pub const CIDS: RangeInclusive<u32> = 2048..=65_535;

/// An id that is in use. Dropping it, or the process's end, gives it back.
#[derive(Debug)]
pub struct Taken(
    /// Nobody ever connects.
    #[allow(dead_code)]
    UnixListener,
);

impl Taken {
    /// Takes an id; `None`, if somebody has it.
    ///
    /// # Errors
    ///
    /// When there are no sockets.
    pub fn take(cid: u32) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("gzvm-cid-{cid}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self(socket))),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// All ids, from the one behind `last`; behind the end, from the beginning again.
pub fn after(last: Option<u32>) -> impl Iterator<Item = u32> {
    let (first, end) = (*CIDS.start(), *CIDS.end());
    let next = last.filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    (next..=end).chain(first..next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_once() {
        // None of a VM's, so that no other test has it.
        let cid = 1_000_000 + std::process::id();
        let taken = Taken::take(cid).unwrap().unwrap();
        assert!(Taken::take(cid).unwrap().is_none());
        drop(taken);
        assert!(Taken::take(cid).unwrap().is_some());
    }

    #[test]
    fn ids_follow_each_other_and_wrap() {
        let first = |last| after(last).next();
        assert_eq!((first(None), first(Some(2048))), (Some(2048), Some(2049)));
        assert_eq!(first(Some(65_535)), Some(2048));
        assert_eq!(after(Some(65_533)).take(3).collect::<Vec<_>>(), [65_534, 65_535, 2048]);
        // What was kept elsewhere may be anything.
        assert_eq!((first(Some(7)), first(Some(u32::MAX))), (Some(2048), Some(2048)));
        // Each once, wherever it begins.
        for last in [None, Some(2048), Some(40_000), Some(65_535)] {
            let mut all: Vec<_> = after(last).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(CIDS), "{last:?}");
        }
    }
}
