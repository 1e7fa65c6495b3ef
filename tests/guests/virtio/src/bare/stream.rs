// SPDX-License-Identifier: Apache-2.0
//! A vsock connection as a stream of bytes.

use super::Failure;
use core::ops::Range;
use gzvm_guest::PoolHal;
use virtio_drivers::device::socket::{
    SocketError, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEventType,
};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::Error;

/// Bytes that the host may have under way to the guest.
const CREDIT: u32 = 4096;
/// Bytes of one packet to the host, and of what is read at a time.
const PACKET: usize = 2048;
/// The guest's end.
const PORT: u32 = 5000;

/// A connection to the host.
pub(super) struct Stream {
    manager: VsockConnectionManager<PoolHal, PciTransport>,
    peer: VsockAddr,
    /// What came and was not asked for yet: messages are read number by number.
    buffer: [u8; PACKET],
    unread: Range<usize>,
}

impl Stream {
    /// Connects to a port on the host.
    pub(super) fn connect(transport: PciTransport, port: u32) -> Result<Self, Failure> {
        let socket = VirtIOSocket::new(transport)?;
        let manager = VsockConnectionManager::new_with_capacity(socket, CREDIT);
        // VMADDR_CID_HOST
        let peer = VsockAddr { cid: 2, port };
        let mut stream = Self { manager, peer, buffer: [0; PACKET], unread: 0..0 };
        stream.manager.connect(stream.peer, PORT)?;
        loop {
            match stream.manager.wait_for_event()?.event_type {
                VsockEventType::Connected => return Ok(stream),
                VsockEventType::Disconnected { .. } => return Err(Failure::Disconnected),
                _ => {}
            }
        }
    }

    /// Looks after what comes from the host, if something does.
    fn poll(&mut self) -> Result<(), Failure> {
        match self.manager.poll()?.map(|event| event.event_type) {
            Some(VsockEventType::Disconnected { .. }) => Err(Failure::Disconnected),
            _ => Ok(()),
        }
    }

    /// Waits for something to read.
    fn fill(&mut self) -> Result<(), Failure> {
        loop {
            let read = self.manager.recv(self.peer, PORT, &mut self.buffer)?;
            if read > 0 {
                self.unread = 0..read;
                return Ok(self.manager.update_credit(self.peer, PORT)?);
            }
            self.poll()?;
        }
    }

    /// Closes the connection, and waits until the host has.
    pub(super) fn close(mut self) -> Result<(), Failure> {
        self.manager.shutdown(self.peer, PORT)?;
        while self.poll().is_ok() {}
        Ok(())
    }
}

impl ciborium_io::Read for &mut Stream {
    type Error = Failure;

    fn read_exact(&mut self, mut data: &mut [u8]) -> Result<(), Failure> {
        while !data.is_empty() {
            if self.unread.is_empty() {
                self.fill()?;
            }
            let len = data.len().min(self.unread.len());
            let (part, rest) = data.split_at_mut(len);
            part.copy_from_slice(&self.buffer[self.unread.start..][..len]);
            self.unread.start += len;
            data = rest;
        }
        Ok(())
    }
}

impl ciborium_io::Write for &mut Stream {
    type Error = Failure;

    fn write_all(&mut self, data: &[u8]) -> Result<(), Failure> {
        for packet in data.chunks(PACKET) {
            loop {
                match self.manager.send(self.peer, PORT, packet) {
                    Ok(()) => break,
                    // The host says when it has room again.
                    Err(Error::SocketDeviceError(SocketError::InsufficientBufferSpaceInPeer)) => {
                        self.poll()?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
