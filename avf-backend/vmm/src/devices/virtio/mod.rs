// SPDX-License-Identifier: Apache-2.0
//! Virtio devices (Virtual I/O Device version 1.2) behind modern virtio-pci with INTx.
//!
//! A [`transport::Transport`] is what a driver negotiates with; it owns a [`VirtioDevice`], which
//! takes its queues into a thread of its own when the driver is ready and gives them up at reset.
//! Everything that a guest writes is untrusted: queues check their rings against guest memory, and
//! no device keeps more than a bounded buffer.

pub mod balloon;
pub mod blk;
pub mod console;
#[cfg(test)]
mod hostile;
pub mod interrupt;
pub mod pci;
pub mod queue;
mod rings;
pub mod rng;
pub mod transport;
pub mod vsock;
pub mod worker;

use crate::memory::GuestRam;
use gzvm::Vm;
use interrupt::Interrupt;
use nix::sys::eventfd::EventFd;
use std::io;
use std::sync::Arc;
use virtio_queue::Queue;

/// Device types (5).
pub mod device_type {
    /// Block device.
    pub const BLOCK: u16 = 2;
    /// Console.
    pub const CONSOLE: u16 = 3;
    /// Entropy source.
    pub const RNG: u16 = 4;
    /// Memory balloon.
    pub const BALLOON: u16 = 5;
    /// Socket device.
    pub const VSOCK: u16 = 19;
}

/// A queue that the driver has set up.
#[derive(Debug)]
pub struct ActiveQueue {
    /// The queue, checked against guest memory.
    pub queue: Queue,
    /// Signalled when the driver has added buffers.
    pub kick: Arc<EventFd>,
}

/// What a device works with between the driver's start and the next reset.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory.
    pub ram: Arc<GuestRam>,
    /// All of the device's queues; one that the driver did not set up is `None`.
    pub queues: Vec<Option<ActiveQueue>>,
    /// How to interrupt the guest.
    pub interrupt: Arc<Interrupt>,
    /// What was negotiated.
    pub features: u64,
    /// The VM, if there is one.
    pub vm: Option<Arc<Vm>>,
}

/// A device behind a transport.
pub trait VirtioDevice: Send {
    /// Device type, as [`device_type`].
    fn device_type(&self) -> u16;

    /// PCI class, subclass and programming interface.
    fn pci_class(&self) -> u32;

    /// The device's own feature bits.
    fn features(&self) -> u64;

    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device's configuration. What is left untouched reads as 0.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes to the device's configuration. Most have nothing to write.
    fn write_config(&self, _offset: u64, _data: &[u8]) {}

    /// Why the device does not work with these features, if it does not; the guest's driver gives up
    /// then.
    fn refuses(&self, _accepted: u64) -> Option<&'static str> {
        None
    }

    /// Starts the device.
    fn activate(&mut self, activation: Activation) -> io::Result<()>;

    /// Stops the device; no queue is touched any more after the return.
    fn reset(&mut self);
}

/// Reads a part of a configuration structure.
pub(crate) fn read_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let bytes = usize::try_from(offset).ok().and_then(|offset| config.get(offset..));
    for (to, from) in data.iter_mut().zip(bytes.unwrap_or_default()) {
        *to = *from;
    }
}
