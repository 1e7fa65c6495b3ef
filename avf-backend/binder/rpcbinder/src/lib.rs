// SPDX-License-Identifier: Apache-2.0
//! AOSP's `rpcbinder` crate in those of its parts that this project uses, on top of `rsbinder`:
//! binder calls over Unix sockets that begin with a *bootstrap* socket.
//!
//! AVF's `vm` and its virtmgr share one socket from the start (a socketpair, of which virtmgr
//! inherits one end). For each connection of the session, those for callbacks too, the client makes
//! another socketpair and sends one end over the bootstrap socket, as `SCM_RIGHTS` beside four zero
//! bytes. Binder's own connection header then follows on the new socket. When the client closes the
//! bootstrap socket, it has gone.
#![forbid(unsafe_code)]

mod bootstrap;
mod client;
mod server;

pub use client::RpcSession;
pub use server::RpcServer;

/// How file descriptors travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileDescriptorTransportMode {
    /// Not at all.
    #[default]
    None,
    /// As `SCM_RIGHTS`.
    Unix,
}

/// The newest protocol that is spoken: Android 16's.
const PROTOCOL_VERSION: u32 = 2;
