// SPDX-License-Identifier: Apache-2.0
//! What a driver negotiates with: status, features and queues of one device (2.1, 2.2, 3.1), as
//! the common configuration structure of virtio-pci shows them (4.1.4.3).

use super::interrupt::Interrupt;
use super::worker::event;
use super::{rings, Activation, ActiveQueue, VirtioDevice};
use crate::event::VmEvent;
use crate::guest_warn;
use crate::memory::GuestRam;
use gzvm::Vm;
use nix::sys::eventfd::EventFd;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::Arc;
use virtio_bindings::virtio_config as bits;
use virtio_bindings::virtio_ring;
use virtio_queue::{Queue, QueueT};

/// Status bits.
const DRIVER_OK: u8 = bits::VIRTIO_CONFIG_S_DRIVER_OK as u8;
const FEATURES_OK: u8 = bits::VIRTIO_CONFIG_S_FEATURES_OK as u8;
const NEEDS_RESET: u8 = bits::VIRTIO_CONFIG_S_NEEDS_RESET as u8;

/// Feature bit: not a device from before version 1.
pub const VERSION_1: u64 = 1 << bits::VIRTIO_F_VERSION_1;
/// Feature bit: addresses are not plain guest physical ones; a Linux guest uses its restricted-DMA
/// pool only for devices that offer it.
pub const ACCESS_PLATFORM: u64 = 1 << bits::VIRTIO_F_ACCESS_PLATFORM;
/// Feature bit: chains may be in tables of their own.
const INDIRECT_DESC: u64 = 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
/// Feature bit: both sides say up to where they want no notification.
pub const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// Value of a vector register: no MSI-X.
const NO_VECTOR: u16 = 0xffff;

/// The common configuration's fields (offset, width): 4.1.4.3.
mod field {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const MSIX_CONFIG: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC_LOW: u64 = 0x20;
    pub const QUEUE_DESC_HIGH: u64 = 0x24;
    pub const QUEUE_DRIVER_LOW: u64 = 0x28;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x2c;
    pub const QUEUE_DEVICE_LOW: u64 = 0x30;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x34;
    pub const END: u64 = 0x38;
}

/// Bytes of the common configuration.
pub const COMMON_SIZE: u64 = field::END;

/// One device and what its driver has negotiated so far.
pub struct Transport {
    name: String,
    device: Box<dyn VirtioDevice>,
    ram: Arc<GuestRam>,
    interrupt: Arc<Interrupt>,
    /// One for each queue, for the device's whole life: the driver's notifications are connected
    /// to them once.
    kicks: Vec<Arc<EventFd>>,
    /// Set up by the driver. A device that runs has copies.
    queues: Vec<Queue>,
    protected: bool,
    /// The VM, and who is told of queues that it does not share.
    vm: Option<(Arc<Vm>, Sender<VmEvent>)>,
    offered: u64,
    accepted: u64,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
}

impl Transport {
    /// A transport for `device`; `protected` says that the guest's memory is not the host's to
    /// read, apart from what the guest shares.
    pub fn new(
        name: String,
        device: Box<dyn VirtioDevice>,
        ram: Arc<GuestRam>,
        interrupt: Arc<Interrupt>,
        protected: bool,
    ) -> io::Result<Self> {
        let kicks = device.queue_sizes().iter().map(|_| event().map(Arc::new));
        let platform = if protected { ACCESS_PLATFORM } else { 0 };
        let offered = device.features() | VERSION_1 | INDIRECT_DESC | EVENT_IDX | platform;
        let mut transport = Self {
            kicks: kicks.collect::<io::Result<_>>()?,
            name,
            device,
            ram,
            interrupt,
            queues: Vec::new(),
            protected,
            vm: None,
            offered,
            accepted: 0,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
        };
        transport.reset();
        Ok(transport)
    }

    /// From now on the state of guest memory can be asked for.
    pub fn connect(&mut self, vm: Arc<Vm>, events: Sender<VmEvent>) {
        self.vm = Some((vm, events));
    }

