// SPDX-License-Identifier: Apache-2.0
//! Devices on PCI: found, guarded in, and handed to their drivers. The VMM has assigned all BARs.

use super::Failure;
use gzvm_guest::{Hypervisor, MmioGuard, PoolHal};
use virtio_drivers::transport::pci::bus::{Cam, Command, DeviceFunction, MmioCam, PciRoot};
use virtio_drivers::transport::pci::{virtio_device_type, PciTransport};
use virtio_drivers::transport::DeviceType;

/// Bytes of the configuration space of one bus.
const BUS_SIZE: u64 = 32 * 8 * 256;

/// The first bus.
pub(super) struct Bus<'a> {
    root: PciRoot<MmioCam<'static>>,
    guard: MmioGuard<'a, Hypervisor>,
}

impl<'a> Bus<'a> {
    /// The bus whose configuration space is at `cam`.
    pub(super) fn new(cam: u64, guard: MmioGuard<'a, Hypervisor>) -> Self {
        let granule = guard.granule();
        let mapped = guard.map(cam, BUS_SIZE.next_multiple_of(granule));
        mapped.unwrap_or_else(|e| panic!("PCI: {e}")).keep();
        // CAST: usize has 64 bits here.
        let address = core::ptr::with_exposed_provenance_mut(cam as usize);
        // SAFETY: the device tree says that there is PCI's configuration space, and no Rust object
        // lies in the first GiB.
        let access = unsafe { MmioCam::new(address, Cam::MmioCam) };
        Self { root: PciRoot::new(access), guard }
    }

    /// The first device of a type, ready for its driver.
    pub(super) fn find(
        &mut self,
        wanted: DeviceType,
        name: &'static str,
    ) -> Result<PciTransport, Failure> {
        let mut devices = self.root.enumerate_bus(0);
        let found = devices.find(|(_, info)| virtio_device_type(info) == Some(wanted));
        let (function, _) = found.ok_or(Failure::Absent(name))?;
        self.guard_in(function)?;
        self.root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
        PciTransport::new::<PoolHal, _>(&mut self.root, function).map_err(Failure::Pci)
    }

    /// Lets accesses to a device's registers reach the host.
    fn guard_in(&mut self, function: DeviceFunction) -> Result<(), Failure> {
        let bars = self.root.bars(function).map_err(|_| Failure::Absent("BAR that makes sense"))?;
        let granule = self.guard.granule();
        for bar in bars.into_iter().flatten() {
            if let Some((address, size)) = bar.memory_address_size() {
                let start = address - address % granule;
                let end = (address + size).next_multiple_of(granule);
                self.guard.map(start, end - start)?.keep();
            }
        }
        Ok(())
    }
}
