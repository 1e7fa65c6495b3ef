// SPDX-License-Identifier: Apache-2.0
//! virtio over PCI (4.1): capabilities in configuration space that say where in BAR 0 the four
//! structures are.

use super::interrupt::Interrupt;
use super::transport::{Transport, COMMON_SIZE};
use crate::devices::bus::MmioDevice;
use crate::devices::pci::{ConfigSpace, Identity, PciDevice, Slot};
use crate::event::VmEvent;
use crate::layout::Region;
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of BAR 0.
pub const BAR_SIZE: u32 = 0x8000;

/// Where the structures are in BAR 0, a page each.
const COMMON: Region = Region { start: 0, size: COMMON_SIZE };
const ISR: Region = Region { start: 0x1000, size: 1 };
const DEVICE: Region = Region { start: 0x2000, size: 0x1000 };
const NOTIFY: Region = Region { start: 0x3000, size: 0x1000 };
/// Bytes between the notification addresses of two queues.
const NOTIFY_STEP: u32 = 4;

const VENDOR: u16 = 0x1af4;
/// A modern device's number is this plus its type.
const DEVICE_BASE: u16 = 0x1040;
const CAP_VENDOR: u8 = 9;
/// Structure types.
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Offsets in the PCI configuration access capability (4.1.4.9), counted from the capability.
const PCI_CFG_BAR: usize = 4;
const PCI_CFG_OFFSET: usize = 8;
const PCI_CFG_LENGTH: usize = 12;
const PCI_CFG_DATA: usize = 16;

/// A virtio device in a PCI slot.
pub struct VirtioPci {
    config: Mutex<ConfigSpace>,
    transport: Mutex<Transport>,
    interrupt: Arc<Interrupt>,
    /// Where the configuration access capability is.
    window: usize,
    doorbells: Mutex<Doorbells>,
}

/// The driver's notifications, caught in the kernel.
struct Doorbells {
    vm: Option<Arc<gzvm::Vm>>,
    kicks: Vec<Arc<EventFd>>,
    /// Start of the BAR 0 that they are placed in.
    placed: Option<u64>,
}

impl Doorbells {
    /// Takes them to a BAR 0 at `bar`.
    fn move_to(&mut self, bar: Option<u64>) -> gzvm::Result<()> {
        if self.placed == bar {
            return Ok(());
        }
        if let Some(old) = self.placed.take() {
            self.each(old, gzvm::Vm::unregister_ioeventfd)?;
        }
        if let Some(new) = bar {
            if let Err(e) = self.each(new, gzvm::Vm::register_ioeventfd) {
                // Those that were placed. That the others were not is no news.
                let _ = self.each(new, gzvm::Vm::unregister_ioeventfd);
                return Err(e);
            }
        }
        self.placed = bar;
        Ok(())
    }

    /// Does something with the doorbell of each queue, in a BAR 0 at `bar`.
    fn each(
        &self,
        bar: u64,
        act: fn(&gzvm::Vm, BorrowedFd<'_>, u64, u32, Option<u64>) -> gzvm::Result<()>,
    ) -> gzvm::Result<()> {
        let Some(vm) = &self.vm else { return Ok(()) };
        // CAST: a small constant.
        let addresses = (bar + NOTIFY.start..).step_by(NOTIFY_STEP as usize);
        addresses.zip(&self.kicks).try_for_each(|(at, kick)| act(vm, kick.as_fd(), at, 0, None))
    }
}

impl VirtioPci {
    /// Puts a device into `slot`, with its BAR at `bar`.
    pub fn new(transport: Transport, interrupt: Arc<Interrupt>, slot: Slot, bar: Region) -> Self {
        let device = transport.device();
        let identity = Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + device.device_type(),
            subsystem: DEVICE_BASE + device.device_type(),
            revision: 1,
            class: device.pci_class(),
        };
        let mut config = ConfigSpace::new(&identity);
        // The window for devices is below 4 GiB (checked where it is parsed).
        config.set_memory(u32::try_from(bar.start).unwrap_or(0), BAR_SIZE);
        config.set_interrupt(u8::try_from(slot.spi).unwrap_or(u8::MAX));
        config.add_capability(CAP_VENDOR, &capability(CFG_COMMON, COMMON, 16, &[]));
        config.add_capability(CAP_VENDOR, &capability(CFG_ISR, ISR, 16, &[]));
        config.add_capability(CAP_VENDOR, &capability(CFG_DEVICE, DEVICE, 16, &[]));
        let step = NOTIFY_STEP.to_le_bytes();
        config.add_capability(CAP_VENDOR, &capability(CFG_NOTIFY, NOTIFY, 20, &step));
        let nothing = Region { start: 0, size: 0 };
        let window = config.add_capability(CAP_VENDOR, &capability(CFG_PCI, nothing, 20, &[0; 4]));
        config.make_writable(window + PCI_CFG_BAR, 1);
        config.make_writable(window + PCI_CFG_OFFSET, 8);
        let kicks = transport.kicks().to_vec();
        let doorbells = Doorbells { vm: None, kicks, placed: None };
        Self {
            config: Mutex::new(config),
            transport: Mutex::new(transport),
            interrupt,
            window,
            doorbells: Mutex::new(doorbells),
        }
    }

