// SPDX-License-Identifier: Apache-2.0
//! The host bridge and what is plugged into it.

use super::config::{self, ConfigSpace, Identity};
use crate::devices::bus::{Bus, MmioDevice, Overlap};
use crate::layout::Region;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Slots that have an interrupt (32 SPIs, from [`FIRST_SPI`] on), and slot 0, the host bridge.
const SLOTS: u8 = 29;
const SLOT_MASK: u64 = 31;
/// SPI of slot 1.
const FIRST_SPI: u32 = 4;

/// CAM: bus in bits 23:16, slot in 15:11, function in 10:8, register in 7:0.
const BUS_SHIFT: u32 = 16;
const SLOT_SHIFT: u32 = 11;
const FUNCTION_SHIFT: u32 = 8;

/// Where the guest finds PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciWindows {
    /// Configuration space of all buses.
    pub cam: Region,
    /// Memory of devices.
    pub memory: Region,
}

impl Default for PciWindows {
    /// What virtmgr passes for arm64.
    fn default() -> Self {
        Self {
            cam: Region { start: 0x2e00_0000, size: 0x100_0000 },
            memory: Region { start: 0x2c00_0000, size: 0x200_0000 },
        }
    }
}

/// A function in configuration space.
pub trait PciDevice: Send + Sync {
    /// Reads `data.len()` bytes at `offset`.
    fn config_read(&self, offset: usize, data: &mut [u8]);
    /// Writes at `offset`.
    fn config_write(&self, offset: usize, data: &[u8]);

    /// What answers in BAR 0, if there is one.
    fn memory(&self) -> Option<&dyn MmioDevice> {
        None
    }

    /// Where the guest wants BAR 0, as [`ConfigSpace::memory`] says it.
    fn wanted(&self) -> Option<u32> {
        None
    }

    /// Some device was moved: the BAR 0 of this one answers here now, or nowhere.
    fn moved(&self, _to: Option<u64>) {}
}

/// A place for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Slot number.
    pub number: u8,
    /// Its interrupt, counted from 0.
    pub spi: u32,
}

/// The host bridge, with a device in each of the first slots.
pub struct PciHost {
    windows: PciWindows,
    slots: Vec<Plugged>,
    next_memory: u64,
    /// Held while a device moves.
    moving: Mutex<()>,
}

/// A device in its slot.
struct Plugged {
    device: Arc<dyn PciDevice>,
    /// Bytes of BAR 0.
    size: u64,
    /// Where BAR 0 answers, or [`NOWHERE`].
    at: AtomicU64,
}

/// No address of any memory.
const NOWHERE: u64 = u64::MAX;

impl PciHost {
    /// A bus with nothing but the bridge.
    pub fn new(windows: PciWindows) -> Self {
        let bridge = Plugged::new(Arc::new(Bridge::new()), Region { start: NOWHERE, size: 0 });
        let (slots, next_memory) = (vec![bridge], windows.memory.start);
        Self { windows, slots, next_memory, moving: Mutex::default() }
    }

    /// Where the guest finds it.
    pub fn windows(&self) -> PciWindows {
        self.windows
    }

    /// Number of slots in use behind the bridge: slots 1 to this.
    pub fn devices(&self) -> u8 {
        u8::try_from(self.slots.len() - 1).unwrap_or(SLOTS)
    }

    /// Makes room for a device with `size` bytes of memory, a power of two: the slot that
    /// [`PciHost::plug`] fills next, and the memory. `None` if the bus or the window is full.
    pub fn reserve(&mut self, size: u32) -> Option<(Slot, Region)> {
        let number = u8::try_from(self.slots.len()).ok().filter(|&n| n < SLOTS)?;
        let size = u64::from(size);
        let memory = Region { start: self.next_memory.checked_next_multiple_of(size)?, size };
        if !self.windows.memory.contains(&memory) {
            return None;
        }
        self.next_memory = memory.end();
        Some((Slot { number, spi: slot_spi(number) }, memory))
    }

    /// Plugs `device` into the slot that was reserved last, with its BAR 0 at `bar`.
    pub fn plug(&mut self, device: Arc<dyn PciDevice>, bar: Region) {
        self.slots.push(Plugged::new(device, bar));
    }

    /// Has it answer in both of its windows.
    pub fn connect(self, bus: &mut Bus) -> Result<(), Overlap> {
        let host = Arc::new(self);
        bus.add(host.windows.memory, Arc::new(Memory(Arc::clone(&host))))?;
        bus.add(host.windows.cam, Arc::new(Configuration(host)))
    }

