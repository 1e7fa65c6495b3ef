// SPDX-License-Identifier: Apache-2.0
//! The host bridge and what is plugged into it.

use super::config::{self, ConfigSpace, Identity};
use crate::devices::bus::MmioDevice;
use crate::layout::Region;
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
    devices: Vec<Arc<dyn PciDevice>>,
    next_memory: u64,
}

impl PciHost {
    /// A bus with nothing but the bridge.
    pub fn new(windows: PciWindows) -> Self {
        Self { windows, devices: vec![Arc::new(Bridge::new())], next_memory: windows.memory.start }
    }

    /// Where the guest finds it.
    pub fn windows(&self) -> PciWindows {
        self.windows
    }

    /// Number of slots in use behind the bridge: slots 1 to this.
    pub fn devices(&self) -> u8 {
        u8::try_from(self.devices.len() - 1).unwrap_or(SLOTS)
    }

    /// Makes room for a device with `size` bytes of memory, a power of two: the slot that
    /// [`PciHost::plug`] fills next, and the memory. `None` if the bus or the window is full.
    pub fn reserve(&mut self, size: u32) -> Option<(Slot, Region)> {
        let number = u8::try_from(self.devices.len()).ok().filter(|&n| n < SLOTS)?;
        let size = u64::from(size);
        let memory = Region { start: self.next_memory.checked_next_multiple_of(size)?, size };
        if !self.windows.memory.contains(&memory) {
            return None;
        }
        self.next_memory = memory.end();
        Some((Slot { number, spi: slot_spi(number) }, memory))
    }

    /// Plugs `device` into the slot that was reserved last.
    pub fn plug(&mut self, device: Arc<dyn PciDevice>) {
        self.devices.push(device);
    }

    fn device(&self, offset: u64) -> Option<(&dyn PciDevice, usize)> {
        let bus = offset >> BUS_SHIFT;
        let function = offset >> FUNCTION_SHIFT & 7;
        let slot = usize::try_from(offset >> SLOT_SHIFT & SLOT_MASK).ok()?;
        let register = usize::try_from(offset & 0xff).ok()?;
        (bus == 0 && function == 0).then_some(())?;
        Some((&**self.devices.get(slot)?, register))
    }
}

/// SPI of a slot behind the bridge, counted from 0.
pub fn slot_spi(slot: u8) -> u32 {
    FIRST_SPI + u32::from(slot) - 1
}

impl MmioDevice for PciHost {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.device(offset) {
            Some((device, register)) => device.config_read(register, data),
            // What a bus reads where nobody answers.
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((device, register)) = self.device(offset) {
            device.config_write(register, data);
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

    struct Ones;

    impl PciDevice for Ones {
        fn config_read(&self, offset: usize, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }
        fn config_write(&self, _offset: usize, _data: &[u8]) {}
    }

    fn word(host: &PciHost, offset: u64) -> u32 {
        let mut data = [0; 4];
        host.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn slots_memory_and_interrupts_are_assigned() {
        let mut host = PciHost::new(PciWindows::default());
        let (slot, memory) = host.reserve(0x1000).unwrap();
        assert_eq!(slot, Slot { number: 1, spi: 4 });
        assert_eq!(memory, Region { start: 0x2c00_0000, size: 0x1000 });
        host.plug(Arc::new(Ones));
        let (slot, memory) = host.reserve(0x8000).unwrap();
        assert_eq!(slot, Slot { number: 2, spi: 5 });
        assert_eq!(memory.start, 0x2c00_8000, "aligned to its size");
        assert_eq!(host.devices(), 1);
    }

    #[test]
    fn only_what_is_there_answers() {
        let mut host = PciHost::new(PciWindows::default());
        host.reserve(0x1000).unwrap();
        host.plug(Arc::new(Ones));
        assert_eq!(word(&host, 0), 0x0008_1b36);
        assert_eq!(word(&host, 1 << 11 | 8), 0x0808_0808);
        for offset in [2 << 11, 1 << 11 | 1 << 8, 1 << 16, !3] {
            assert_eq!(word(&host, offset), u32::MAX, "{offset:#x}");
        }
    }

    #[test]
    fn a_full_window_and_a_full_bus_are_noticed() {
        let memory = Region { start: 0, size: 0x8000 };
        let mut host = PciHost::new(PciWindows { memory, ..PciWindows::default() });
        assert!(host.reserve(0x8000).is_some());
        assert!(host.reserve(0x1000).is_none());
        let mut host = PciHost::new(PciWindows::default());
        for _ in 1..SLOTS {
            host.reserve(16).unwrap();
            host.plug(Arc::new(Ones));
        }
        assert!(host.reserve(16).is_none());
    }
}
