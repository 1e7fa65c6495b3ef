// SPDX-License-Identifier: Apache-2.0
//! A session over a bootstrap socket: calls, descriptors, callbacks, and both ends' deaths.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use avf_aidl::aidl::android::system::virtualizationcommon::{
    DeathReason::DeathReason, ErrorCode::ErrorCode,
};
use avf_aidl::aidl::android::system::virtualizationservice::{
    IVirtualMachine::{BnVirtualMachine, IVirtualMachine},
    IVirtualMachineCallback::{BnVirtualMachineCallback, IVirtualMachineCallback},
    VirtualMachineState::VirtualMachineState,
};
use binder::{
    DeathRecipient, ExceptionCode, Exceptions, IBinder, Interface, IntoBinderResult,
    ParcelFileDescriptor, SpIBinder, Strong,
};
use rpcbinder::{FileDescriptorTransportMode, RpcServer, RpcSession};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

type Callback = Strong<dyn IVirtualMachineCallback>;

/// Keeps callbacks; `start` calls them from another thread.
#[derive(Default)]
struct Machine(Mutex<Vec<Callback>>);

impl Interface for Machine {}

impl IVirtualMachine for Machine {
    fn getCid(&self) -> binder::Result<i32> {
        Ok(2048)
    }
    fn getState(&self) -> binder::Result<VirtualMachineState> {
        Err("no state").or_service_specific_exception(Self::error())
    }
    fn registerCallback(&self, callback: &Callback) -> binder::Result<()> {
        self.0.lock().unwrap().push(callback.clone());
        Ok(())
    }
    fn start(&self) -> binder::Result<()> {
        let callbacks = self.0.lock().unwrap().clone();
        thread::spawn(move || {
            for callback in callbacks {
                callback.onDied(2048, DeathReason::SHUTDOWN).unwrap();
            }
        });
        Ok(())
    }
    fn stop(&self) -> binder::Result<()> {
        Ok(())
    }
    fn getMemoryBalloon(&self) -> binder::Result<i64> {
        Ok(1 << 40)
    }
    fn setMemoryBalloon(&self, _: i64) -> binder::Result<()> {
        Ok(())
    }
    fn connectVsock(&self, _: i32) -> binder::Result<ParcelFileDescriptor> {
        let (mut here, there) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut here, b"through").unwrap();
        Ok(ParcelFileDescriptor::new(OwnedFd::from(there)))
    }
    fn createAccessorBinder(&self, _: &str, _: i32) -> binder::Result<SpIBinder> {
        Err(ExceptionCode::UNSUPPORTED_OPERATION.into())
    }
    fn setHostConsoleName(&self, _: &str) -> binder::Result<()> {
        Ok(())
    }
    fn suspend(&self) -> binder::Result<()> {
        Ok(())
    }
    fn resume(&self) -> binder::Result<()> {
        Ok(())
    }
}

impl Machine {
    fn error() -> i32 {
        7
    }
}

struct Listener(Sender<(i32, DeathReason)>);

impl Interface for Listener {}

impl IVirtualMachineCallback for Listener {
    fn onPayloadStarted(&self, _: i32) -> binder::Result<()> {
        Ok(())
    }
    fn onPayloadReady(&self, _: i32) -> binder::Result<()> {
        Ok(())
    }
    fn onPayloadFinished(&self, _: i32, _: i32) -> binder::Result<()> {
        Ok(())
    }
    fn onError(&self, _: i32, _: ErrorCode, _: &str) -> binder::Result<()> {
        Ok(())
    }
    fn onDied(&self, cid: i32, reason: DeathReason) -> binder::Result<()> {
        self.0.send((cid, reason)).unwrap();
        Ok(())
    }
}

/// A server, and the client's end of the bootstrap socket.
fn server() -> (JoinHandle<()>, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    let root = BnVirtualMachine::new_binder(Machine::default()).as_binder();
    let server = RpcServer::new_unix_domain_bootstrap(root, server.into()).unwrap();
    server.set_supported_file_descriptor_transport_modes(&[FileDescriptorTransportMode::Unix]);
    (thread::spawn(move || server.join()), client)
}

fn connect(bootstrap: &UnixStream) -> Strong<dyn IVirtualMachine> {
    let session = RpcSession::new();
    session.set_file_descriptor_transport_mode(FileDescriptorTransportMode::Unix);
    session.set_max_incoming_threads(2);
    session.setup_unix_domain_bootstrap_client(bootstrap.as_fd()).unwrap()
}

fn listener() -> (Callback, Receiver<(i32, DeathReason)>) {
    let (sender, receiver) = channel();
    (BnVirtualMachineCallback::new_binder(Listener(sender)), receiver)
}

#[test]
fn calls_descriptors_and_exceptions() {
    let (_server, bootstrap) = server();
    let machine = connect(&bootstrap);
    assert_eq!(machine.getCid(), Ok(2048));
    assert_eq!(machine.getMemoryBalloon(), Ok(1 << 40));
    let mut text = [0; 7];
    let file: OwnedFd = machine.connectVsock(5000).unwrap().into();
    File::from(file).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"through");
    let error = machine.getState().unwrap_err();
    assert_eq!((error.service_specific_error(), error.message()), (7, Some("\"no state\"")));
    let error = machine.createAccessorBinder("x", 1).unwrap_err();
    assert_eq!(error.exception_code(), ExceptionCode::UNSUPPORTED_OPERATION);
}

#[test]
fn callbacks_come_on_their_own() {
    let (_server, bootstrap) = server();
    let machine = connect(&bootstrap);
    let (callback, died) = listener();
    machine.registerCallback(&callback).unwrap();
    machine.start().unwrap();
    assert_eq!(died.recv_timeout(PATIENCE), Ok((2048, DeathReason::SHUTDOWN)));
}

#[test]
fn the_server_ends_when_the_client_is_gone() {
    let (server, bootstrap) = server();
    let machine = connect(&bootstrap);
    assert!(machine.getCid().is_ok() && !server.is_finished());
    drop(bootstrap);
    server.join().unwrap();
}

#[test]
fn the_client_learns_of_the_servers_death() {
    let (server, bootstrap) = server();
    let machine = connect(&bootstrap);
    let (sender, dead) = channel();
    let sender = Mutex::new(sender);
    let mut recipient = DeathRecipient::new(move || sender.lock().unwrap().send(()).unwrap());
    machine.as_binder().link_to_death(&mut recipient).unwrap();
    bootstrap.shutdown(std::net::Shutdown::Both).unwrap();
    server.join().unwrap();
    dead.recv_timeout(PATIENCE).unwrap();
    assert!(machine.getCid().is_err());
}
