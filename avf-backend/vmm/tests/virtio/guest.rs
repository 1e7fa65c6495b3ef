// SPDX-License-Identifier: Apache-2.0
//! The guest's side: memory that drivers allocate from, and a transport over the registers of a
//! device in a PCI slot.

use gzvm_vmm::devices::bus::MmioDevice;
use gzvm_vmm::devices::pci::{PciDevice, PciHost, PciWindows};
use gzvm_vmm::devices::virtio::interrupt::Interrupt;
use gzvm_vmm::devices::virtio::pci::{VirtioPci, BAR_SIZE};
use gzvm_vmm::devices::virtio::transport::Transport as Device;
use gzvm_vmm::devices::virtio::VirtioDevice;
use gzvm_vmm::layout::{Layout, MIB};
use gzvm_vmm::memory::{GuestRam, Policy};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::Arc;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PhysAddr, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemory};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const PAGE: u64 = 4096;

thread_local! {
    /// Each test has a thread, and a guest.
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

struct Memory {
    ram: Arc<GuestRam>,
    next: u64,
}

/// A guest with 16 MiB of memory.
pub struct Guest {
    ram: Arc<GuestRam>,
}

impl Guest {
    /// A guest, whose memory the drivers of this thread use.
    pub fn new() -> Self {
        let layout = Layout::new(16 * MIB, None, 1, false, false).unwrap();
        let ram = Arc::new(GuestRam::new(&layout, Policy::default()).unwrap());
        let memory = Memory { ram: Arc::clone(&ram), next: layout.ram.start };
        MEMORY.with_borrow_mut(|m| *m = Some(memory));
        Self { ram }
    }

    /// Puts a device into a slot.
    pub fn plug(&self, device: Box<dyn VirtioDevice>) -> Registers {
        let (slot, bar) = PciHost::new(PciWindows::default()).reserve(BAR_SIZE).unwrap();
        let interrupt = Arc::new(Interrupt::new(slot.spi).unwrap());
        let ram = Arc::clone(&self.ram);
        let transport =
            Device::new("test".into(), device, ram, Arc::clone(&interrupt), false).unwrap();
        Registers::find(Arc::new(VirtioPci::new(transport, interrupt, slot, bar)))
    }

    /// Address of `pages` new pages.
    pub fn allocate(&self, pages: u64) -> u64 {
        allocate(pages)
    }

    /// Overwrites pages.
    pub fn fill(&self, address: u64, pages: u64, byte: u8) {
        let len = usize::try_from(pages * PAGE).unwrap();
        self.ram.memory().write_slice(&vec![byte; len], GuestAddress(address)).unwrap();
    }
}

fn allocate(pages: u64) -> u64 {
    MEMORY.with_borrow_mut(|memory| {
        let memory = memory.as_mut().unwrap();
        let address = memory.next;
        memory.next += pages * PAGE;
        assert!(memory.next <= 0x8000_0000 + 14 * MIB, "the test needs more memory");
        address
    })
}

fn ram() -> Arc<GuestRam> {
    MEMORY.with_borrow(|memory| Arc::clone(&memory.as_ref().unwrap().ram))
}

/// virtio-drivers' platform: pages of the guest's memory; buffers outside of it are copied, as a
/// protected guest does.
pub struct GuestHal;

// SAFETY: `dma_alloc` hands out pages of the guest's memory that nothing else of the guest uses
// (`next` only grows), which stay mapped as long as `MEMORY` does: until the thread's end.
unsafe impl Hal for GuestHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let address = allocate(pages.try_into().unwrap());
        let host = ram().memory().get_host_address(GuestAddress(address)).unwrap();
        (address.try_into().unwrap(), NonNull::new(host).unwrap())
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("the transport has no memory of its own")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let pages = (buffer.len() as u64).div_ceil(PAGE);
        let address = allocate(pages);
        // SAFETY: the caller promises that `buffer` is valid.
        let bytes = unsafe { buffer.as_ref() };
        ram().memory().write_slice(bytes, GuestAddress(address)).unwrap();
        address.try_into().unwrap()
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if direction != BufferDirection::DriverToDevice {
            let mut buffer = buffer;
            // SAFETY: the caller promises that `buffer` is valid and not in use elsewhere.
            let bytes = unsafe { buffer.as_mut() };
            ram().memory().read_slice(bytes, GuestAddress(paddr.try_into().unwrap())).unwrap();
        }
    }
}

