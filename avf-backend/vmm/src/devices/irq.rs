// SPDX-License-Identifier: Apache-2.0
//! Interrupt lines: eventfds that the driver turns into interrupts.

use gzvm::Vm;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::AsFd;

/// An edge-triggered interrupt line. A signal is an interrupt, once the line is connected; earlier
/// ones are kept.
#[derive(Debug)]
pub struct IrqLine {
    event: EventFd,
    spi: u32,
}

impl IrqLine {
    /// A line on SPI `spi`, counted from 0.
    pub fn new(spi: u32) -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { event, spi })
    }

    /// Connects it to the VM's interrupt controller.
    pub fn connect(&self, vm: &Vm) -> gzvm::Result<()> {
        vm.register_irqfd(self.event.as_fd(), self.spi, None)
    }

    /// Whether it was triggered since the last call.
    #[cfg(test)]
    pub fn take(&self) -> bool {
        self.event.read().is_ok()
    }
}

impl vm_superio::Trigger for IrqLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        match self.event.write(1) {
            // A full counter is an interrupt that is pending already.
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_superio::Trigger;

    #[test]
    fn triggers_never_block() {
        let line = IrqLine::new(0).unwrap();
        line.event.write(u64::MAX - 1).unwrap();
        line.trigger().unwrap();
    }
}
