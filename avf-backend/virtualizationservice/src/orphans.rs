// SPDX-License-Identifier: Apache-2.0
//! VMs of an earlier service, which go on without it: each is known by its control socket, which its
//! virtmgr and its VMM hold open, and its user by whom its directory belongs to.

use avf_aidl::aidl::virtualizationservice::VirtualMachineDebugInfo::VirtualMachineDebugInfo;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{connect, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What virtmgr calls a VM's control socket.
const SOCKET: &str = "crosvm.sock";

/// The VM that has this directory; `None` if it has ended.
pub fn find(dir: &Path, cid: u32) -> Option<VirtualMachineDebugInfo> {
    let socket = knock(dir).ok()?;
    let uid = fs::symlink_metadata(dir).ok()?.uid();
    Some(VirtualMachineDebugInfo {
        cid: i32::try_from(cid).ok()?,
        temporaryDirectory: dir.display().to_string(),
        requesterUid: i32::try_from(uid).ok()?,
        requesterPid: socket.and_then(|socket| client(&socket)).unwrap_or_default(),
        hostConsoleName: None,
    })
}

/// Whether the VM that has this directory has not ended.
pub fn lives(dir: &Path) -> bool {
    knock(dir).is_ok()
}

/// Connects to a VM's control socket, and says nothing. It is there, but nothing has come of it, if
/// as many wait as may.
fn knock(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(dir.join(SOCKET))?) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The process that wanted the VM: the parent of that which listens, which is virtmgr.
fn client(socket: &OwnedFd) -> Option<i32> {
    let virtmgr = socket_peercred(socket).ok()?.pid.as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{virtmgr}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rustix::net::{bind, listen};
    use rustix::process::{getppid, getuid};

    /// A VM's control socket.
    pub fn listen_in(dir: &Path) -> OwnedFd {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(dir.join(SOCKET)).unwrap()).unwrap();
        listen(&socket, 1).unwrap();
        socket
    }

    #[test]
    fn a_vm_lives_as_long_as_somebody_listens() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path();
        assert!(!lives(dir) && find(dir, 2048).is_none(), "no socket");
        let socket = listen_in(dir);
        let info = find(dir, 2048).unwrap();
        assert_eq!((info.cid, info.temporaryDirectory), (2048, dir.display().to_string()));
        assert_eq!(u32::try_from(info.requesterUid), Ok(getuid().as_raw()));
        assert_eq!(Some(info.requesterPid), getppid().map(|pid| pid.as_raw_nonzero().get()));
        // More knock than may wait.
        for _ in 0..4 {
            assert!(lives(dir));
        }
        drop(socket);
        assert!(!lives(dir), "the socket's file is still there");
    }
}
