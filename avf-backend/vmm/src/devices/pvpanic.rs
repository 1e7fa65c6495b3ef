// SPDX-License-Identifier: Apache-2.0
//! pvpanic as a PCI device: a guest's last word (QEMU's docs/specs/pvpanic.rst).

use super::bus::MmioDevice;
use super::pci::{ConfigSpace, Identity, PciDevice};
use crate::event::VmEvent;
use crate::guest_warn;
use crate::layout::Region;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

/// Bytes of BAR 0.
pub const BAR_SIZE: u32 = 0x1000;
/// Bit: the guest panicked.
const PANICKED: u8 = 1;
/// Bit: the guest panicked and goes on in a kernel that saves what it can (kexec): not the end yet.
const CRASH_LOADED: u8 = 2;

/// The device.
pub struct PvPanic {
    config: Mutex<ConfigSpace>,
    /// Set once the VM runs.
    events: Mutex<Option<Sender<VmEvent>>>,
}

impl PvPanic {
    /// A device with its BAR at `bar`.
    pub fn new(bar: Region) -> Self {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0011,
            subsystem: 0x1100,
            revision: 1,
            class: 0x08_8000,
        };
        let mut config = ConfigSpace::new(&identity);
        // The window for devices is below 4 GiB (checked where it is parsed).
        config.set_memory(u32::try_from(bar.start).unwrap_or(0), BAR_SIZE);
        Self { config: Mutex::new(config), events: Mutex::new(None) }
    }

    /// From now on a panic is told to `events`.
    pub fn start(&self, events: Sender<VmEvent>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = Some(events);
    }
}

impl PciDevice for PvPanic {
    fn config_read(&self, offset: usize, data: &mut [u8]) {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    fn config_write(&self, offset: usize, data: &[u8]) {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
    }

    fn memory(&self) -> Option<&dyn MmioDevice> {
        Some(self)
    }

    fn wanted(&self) -> Option<u32> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).memory()
    }
}

impl MmioDevice for PvPanic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let (0, Some(byte)) = (offset, data.first_mut()) {
            *byte = PANICKED | CRASH_LOADED;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(&byte) = data.first().filter(|_| offset == 0) else { return };
        if byte & CRASH_LOADED != 0 {
            guest_warn!("the guest panicked; its crash kernel takes over");
        }
        if byte & PANICKED != 0 {
            let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody listens any more when the VM is ending anyway.
            let _ = events.as_ref().map(|events| events.send(VmEvent::GuestCrash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_panic_is_told() {
        let device = PvPanic::new(Region { start: 0x2c00_0000, size: 0x1000 });
        device.write(0, &[PANICKED]);
        let (sender, receiver) = channel();
        device.start(sender);
        let mut supported = [0];
        device.read(0, &mut supported);
        assert_eq!(supported, [PANICKED | CRASH_LOADED]);
        device.write(0, &[CRASH_LOADED]);
        device.write(0, &[4]);
        device.write(1, &[PANICKED]);
        assert!(receiver.try_recv().is_err(), "only panics that nothing follows");
        device.write(0, &[PANICKED]);
        assert_eq!(receiver.try_recv(), Ok(VmEvent::GuestCrash));
    }
}
