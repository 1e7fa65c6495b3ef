// SPDX-License-Identifier: Apache-2.0
//! A queue (2.7) for one request at a time, for a device that virtio-drivers has no driver for (its
//! own queues are not public).

use super::Failure;
use core::ptr::NonNull;
use core::sync::atomic::{fence, Ordering};
use gzvm_guest::PoolHal;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::Transport;
use virtio_drivers::{BufferDirection, Hal};

/// Entries.
const SIZE: u16 = 16;
/// Where the parts are in the first page; the second page is the buffer.
const AVAILABLE: usize = 0x400;
const USED: usize = 0x800;
const BUFFER: usize = 0x1000;
const BUFFER_SIZE: usize = 0x1000;

/// A queue. Invariant: `memory` is two pages that the device may access at any moment.
pub(super) struct Ring {
    index: u16,
    memory: NonNull<u8>,
    sent: u16,
}

impl Ring {
    /// Sets up queue `index` of a device.
    pub(super) fn new(transport: &mut PciTransport, index: u16) -> Result<Self, Failure> {
        let (address, memory) = PoolHal::dma_alloc(2, BufferDirection::Both);
        if address == 0 {
            return Err(Failure::Absent("memory for a queue"));
        }
        transport.queue_set(index, SIZE.into(), address, address + AVAILABLE, address + USED);
        let ring = Self { index, memory, sent: 0 };
        // The one descriptor that is ever used: its address.
        // CAST: usize has 64 bits here.
        ring.write(0, (address + BUFFER) as u64);
        Ok(ring)
    }

    /// Sends bytes, and waits until the device has used them.
    pub(super) fn send(
        &mut self,
        transport: &mut PciTransport,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let len = u32::try_from(bytes.len()).map_err(|_| Failure::Message)?;
        if bytes.len() > BUFFER_SIZE {
            return Err(Failure::Message);
        }
        for (at, byte) in (BUFFER..).zip(bytes) {
            self.write(at, *byte);
        }
        // Length; the ring of available descriptors is all 0, as is this one's number.
        self.write(8, len);
        self.sent = self.sent.wrapping_add(1);
        fence(Ordering::SeqCst);
        self.write(AVAILABLE + 2, self.sent);
        fence(Ordering::SeqCst);
        transport.notify(self.index);
        while self.read_used() != self.sent {
            core::hint::spin_loop();
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn write<T>(&self, offset: usize, value: T) {
        // SAFETY: all offsets are in the two pages (invariant), and aligned for what is written.
        unsafe { self.memory.byte_add(offset).cast().write_volatile(value) }
    }

    fn read_used(&self) -> u16 {
        // SAFETY: as above.
        unsafe { self.memory.byte_add(USED + 2).cast().read_volatile() }
    }
}
