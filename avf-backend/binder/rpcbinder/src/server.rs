// SPDX-License-Identifier: Apache-2.0
//! The server's end of a session.

use crate::{bootstrap, FileDescriptorTransportMode, PROTOCOL_VERSION};
use binder::{SpIBinder, StatusCode};
use rsbinder::rpc;
use rsbinder::rpc::transport::UnixTransport;
use rustix::rand::{getrandom, GetRandomFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Threads for a client's calls; it may have twice as many connections for callbacks, and Android's
/// Java library has 16.
const THREADS: u32 = 8;

/// Serves an object to the client at the other end of a bootstrap socket.
pub struct RpcServer {
    server: Arc<rpc::RpcServer>,
    bootstrap: OwnedFd,
}

impl std::fmt::Debug for RpcServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcServer").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl RpcServer {
    /// A server with this root object.
    ///
    /// # Errors
    ///
    /// When the object is a remote one, or the kernel lacks random numbers or sockets.
    pub fn new_unix_domain_bootstrap(
        root: SpIBinder,
        bootstrap: OwnedFd,
    ) -> Result<Self, StatusCode> {
        // The library wants a listening socket. Nothing is ever accepted from this one, and nobody
        // knows its name.
        let mut name = [0; 16];
        getrandom(&mut name, GetRandomFlags::empty()).map_err(io::Error::from)?;
        let name = format!("rpcbinder-{:032x}", u128::from_ne_bytes(name));
        let server = rpc::RpcServer::setup_unix_server_abstract(name.as_bytes())?;
        server.set_android13plus(PROTOCOL_VERSION);
        server.set_max_threads(THREADS);
        server.set_root(root)?;
        let bootstrap = bootstrap::blocking(bootstrap)?;
        Ok(Self { server, bootstrap })
    }

    /// How file descriptors may travel.
    pub fn set_supported_file_descriptor_transport_modes(
        &self,
        modes: &[FileDescriptorTransportMode],
    ) {
        let modes: Vec<_> = modes
            .iter()
            .map(|mode| match mode {
                FileDescriptorTransportMode::None => rpc::FileDescriptorTransportMode::None,
                FileDescriptorTransportMode::Unix => rpc::FileDescriptorTransportMode::Unix,
            })
            .collect();
        self.server.set_supported_fd_modes(&modes);
    }

    /// Serves until the client closes the bootstrap socket.
    pub fn join(&self) {
        loop {
            match bootstrap::accept(&self.bootstrap) {
                Ok(Some(socket)) => match UnixTransport::from_owned_fd(socket) {
                    Ok(transport) => self.server.serve_connection(Box::new(transport)),
                    Err(e) => log::warn!("a connection that cannot be used: {e}"),
                },
                Ok(None) => return,
                // A client that breaks the protocol harms only itself.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => log::warn!("{e}"),
                Err(e) => {
                    log::error!("bootstrap socket: {e}");
                    return;
                }
            }
        }
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        self.server.terminate();
    }
}