    fn slot(&self, offset: u64) -> Option<(&Plugged, usize)> {
        let bus = offset >> BUS_SHIFT;
        let function = offset >> FUNCTION_SHIFT & 7;
        let slot = usize::try_from(offset >> SLOT_SHIFT & SLOT_MASK).ok()?;
        let register = usize::try_from(offset & 0xff).ok()?;
        (bus == 0 && function == 0).then_some(())?;
        Some((self.slots.get(slot)?, register))
    }

    /// Moves a device's BAR 0 to where the guest wants it: anywhere in the window. Other addresses
    /// are not the bus's, so it answers nowhere then.
    fn follow(&self, plugged: &Plugged) {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = plugged.device.wanted() else { return };
        let bar = Region { start: start.into(), size: plugged.size };
        let at = if self.windows.memory.contains(&bar) { bar.start } else { NOWHERE };
        if plugged.at.swap(at, Ordering::AcqRel) != at {
            for plugged in &self.slots {
                let at = plugged.at.load(Ordering::Acquire);
                plugged.device.moved(Some(at).filter(|&at| at != NOWHERE));
            }
        }
    }

    /// The memory at an address, and the offset in it. Of two in the same place it is the first
    /// slot's.
    fn memory(&self, address: u64, len: usize) -> Option<(u64, &dyn MmioDevice)> {
        self.slots.iter().find_map(|plugged| {
            let offset = address.checked_sub(plugged.at.load(Ordering::Acquire))?;
            let end = offset.checked_add(u64::try_from(len).ok()?)?;
            let memory = plugged.device.memory()?;
            (end <= plugged.size).then_some((offset, memory))
        })
    }
}

impl Plugged {
    fn new(device: Arc<dyn PciDevice>, bar: Region) -> Self {
        Self { device, size: bar.size, at: AtomicU64::new(bar.start) }
    }
}

/// SPI of a slot behind the bridge, counted from 0.
pub fn slot_spi(slot: u8) -> u32 {
    FIRST_SPI + u32::from(slot) - 1
}

/// Configuration space of all slots.
struct Configuration(Arc<PciHost>);

impl MmioDevice for Configuration {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.0.slot(offset) {
            Some((plugged, register)) => plugged.device.config_read(register, data),
            // What a bus reads where nobody answers.
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((plugged, register)) = self.0.slot(offset) {
            plugged.device.config_write(register, data);
            self.0.follow(plugged);
        }
    }
}

/// Memory of all devices, wherever the guest has put it.
struct Memory(Arc<PciHost>);

impl MmioDevice for Memory {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.0.memory(self.0.windows.memory.start + offset, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((offset, device)) =
            self.0.memory(self.0.windows.memory.start + offset, data.len())
        {
            device.write(offset, data);
        }
    }
}

/// The bridge itself.
struct Bridge(Mutex<ConfigSpace>);

impl Bridge {
    fn new() -> Self {
        // A generic host bridge, of class "bridge, host".
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            subsystem: 0,
            revision: 0,
            class: 0x06_0000,
        };
        Self(Mutex::new(ConfigSpace::new(&identity)))
    }
}

impl PciDevice for Bridge {
    fn config_read(&self, offset: usize, data: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
    }

    fn config_write(&self, offset: usize, data: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
    }
}

const _: () = assert!(config::SIZE == 1 << FUNCTION_SHIFT);

#[cfg(test)]
mod tests {
    use super::*;

    const BAR0: u64 = 0x10;
    const SIZE: u32 = 0x8000;

    /// A device whose memory reads as its vendor's number, and that remembers where it was moved.
    struct Device {
        config: Mutex<ConfigSpace>,
        vendor: u8,
        moves: Mutex<Vec<Option<u64>>>,
    }

    impl Device {
        fn plug(host: &mut PciHost, vendor: u8) -> (Arc<Self>, Region) {
            let identity =
                Identity { vendor: vendor.into(), device: 0, subsystem: 0, revision: 0, class: 0 };
            let mut config = ConfigSpace::new(&identity);
            let (_, bar) = host.reserve(SIZE).unwrap();
            config.set_memory(u32::try_from(bar.start).unwrap(), SIZE);
            let (config, moves) = (Mutex::new(config), Mutex::default());
            let device = Arc::new(Self { config, vendor, moves });
            host.plug(device.clone(), bar);
            (device, bar)
        }
    }

    impl PciDevice for Device {
        fn config_read(&self, offset: usize, data: &mut [u8]) {
            self.config.lock().unwrap().read(offset, data);
        }
        fn config_write(&self, offset: usize, data: &[u8]) {
            self.config.lock().unwrap().write(offset, data);
        }
        fn memory(&self) -> Option<&dyn MmioDevice> {
            Some(self)
        }
        fn wanted(&self) -> Option<u32> {
            self.config.lock().unwrap().memory()
        }
        fn moved(&self, to: Option<u64>) {
            let mut moves = self.moves.lock().unwrap();
            if moves.last() != Some(&to) {
                moves.push(to);
            }
        }
    }

