// SPDX-License-Identifier: Apache-2.0
//! The bus: which device answers at an address.

use crate::layout::Region;
use std::sync::Arc;
use thiserror::Error;

/// A device with registers in the guest's address space. Called from all vCPU threads at once.
pub trait MmioDevice: Send + Sync {
    /// Reads `data.len()` (1, 2, 4 or 8) bytes at `offset` from the device's first register. What
    /// is left untouched reads as 0.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` (1, 2, 4 or 8 bytes) at `offset`.
    fn write(&self, offset: u64, data: &[u8]);
}

/// Two devices claim the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("two devices at {:#x}", .0.start)]
pub struct Overlap(Region);

/// All devices; fixed once the VM runs.
///
/// Invariant: entries are sorted by address and do not overlap.
#[derive(Clone, Default)]
pub struct Bus {
    entries: Vec<(Region, Arc<dyn MmioDevice>)>,
}

impl Bus {
    /// Adds a device.
    pub fn add(&mut self, region: Region, device: Arc<dyn MmioDevice>) -> Result<(), Overlap> {
        if self.entries.iter().any(|(other, _)| other.overlaps(&region)) {
            return Err(Overlap(region));
        }
        let at = self.entries.partition_point(|(other, _)| other.start < region.start);
        self.entries.insert(at, (region, device));
        Ok(())
    }

    /// Reads at guest address `gpa`; addresses without device read as 0.
    pub fn read(&self, gpa: u64, data: &mut [u8]) {
        data.fill(0);
        match self.find(gpa, data.len()) {
            Some((offset, device)) => device.read(offset, data),
            None => log::debug!("read of {} bytes at {gpa:#x}: no device", data.len()),
        }
    }

    /// Writes at guest address `gpa`; without a device nothing happens.
    pub fn write(&self, gpa: u64, data: &[u8]) {
        match self.find(gpa, data.len()) {
            Some((offset, device)) => device.write(offset, data),
            None => log::debug!("write of {} bytes at {gpa:#x}: no device", data.len()),
        }
    }

    fn find(&self, gpa: u64, len: usize) -> Option<(u64, &dyn MmioDevice)> {
        let size = u64::try_from(len).ok()?;
        gpa.checked_add(size)?;
        let access = Region { start: gpa, size };
        let next = self.entries.partition_point(|(region, _)| region.start <= gpa);
        let (region, device) = self.entries.get(next.checked_sub(1)?)?;
        region.contains(&access).then(|| (gpa - region.start, &**device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Probe(Mutex<Vec<u64>>);

    impl MmioDevice for Probe {
        fn read(&self, offset: u64, data: &mut [u8]) {
            self.0.lock().unwrap().push(offset);
            data.fill(0xff);
        }
        fn write(&self, offset: u64, _data: &[u8]) {
            self.0.lock().unwrap().push(offset);
        }
    }

    #[test]
    fn accesses_reach_the_device_with_their_offset() {
        let (mut bus, probe) = (Bus::default(), Arc::new(Probe::default()));
        bus.add(Region { start: 0x3f8, size: 8 }, probe.clone()).unwrap();
        bus.add(Region { start: 0x2f8, size: 8 }, Arc::new(Probe::default())).unwrap();
        let mut data = [0; 1];
        bus.read(0x3fd, &mut data);
        bus.write(0x3f8, &[1]);
        assert_eq!((data, &probe.0.lock().unwrap()[..]), ([0xff], &[5, 0][..]));
    }

    #[test]
    fn holes_and_edges_read_as_zero() {
        let mut bus = Bus::default();
        bus.add(Region { start: 0x3f8, size: 8 }, Arc::new(Probe::default())).unwrap();
        for gpa in [0, 0x3f7, 0x3fd, 0x400, u64::MAX] {
            let mut data = [1; 4];
            bus.read(gpa, &mut data);
            assert_eq!(data, [0; 4], "{gpa:#x}");
        }
    }

    #[test]
    fn overlaps_are_refused() {
        let mut bus = Bus::default();
        bus.add(Region { start: 8, size: 8 }, Arc::new(Probe::default())).unwrap();
        let region = Region { start: 4, size: 5 };
        assert_eq!(bus.add(region, Arc::new(Probe::default())), Err(Overlap(region)));
    }

    proptest! {
        #[test]
        fn any_access_is_survived(gpa: u64, width in 0_u32..4) {
            let mut bus = Bus::default();
            bus.add(Region { start: u64::MAX - 16, size: 16 }, Arc::new(Probe::default())).unwrap();
            bus.read(gpa, &mut [0; 8][..1 << width]);
            bus.write(gpa, &[0; 8][..1 << width]);
        }
    }
}
