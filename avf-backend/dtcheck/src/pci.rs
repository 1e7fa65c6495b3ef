// SPDX-License-Identifier: Apache-2.0
//! The PCI host.

use crate::fault::Fault;
use crate::tree::{entries, range, registers, wide, Tree};
use crate::{PciPlaces, Reader, MAX_PCI_DEVICES};
use core::ops::Range;

/// IEEE 1275: the kind of an address space, with its bits for prefetchable and relocatable.
const KIND: u32 = 0xc300_0000;
const MEMORY_32: u32 = 0x0200_0000;
const MEMORY_64: u32 = 0x0300_0000;
const PREFETCHABLE_64: u32 = 0x4300_0000;
/// The highest address that the firmware maps, and one.
const ADDRESS_LIMIT: u64 = 1 << 40;
/// Slots in an address, and the pin.
const MASK: [u32; 4] = [0xf800, 0, 0, 7];
const SLOT_SHIFT: u32 = 11;
const INTA: u32 = 1;
/// SPI of slot 1.
const FIRST_SPI: u32 = 4;
const SPI: u32 = 0;
const LEVEL_HIGH: u32 = 4;

/// Checks the host bridge and returns the number of devices behind it.
pub(crate) fn check(tree: &Tree<'_>, memory: &Range<u64>, reader: Reader) -> Result<usize, Fault> {
    let node = tree.compatible("pci-host-cam-generic")?;
    let missing = |what| Fault::Missing(what);
    let mut ranges = entries::<7>(node, "ranges").ok_or(missing("PCI ranges"))?;
    let both = [ranges.next(), ranges.next()];
    let [Some(first), Some(second)] = both else { return Err(missing("PCI ranges, two of them")) };
    kinds(first[0], second[0])?;
    window(first, memory)?;
    window(second, memory)?;
    let mut masks =
        entries::<4>(node, "interrupt-map-mask").ok_or(missing("PCI interrupt-map-mask"))?;
    if masks.next() != Some(MASK) {
        return Err(Fault::PciMask);
    }
    let map = || entries::<10>(node, "interrupt-map").ok_or(missing("PCI interrupt-map"));
    let devices = map()?.count();
    if devices > MAX_PCI_DEVICES && reader == Reader::Firmware {
        return Err(Fault::PciDevices(devices));
    }
    (1..).zip(map()?).try_for_each(|(slot, entry)| interrupt(slot, entry))?;
    Ok(devices)
}

/// Configuration space and the first memory window.
pub(crate) fn places(tree: &Tree<'_>) -> Result<PciPlaces, Fault> {
    let node = tree.compatible("pci-host-cam-generic")?;
    let (configuration, _) = registers(node)[0].ok_or(Fault::Missing("PCI reg"))?;
    let first = entries::<7>(node, "ranges").and_then(|mut ranges| ranges.next());
    let [_, _, _, high, low, ..] = first.ok_or(Fault::Missing("PCI ranges"))?;
    Ok(PciPlaces { configuration, memory: wide(high, low) })
}

/// The pairs that crosvm has had: two ranges of 64-bit memory, of which the second became
/// prefetchable, before the first became one of 32-bit memory. Firmware up to Android 16's takes
/// only the former two.
fn kinds(first: u32, second: u32) -> Result<(), Fault> {
    let fault = |index, flags| Err(Fault::PciRangeKind { index, flags });
    match (first & KIND, second & KIND) {
        (MEMORY_32 | MEMORY_64, PREFETCHABLE_64) | (MEMORY_64, MEMORY_64) => Ok(()),
        (MEMORY_32 | MEMORY_64, _) => fault(1, second),
        _ => fault(0, first),
    }
}

fn window(cells: [u32; 7], memory: &Range<u64>) -> Result<(), Fault> {
    let [_, bus_high, bus_low, cpu_high, cpu_low, size_high, size_low] = cells;
    let (bus, cpu) = (wide(bus_high, bus_low), wide(cpu_high, cpu_low));
    let size = wide(size_high, size_low);
    if bus != cpu {
        return Err(Fault::PciRangeMapping { bus, cpu });
    }
    let window = range(bus, size).filter(|window| size != 0 && window.end <= ADDRESS_LIMIT);
    let window = window.ok_or(Fault::PciRangeEnd { start: bus, size })?;
    if window.start < memory.end && memory.start < window.end {
        return Err(Fault::PciInMemory(bus));
    }
    Ok(())
}

/// One entry of `interrupt-map`: slots count from 1, SPIs from 4.
fn interrupt(slot: usize, entry: [u32; 10]) -> Result<(), Fault> {
    let [high, middle, low, pin, _controller, gic_high, gic_low, kind, number, flags] = entry;
    let fault = |what| Err(Fault::PciInterrupt { slot, what });
    // A slot is at most MAX_PCI_DEVICES.
    let index = u32::try_from(slot).unwrap_or(u32::MAX);
    if (high, middle, low) != (index << SLOT_SHIFT, 0, 0) {
        return fault("another slot's address");
    }
    if pin != INTA {
        return fault("another pin than INTA");
    }
    if (gic_high, gic_low) != (0, 0) {
        return fault("an address for the GIC");
    }
    if (kind, number) != (SPI, FIRST_SPI + index - 1) {
        return fault("another interrupt than the slot's SPI, which count from 4");
    }
    if flags != LEVEL_HIGH {
        return fault("another trigger than level high");
    }
    Ok(())
}
