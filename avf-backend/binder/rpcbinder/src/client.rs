// SPDX-License-Identifier: Apache-2.0
//! The client's end of a session.

use crate::{bootstrap, FileDescriptorTransportMode, PROTOCOL_VERSION};
use binder::{FromIBinder, StatusCode, Strong};
use rsbinder::rpc::transport::UnixTransport;
use rsbinder::rpc::{self, RpcClientConfig, RpcTransport};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

/// A session in the making.
#[derive(Debug, Default)]
pub struct RpcSession(Mutex<Settings>);

#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    fds: FileDescriptorTransportMode,
    incoming: u32,
}

impl RpcSession {
    /// Without file descriptors and callbacks.
    pub fn new() -> Self {
        Self::default()
    }

    /// How file descriptors travel.
    pub fn set_file_descriptor_transport_mode(&self, mode: FileDescriptorTransportMode) {
        self.change(|settings| settings.fds = mode);
    }

    /// How many threads serve callbacks.
    pub fn set_max_incoming_threads(&self, threads: usize) {
        self.change(|s| s.incoming = u32::try_from(threads).unwrap_or(u32::MAX));
    }

    fn change(&self, how: impl FnOnce(&mut Settings)) {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Connects over a bootstrap socket, and returns the server's root object. The session lasts as
    /// long as references to remote objects do.
    ///
    /// # Errors
    ///
    /// When the server closes, does not speak the protocol, or has another root object.
    pub fn setup_unix_domain_bootstrap_client<T: FromIBinder + ?Sized>(
        &self,
        bootstrap: BorrowedFd<'_>,
    ) -> Result<Strong<T>, StatusCode> {
        let settings = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = RpcClientConfig::new(PROTOCOL_VERSION, move || {
            let socket = bootstrap::connect(bootstrap)?;
            Ok(Box::new(UnixTransport::from_owned_fd(socket)?) as Box<dyn RpcTransport>)
        })
        .incoming_connections(settings.incoming);
        if settings.fds == FileDescriptorTransportMode::Unix {
            config = config.fd_mode(rpc::FileDescriptorTransportMode::Unix);
        }
        let session = rpc::RpcSession::setup_client_android13plus_with_config(config)?;
        session.get_root()?.into_interface()
    }
}