    /// Connects interrupt and notifications to the VM; a guest that does not share its queues is told
    /// to `events`.
    pub fn connect(&self, vm: &Arc<gzvm::Vm>, events: &Sender<VmEvent>) -> gzvm::Result<()> {
        self.interrupt.connect(vm)?;
        self.transport().connect(Arc::clone(vm), events.clone());
        let mut doorbells = self.doorbells();
        doorbells.vm = Some(Arc::clone(vm));
        doorbells.move_to(self.wanted().map(u64::from))
    }

    fn doorbells(&self) -> MutexGuard<'_, Doorbells> {
        self.doorbells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self) -> MutexGuard<'_, Transport> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the configuration access capability points to, if `offset` is its data field: an
    /// offset in BAR 0 and a length.
    fn window_target(&self, offset: usize) -> Option<(u64, usize)> {
        if offset != self.window + PCI_CFG_DATA {
            return None;
        }
        let config = self.config();
        let bar = config.word(self.window + PCI_CFG_BAR) & 0xff;
        let target = u64::from(config.word(self.window + PCI_CFG_OFFSET));
        let length = match config.word(self.window + PCI_CFG_LENGTH) {
            1 => 1,
            2 => 2,
            4 => 4,
            _ => return None,
        };
        (bar == 0 && target + 4 <= u64::from(BAR_SIZE)).then_some((target, length))
    }
}

/// A virtio capability without identifier and link: 4.1.4.
fn capability(kind: u8, place: Region, len: u8, tail: &[u8]) -> Vec<u8> {
    let number = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let mut body = vec![len, kind, 0, 0, 0, 0];
    body.extend(number(place.start));
    body.extend(number(place.size));
    body.extend(tail);
    body
}

impl PciDevice for VirtioPci {
    fn config_read(&self, offset: usize, data: &mut [u8]) {
        match self.window_target(offset) {
            Some((target, length)) if length <= data.len() => {
                data.fill(0);
                self.read(target, &mut data[..length]);
            }
            _ => self.config().read(offset, data),
        }
    }

    fn config_write(&self, offset: usize, data: &[u8]) {
        match self.window_target(offset) {
            Some((target, length)) if length <= data.len() => self.write(target, &data[..length]),
            _ => self.config().write(offset, data),
        }
    }

    fn memory(&self) -> Option<&dyn MmioDevice> {
        Some(self)
    }

    fn wanted(&self) -> Option<u32> {
        self.config().memory()
    }

    /// Where another device's doorbells are still in the way they are placed when those are gone;
    /// until then [`MmioDevice::write`] takes the notifications.
    fn moved(&self, to: Option<u64>) {
        if let Err(e) = self.doorbells().move_to(to) {
            log::debug!("doorbells at {to:x?}: {e}");
        }
    }
}

impl MmioDevice for VirtioPci {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            0x0..0x1000 => self.transport().read(offset - COMMON.start, data),
            0x1000 => data[0] = self.interrupt.take_status(),
            0x2000..0x3000 => self.transport().device().read_config(offset - DEVICE.start, data),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match offset {
            0x0..0x1000 => self.transport().write(offset - COMMON.start, data),
            0x2000..0x3000 => self.transport().device().write_config(offset - DEVICE.start, data),
            0x3000..0x4000 => {
                let index = (offset - NOTIFY.start) / u64::from(NOTIFY_STEP);
                self.transport().notify(usize::try_from(index).unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
}
