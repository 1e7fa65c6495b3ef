// SPDX-License-Identifier: Apache-2.0
//! The service that has a client's VMs: a process of the client's own, virtmgr, which is started here and
//! ends with the client.

#![forbid(unsafe_code)]

use anyhow::{anyhow, Context, Error, Result};
use avf_aidl::aidl::virtualizationservice::IVirtualizationService::IVirtualizationService;
use binder::{Status, StatusCode, Strong};
use command_fds::CommandFdExt;
use nix::fcntl::OFlag;
use rpcbinder::{FileDescriptorTransportMode, RpcSession};
use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};

/// Names another virtmgr.
const PROGRAM_VARIABLE: &str = "GZVM_VIRTMGR";
const PROGRAM: &str = "gzvm_virtmgr";
/// Threads for callbacks, as in AVF's client library.
const CALLBACK_THREADS: usize = 2;

/// A virtmgr of our own.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// It ends when this is closed. `None` only while dropping.
    bootstrap: Option<UnixStream>,
}

impl Service {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When there is no such program, or it ends at once.
    pub fn start() -> Result<Self> {
        let program = program();
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
        let (ready, theirs_ready) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        let mut command = Command::new(&program);
        for (option, fd) in
            [("--rpc-server-fd", theirs.as_raw_fd()), ("--ready-fd", theirs_ready.as_raw_fd())]
        {
            command.arg(option).arg(fd.to_string());
        }
        command.preserved_fds(vec![OwnedFd::from(theirs), theirs_ready]);
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot start {}", program.display()))?;
        // It holds copies of what the child has, and we would not see the end of `ready`.
        drop(command);
        let service = Self { child, bootstrap: Some(ours) };
        let mut byte = [0];
        File::from(ready)
            .read_exact(&mut byte)
            .with_context(|| format!("{} does not serve", program.display()))?;
        Ok(service)
    }

    /// Its root object.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn connect(&self) -> Result<Strong<dyn IVirtualizationService>> {
        let session = RpcSession::new();
        session.set_file_descriptor_transport_mode(FileDescriptorTransportMode::Unix);
        session.set_max_incoming_threads(CALLBACK_THREADS);
        let bootstrap = self.bootstrap.as_ref().context("the service has ended")?;
        session
            .setup_unix_domain_bootstrap_client(bootstrap.as_fd())
            .map_err(|e| anyhow!("virtmgr cannot be talked to: {e}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.bootstrap = None;
        // Until then what it had for our VMs may still be there. Nobody can be told of an error.
        let _ = self.child.wait();
    }
}

/// virtmgr: what the environment names, else the one beside this program, else the one in PATH.
fn program() -> PathBuf {
    if let Some(given) = env::var_os(PROGRAM_VARIABLE) {
        return given.into();
    }
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into())
}

/// An exception in the service's own words, where it has some.
pub fn exception(status: Status) -> Error {
    match status.message() {
        Some(message) if !message.is_empty() => anyhow!(message.to_owned()),
        _ => match status.transaction_error() {
            StatusCode::Errno(number) => {
                let why = io::Error::from_raw_os_error(number.saturating_abs());
                anyhow!("the call does not reach the service: {why}")
            }
            _ => anyhow!("the service: {status}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_said_in_its_words() {
        let status = Status::from(StatusCode::Errno(-24));
        let text = exception(status).to_string();
        assert!(text.ends_with("service: Too many open files (os error 24)"), "{text}");
        let text = exception(Status::from(StatusCode::DeadObject)).to_string();
        assert!(text.starts_with("the service: ") && text.contains("DeadObject"), "{text}");
    }
}