    impl MmioDevice for Device {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(self.vendor);
        }
        fn write(&self, _offset: u64, _data: &[u8]) {}
    }

    fn bus(host: PciHost) -> Bus {
        let mut bus = Bus::default();
        host.connect(&mut bus).unwrap();
        bus
    }

    fn word(bus: &Bus, address: u64) -> u32 {
        let mut data = [0; 4];
        bus.read(address, &mut data);
        u32::from_le_bytes(data)
    }

    fn config(slot: u64, register: u64) -> u64 {
        PciWindows::default().cam.start + (slot << SLOT_SHIFT) + register
    }

    #[test]
    fn slots_memory_and_interrupts_are_assigned() {
        let mut host = PciHost::new(PciWindows::default());
        let (slot, memory) = host.reserve(0x1000).unwrap();
        assert_eq!(slot, Slot { number: 1, spi: 4 });
        assert_eq!(memory, Region { start: 0x2c00_0000, size: 0x1000 });
        host.plug(Arc::new(Bridge::new()), memory);
        let (slot, memory) = host.reserve(0x8000).unwrap();
        assert_eq!(slot, Slot { number: 2, spi: 5 });
        assert_eq!(memory.start, 0x2c00_8000, "aligned to its size");
        assert_eq!(host.devices(), 1);
    }

    #[test]
    fn only_what_is_there_answers() {
        let mut host = PciHost::new(PciWindows::default());
        let (_, bar) = Device::plug(&mut host, 7);
        let bus = bus(host);
        assert_eq!(word(&bus, config(0, 0)), 0x0008_1b36);
        assert_eq!(word(&bus, config(1, 0)), 7);
        for address in [config(2, 0), config(1, 1 << 8), config(0, 1 << 16), bar.end()] {
            assert_eq!(word(&bus, address), u32::MAX, "{address:#x}");
        }
        assert_eq!(word(&bus, bar.start), 0x0707_0707);
        assert_eq!(word(&bus, bar.end() - 4), 0x0707_0707);
        assert_eq!(word(&bus, bar.end() - 2), u32::MAX, "half of it is not the device's");
    }

    /// As Linux does it where it assigns addresses: asks for sizes, then has two devices change
    /// places, one after the other.
    #[test]
    fn devices_answer_where_the_guest_puts_them() {
        let mut host = PciHost::new(PciWindows::default());
        let ((one, first), (two, second)) =
            (Device::plug(&mut host, 1), Device::plug(&mut host, 2));
        let bus = bus(host);
        let put = |slot, at: u32| bus.write(config(slot, BAR0), &at.to_le_bytes());
        let at = |region: Region| u32::try_from(region.start).unwrap();
        put(1, u32::MAX);
        assert_eq!(word(&bus, config(1, BAR0)), !(SIZE - 1));
        assert_eq!(word(&bus, first.start), 0x0101_0101, "a question for the size moves nothing");
        put(1, at(first));
        assert!(one.moves.lock().unwrap().is_empty(), "the same place is no move");
        put(1, at(second));
        assert_eq!(word(&bus, first.start), u32::MAX);
        put(2, at(first));
        assert_eq!(word(&bus, first.start), 0x0202_0202);
        assert_eq!(word(&bus, second.start), 0x0101_0101);
        assert_eq!(*one.moves.lock().unwrap(), [Some(second.start)]);
        // Outside of the window nothing answers.
        put(2, 0x4000_0000);
        assert_eq!(word(&bus, first.start), u32::MAX);
        put(2, 0x2dff_8000);
        assert_eq!(word(&bus, 0x2dff_8000), 0x0202_0202);
        let moves = [Some(second.start), Some(first.start), None, Some(0x2dff_8000)];
        assert_eq!(*two.moves.lock().unwrap(), moves);
    }

    #[test]
    fn a_full_window_and_a_full_bus_are_noticed() {
        let memory = Region { start: 0, size: 0x8000 };
        let mut host = PciHost::new(PciWindows { memory, ..PciWindows::default() });
        assert!(host.reserve(0x8000).is_some());
        assert!(host.reserve(0x1000).is_none());
        let mut host = PciHost::new(PciWindows::default());
        for _ in 1..SLOTS {
            let (_, bar) = host.reserve(16).unwrap();
            host.plug(Arc::new(Bridge::new()), bar);
        }
        assert!(host.reserve(16).is_none());
    }
}
