// SPDX-License-Identifier: Apache-2.0
//! The interrupt of a virtio-pci device: a status byte that a read clears (4.1.4.5), and a line
//! that is pulsed when it leaves 0.
//!
//! A pulse for each 0 → 1 is enough even where no line level is kept: while the byte is not 0 an
//! interrupt is pending or being handled, and its handler reads the byte before it looks at the
//! rings, so it sees everything that was added before.

use crate::devices::irq::IrqLine;
use crate::guest_warn;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use vm_superio::Trigger;

/// Status bit: a queue has something.
const QUEUE: u8 = 1;
/// Status bit: the configuration changed.
const CONFIG: u8 = 2;

/// A device's interrupt.
#[derive(Debug)]
pub struct Interrupt {
    status: AtomicU8,
    generation: AtomicU8,
    line: IrqLine,
}

impl Interrupt {
    /// An interrupt on SPI `spi`, counted from 0.
    pub fn new(spi: u32) -> io::Result<Self> {
        let line = IrqLine::new(spi)?;
        Ok(Self { status: AtomicU8::new(0), generation: AtomicU8::new(0), line })
    }

    /// Connects it to the VM's interrupt controller.
    pub fn connect(&self, vm: &gzvm::Vm) -> gzvm::Result<()> {
        self.line.connect(vm)
    }

    /// Tells the driver that a queue has used buffers.
    pub fn queue(&self) {
        self.raise(QUEUE);
    }

    /// Tells the driver that the configuration changed.
    pub fn config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(CONFIG);
    }

    /// Number of configuration changes so far.
    pub fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// The driver reads the status, which clears it.
    pub fn take_status(&self) -> u8 {
        self.status.swap(0, Ordering::AcqRel)
    }

    fn raise(&self, bit: u8) {
        if self.status.fetch_or(bit, Ordering::AcqRel) == 0 {
            if let Err(e) = self.line.trigger() {
                guest_warn!("virtio interrupt: {e}");
            }
        }
    }

    /// Whether the line was pulsed since the last call.
    #[cfg(test)]
    pub fn take_pulse(&self) -> bool {
        self.line.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pulse_until_the_status_is_read() {
        let interrupt = Interrupt::new(4).unwrap();
        interrupt.queue();
        assert!(interrupt.take_pulse());
        interrupt.queue();
        interrupt.config();
        assert!(!interrupt.take_pulse(), "the driver has not read the status yet");
        assert_eq!((interrupt.take_status(), interrupt.take_status()), (3, 0));
        interrupt.queue();
        assert!(interrupt.take_pulse());
        assert_eq!(interrupt.generation(), 1);
    }
}
