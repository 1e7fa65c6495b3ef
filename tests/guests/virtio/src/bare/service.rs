// SPDX-License-Identifier: Apache-2.0
//! Answers requests over vsock until it is told to shut down, as AOSP's rialto does.

use super::pci::Bus;
use super::stream::Stream;
use super::Failure;
use crate::say;
use alloc::vec::Vec;
use ciborium_io::Write;
use guest_bare::console::Console;
use virtio_drivers::transport::DeviceType;
use virtio_guest::machine::Machine;
use virtio_guest::message::{Request, PORT, PORT_STRICT};

extern crate alloc;

/// Connects, answers, closes.
pub(super) fn run(
    console: &mut Console,
    bus: &mut Bus<'_>,
    machine: &Machine<'_>,
) -> Result<(), Failure> {
    let port = if machine.strict_boot { PORT_STRICT } else { PORT };
    let transport = bus.find(DeviceType::Socket, "vsock device")?;
    let mut stream = Stream::connect(transport, port)?;
    say!(console, "virtio: connected to port {port}");
    let mut answered = 0;
    loop {
        let request: Request = ciborium::from_reader(&mut stream).map_err(|error| match error {
            ciborium::de::Error::Io(error) => error,
            _ => Failure::Message,
        })?;
        let Request::Process(request) = request else { break };
        let mut response = Vec::new();
        ciborium::into_writer(&request.process(), &mut response).map_err(|_| Failure::Message)?;
        (&mut stream).write_all(&response)?;
        answered += 1;
    }
    say!(console, "virtio: {answered} requests answered");
    stream.close()
}