/// A device, with its structures found through its capabilities.
#[derive(Clone)]
pub struct Registers {
    device: Arc<VirtioPci>,
    common: u64,
    notify: (u64, u64),
    isr: u64,
    config: u64,
}

impl Registers {
    fn find(device: Arc<VirtioPci>) -> Self {
        let mut found = [0; 6];
        let mut multiplier = 0;
        let mut at = byte(&device, 0x34);
        while at != 0 {
            let offset = usize::from(at);
            assert_eq!(byte(&device, offset), 9, "only virtio's capabilities");
            let kind = usize::from(byte(&device, offset + 3));
            found[kind] = u64::from(word(&device, offset + 8));
            if kind == 2 {
                multiplier = u64::from(word(&device, offset + 16));
            }
            at = byte(&device, offset + 1);
        }
        let [_, common, notify, isr, config, _] = found;
        Self { device, common, notify: (notify, multiplier), isr, config }
    }

    fn read<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.device.read(offset, &mut data);
        data
    }

    fn select(&self, queue: u16) {
        self.device.write(self.common + 0x16, &queue.to_le_bytes());
    }
}

fn byte(device: &VirtioPci, offset: usize) -> u8 {
    let mut data = [0];
    device.config_read(offset, &mut data);
    data[0]
}

fn word(device: &VirtioPci, offset: usize) -> u32 {
    let mut data = [0; 4];
    device.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        let id = word(&self.device, 0) >> 16;
        DeviceType::try_from(u8::try_from(id - 0x1040).unwrap()).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |select: u32| {
            self.device.write(self.common, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.read(self.common + 4)))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, features: u64) {
        for select in [0_u32, 1] {
            self.device.write(self.common + 8, &select.to_le_bytes());
            let half = (features >> (32 * select)) as u32;
            self.device.write(self.common + 0xc, &half.to_le_bytes());
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        u16::from_le_bytes(self.read(self.common + 0x18)).into()
    }

    fn notify(&mut self, queue: u16) {
        self.select(queue);
        let index = u64::from(u16::from_le_bytes(self.read(self.common + 0x1e)));
        let (start, step) = self.notify;
        self.device.write(start + index * step, &queue.to_le_bytes());
    }

    fn get_status(&self) -> DeviceStatus {
        let [status] = self.read(self.common + 0x14);
        DeviceStatus::from_bits_truncate(status.into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.device.write(self.common + 0x14, &[status.bits() as u8]);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        desc: PhysAddr,
        avail: PhysAddr,
        used: PhysAddr,
    ) {
        self.select(queue);
        self.device.write(self.common + 0x18, &(size as u16).to_le_bytes());
        for (offset, address) in [(0x20, desc), (0x28, avail), (0x30, used)] {
            self.device.write(self.common + offset, &address.to_le_bytes());
        }
        self.device.write(self.common + 0x1c, &1_u16.to_le_bytes());
    }

    fn queue_unset(&mut self, _queue: u16) {
        // Not possible with PCI.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.read(self.common + 0x1c) == 1_u16.to_le_bytes()
    }

    fn ack_interrupt(&mut self) -> bool {
        let [status] = self.read(self.isr);
        status & 1 != 0
    }

    fn read_config_generation(&self) -> u32 {
        let [generation] = self.read(self.common + 0x15);
        generation.into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        self.device.read(self.config + offset as u64, value.as_mut_bytes());
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(Error::Unsupported)
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // As the drivers' own transports do.
        self.set_status(DeviceStatus::empty());
    }
}
