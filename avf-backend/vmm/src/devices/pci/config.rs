// SPDX-License-Identifier: Apache-2.0
//! A function's configuration space: 256 bytes, of which some bits are the guest's (PCI Local Bus
//! Specification 3.0, 6.1).

/// Bytes of configuration space that CAM reaches.
pub const SIZE: usize = 256;

const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const REVISION: usize = 0x08;
const CLASS: usize = 0x09;
const BAR0: usize = 0x10;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;

/// Command bits that a guest may set: I/O, memory, bus master, INTx off.
const COMMAND_WRITABLE: u16 = 0x0407;
/// Status bit: there is a list of capabilities.
const STATUS_CAPABILITIES: u8 = 0x10;
const PIN_INTA: u8 = 1;

/// What a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device, in the vendor's numbering.
    pub device: u16,
    /// Subsystem, in the vendor's numbering.
    pub subsystem: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and programming interface, as bits 23:16, 15:8 and 7:0.
    pub class: u32,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// Bits that the guest may change.
    writable: [u8; SIZE],
    next_capability: usize,
    /// Where the offset of the next capability is to be written.
    link: usize,
}

impl ConfigSpace {
    /// A function without memory, interrupt or capabilities.
    pub fn new(identity: &Identity) -> Self {
        let mut config = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            next_capability: FIRST_CAPABILITY,
            link: CAPABILITIES,
        };
        config.put(VENDOR_ID, &identity.vendor.to_le_bytes());
        config.put(DEVICE_ID, &identity.device.to_le_bytes());
        config.put(REVISION, &[identity.revision]);
        config.put(CLASS, &identity.class.to_le_bytes()[..3]);
        config.put(SUBSYSTEM_VENDOR, &identity.vendor.to_le_bytes());
        config.put(SUBSYSTEM, &identity.subsystem.to_le_bytes());
        config.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_WRITABLE.to_le_bytes());
        config.writable[INTERRUPT_LINE] = 0xff;
        config
    }

    /// Gives the function `size` bytes (a power of two) of memory at `address` as BAR 0.
    pub fn set_memory(&mut self, address: u32, size: u32) {
        self.put(BAR0, &address.to_le_bytes());
        let mask = !(size - 1);
        self.writable[BAR0..BAR0 + 4].copy_from_slice(&mask.to_le_bytes());
    }

    /// Where the guest wants the function's memory; `None` while it asks for the memory's size, by
    /// setting all the bits that it can.
    pub fn memory(&self) -> Option<u32> {
        let mask = self.writable.get(BAR0..).and_then(|rest| rest.first_chunk());
        let mask = mask.map_or(0, |mask| u32::from_le_bytes(*mask));
        Some(self.word(BAR0) & mask).filter(|&address| address != mask)
    }

    /// Lets the function interrupt through INTA; `line` is what the guest's firmware would have
    /// noted.
    pub fn set_interrupt(&mut self, line: u8) {
        self.put(INTERRUPT_LINE, &[line]);
        self.put(INTERRUPT_PIN, &[PIN_INTA]);
    }

    /// Adds a capability; `body` is what follows its identifier and link. Returns its offset.
    ///
    /// # Panics
    ///
    /// If there is no room; the capabilities of a device are fixed by the program.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.next_capability;
        assert!(at + 2 + body.len() <= SIZE, "no room for capability {id:#x}");
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        // CAST: below `SIZE`, as just asserted.
        self.put(self.link, &[at as u8]);
        self.put(STATUS, &[STATUS_CAPABILITIES]);
        self.link = at + 1;
        self.next_capability = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// Lets the guest write `len` bytes at `offset`.
    pub fn make_writable(&mut self, offset: usize, len: usize) {
        self.writable[offset..offset + len].fill(0xff);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads for the guest.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        match self.bytes.get(offset..offset.saturating_add(data.len())) {
            Some(bytes) => data.copy_from_slice(bytes),
            None => data.fill(0xff),
        }
    }

    /// Writes for the guest: bits that are not its own keep their value.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, byte) in (offset..SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (byte & mask);
        }
    }

    /// Four bytes as a number, 0 outside.
    pub fn word(&self, offset: usize) -> u32 {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: Identity =
        Identity { vendor: 0x1af4, device: 0x1042, subsystem: 2, revision: 1, class: 0x01_8000 };

    #[test]
    fn identity() {
        let config = ConfigSpace::new(&IDENTITY);
        assert_eq!(config.word(0), 0x1042_1af4);
        assert_eq!(config.word(8), 0x0180_0001);
        assert_eq!(config.word(0x2c), 0x0002_1af4);
    }

    #[test]
    fn the_size_of_memory_can_be_found_out() {
        let mut config = ConfigSpace::new(&IDENTITY);
        config.set_memory(0x2c00_8000, 0x4000);
        assert_eq!(config.word(BAR0), 0x2c00_8000);
        assert_eq!(config.memory(), Some(0x2c00_8000));
        config.write(BAR0, &[0xff; 4]);
        assert_eq!((config.word(BAR0), config.memory()), (0xffff_c000, None));
        config.write(BAR0, &0x2c00_9234_u32.to_le_bytes());
        assert_eq!((config.word(BAR0), config.memory()), (0x2c00_8000, Some(0x2c00_8000)));
        config.write(BAR0 + 4, &[0xff; 4]);
        assert_eq!(config.word(BAR0 + 4), 0, "there is only one");
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut config = ConfigSpace::new(&IDENTITY);
        let first = config.add_capability(9, &[1, 2, 3]);
        let second = config.add_capability(9, &[4; 6]);
        assert_eq!((first, second), (0x40, 0x48));
        let mut at = [0];
        config.read(CAPABILITIES, &mut at);
        assert_eq!(usize::from(at[0]), first);
        config.read(first + 1, &mut at);
        assert_eq!(usize::from(at[0]), second);
        config.read(second + 1, &mut at);
        assert_eq!(at[0], 0);
        assert_eq!(config.word(4) >> 16 & 0x10, 0x10);
    }

    proptest! {
        #[test]
        fn the_guest_changes_only_its_own(writes: Vec<(u8, [u8; 4])>) {
            let mut config = ConfigSpace::new(&IDENTITY);
            config.set_memory(0x2c00_0000, 0x8000);
            config.set_interrupt(4);
            for (offset, data) in writes {
                config.write(usize::from(offset), &data);
            }
            prop_assert_eq!(config.word(0), 0x1042_1af4);
            prop_assert_eq!(config.word(BAR0) & 0x7fff, 0);
            prop_assert_eq!(config.word(0x3c) >> 8, 1);
        }
    }
}