    /// Name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device.
    pub fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    /// What the driver's notifications signal, one for each queue.
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The driver notifies queue `index`, where that was not delivered in the kernel.
    pub fn notify(&self, index: usize) {
        if let Some(kick) = self.kicks.get(index) {
            if let Err(e) = kick.write(1) {
                log::debug!("{}: notification: {e}", self.name);
            }
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.interrupt.take_status();
        let sizes = self.device.queue_sizes().iter();
        // Sizes are powers of two, so this drops none.
        self.queues = sizes.filter_map(|&size| Queue::new(size).ok()).collect();
        self.accepted = 0;
        self.status = 0;
        self.queue_select = 0;
    }

    /// Reads a field of the common configuration.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value: u32 = match offset {
            field::DEVICE_FEATURE_SELECT => self.device_feature_select,
            field::DEVICE_FEATURE => half(self.offered, self.device_feature_select),
            field::DRIVER_FEATURE_SELECT => self.driver_feature_select,
            field::DRIVER_FEATURE => half(self.accepted, self.driver_feature_select),
            field::MSIX_CONFIG | field::QUEUE_MSIX_VECTOR => NO_VECTOR.into(),
            field::NUM_QUEUES => u32::try_from(self.kicks.len()).unwrap_or(0),
            field::STATUS => self.status.into(),
            field::CONFIG_GENERATION => self.interrupt.generation().into(),
            field::QUEUE_SELECT => self.queue_select.into(),
            field::QUEUE_NOTIFY_OFF => self.queue_select.into(),
            _ => self.selected().map_or(0, |queue| queue_field(queue, offset)),
        };
        super::read_bytes(&value.to_le_bytes(), 0, data);
    }

    /// Writes a field of the common configuration.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut bytes = [0; 4];
        let len = data.len().min(bytes.len());
        bytes[..len].copy_from_slice(&data[..len]);
        let value = u32::from_le_bytes(bytes);
        // CAST: narrower fields are the low bytes.
        let (byte, word) = (value as u8, value as u16);
        match (offset, data) {
            // A 64-bit field may be written at once.
            (
                field::QUEUE_DESC_LOW | field::QUEUE_DRIVER_LOW | field::QUEUE_DEVICE_LOW,
                [low @ .., _, _, _, _],
            ) if low.len() == 4 => {
                self.write(offset, &data[..4]);
                self.write(offset + 4, &data[4..]);
            }
            (field::DEVICE_FEATURE_SELECT, _) => self.device_feature_select = value,
            (field::DRIVER_FEATURE_SELECT, _) => self.driver_feature_select = value,
            (field::DRIVER_FEATURE, _) => self.accept(value),
            (field::STATUS, _) => self.set_status(byte),
            (field::QUEUE_SELECT, _) => self.queue_select = word,
            _ => self.write_queue(offset, value, word),
        }
    }

    fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn accept(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.accepted &= !(u64::from(u32::MAX) << shift);
        self.accepted |= u64::from(value) << shift;
    }

    fn write_queue(&mut self, offset: u64, value: u32, word: u16) {
        if self.status & DRIVER_OK != 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        match offset {
            field::QUEUE_SIZE => queue.set_size(word),
            // A driver cannot take it back but by a reset.
            field::QUEUE_ENABLE => queue.set_ready(word == 1),
            field::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            field::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            field::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            field::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            field::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            field::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    fn set_status(&mut self, new: u8) {
        if new == 0 {
            return self.reset();
        }
        let added = new & !self.status;
        self.status |= new & !(FEATURES_OK | DRIVER_OK | NEEDS_RESET);
        if added & FEATURES_OK != 0 && self.accepts() {
            self.status |= FEATURES_OK;
        }
        if added & DRIVER_OK != 0 {
            self.start();
        }
    }

    /// A driver that does not accept VERSION_1 is served all the same: virtio-drivers, which AOSP's
    /// bare-metal guests use, never does, and there is no other register layout here.
    fn accepts(&self) -> bool {
        let unknown = self.accepted & !self.offered;
        if unknown != 0 {
            guest_warn!("{}: features {unknown:#x} were not offered", self.name);
            return false;
        }
        let refused = self.device.refuses(self.accepted);
        if let Some(why) = refused {
            guest_warn!("{}: {why}", self.name);
        }
        refused.is_none()
    }

    fn start(&mut self) {
        self.status |= DRIVER_OK;
        if self.status & FEATURES_OK == 0 {
            return self.fail("started before its features were agreed on");
        }
        let queues = match self.active_queues() {
            Ok(queues) => queues,
            Err(why) => return self.fail(why),
        };
        let activation = Activation {
            ram: Arc::clone(&self.ram),
            queues,
            interrupt: Arc::clone(&self.interrupt),
            features: self.accepted,
            vm: self.vm.as_ref().map(|(vm, _)| Arc::clone(vm)),
        };
        if let Err(e) = self.device.activate(activation) {
            self.fail(&e.to_string());
        }
    }

    /// The queues for the device, or what is wrong with one of them. Their registers stay readable.
    fn active_queues(&self) -> Result<Vec<Option<ActiveQueue>>, &'static str> {
        let activate = |(index, (queue, kick)): (usize, (&Queue, &Arc<EventFd>))| {
            if !queue.ready() {
                return Ok(None);
            }
            if !queue.is_valid(self.ram.memory()) {
                return Err("a queue is not in guest memory");
            }
            if self.protected && !self.reachable(index, queue) {
                return Err("a queue is not shared with the host");
            }
            let copy = Queue::try_from(queue.state());
            let mut queue = copy.map_err(|_| "a queue makes no sense")?;
            queue.set_event_idx(self.accepted & EVENT_IDX != 0);
            Ok(Some(ActiveQueue { queue, kick: Arc::clone(kick) }))
        };
        self.queues.iter().zip(&self.kicks).enumerate().map(activate).collect()
    }

    /// Whether this process may touch a queue's rings; if not, the VM's end is under way.
    fn reachable(&self, index: usize, queue: &Queue) -> bool {
        match self.vm.as_ref().map(|(vm, _)| rings::find_private(vm, queue)) {
            None | Some(Ok(None)) => {
                rings::touch(&self.name, index, queue, self.ram.memory());
                true
            }
            Some(Ok(Some(rings::Answer::Reachable))) => true,
            Some(Ok(Some(rings::Answer::Private(address)))) => {
                let device = self.name.clone();
                let event = VmEvent::PrivateQueue { device, queue: index, address };
                // Nobody listens any more when the VM is ending anyway.
                let _ = self.vm.as_ref().map(|(_, events)| events.send(event));
                false
            }
            Some(Err(e)) => {
                guest_warn!("{}: {e}", self.name);
                false
            }
        }
    }

    fn fail(&mut self, why: &str) {
        guest_warn!("{}: {why}", self.name);
        self.status |= NEEDS_RESET;
        self.interrupt.config();
    }
}

fn half(bits: u64, select: u32) -> u32 {
    match select {
        // CAST: the low half is meant.
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

fn queue_field(queue: &Queue, offset: u64) -> u32 {
    match offset {
        field::QUEUE_SIZE => queue.size().into(),
        field::QUEUE_ENABLE => queue.ready().into(),
        field::QUEUE_DESC_LOW => half(queue.desc_table(), 0),
        field::QUEUE_DESC_HIGH => half(queue.desc_table(), 1),
        field::QUEUE_DRIVER_LOW => half(queue.avail_ring(), 0),
        field::QUEUE_DRIVER_HIGH => half(queue.avail_ring(), 1),
        field::QUEUE_DEVICE_LOW => half(queue.used_ring(), 0),
        field::QUEUE_DEVICE_HIGH => half(queue.used_ring(), 1),
        _ => 0,
    }
}
