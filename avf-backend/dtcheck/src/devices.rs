// SPDX-License-Identifier: Apache-2.0
//! CPUs and the devices that guests expect at fixed places.

use crate::fault::Fault;
use crate::tree::{entries, registers, value, Tree};
use crate::{Reader, MAX_CPUS};

/// First serial port, which bare-metal guests have built in.
const UART: u64 = 0x3f8;
const STALL_DETECTOR: (u64, u64) = (0x3000, 0x1000);
const STALL_DETECTOR_PPI: u32 = 15;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
/// GIC binding: the lowest bit of a PPI's CPU mask, which has eight.
const CPU_MASK_SHIFT: u32 = 8;
const CPU_MASK_BITS: usize = 8;
const GIC_DISTRIBUTOR: u64 = 0x3fff_0000;
const GIC_REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// Counts the CPUs.
pub(crate) fn cpus(tree: &Tree<'_>, reader: Reader) -> Result<usize, Fault> {
    let mut count = 0;
    tree.each_compatible("arm,armv8", |_| count += 1);
    match count {
        0 => Err(Fault::Cpus(0)),
        count if count > MAX_CPUS && reader == Reader::Firmware => Err(Fault::Cpus(count)),
        count => Ok(count),
    }
}

/// A serial port is where guests print before they read the tree.
pub(crate) fn serial(tree: &Tree<'_>) -> Result<(), Fault> {
    let mut found = false;
    tree.each_compatible("ns16550a", |port| {
        found |= registers(port)[0].is_some_and(|(start, _)| start == UART);
    });
    found.then_some(()).ok_or(Fault::SerialPorts)
}

/// The firmware compares place and interrupt with the only ones that it knows.
pub(crate) fn stall_detector(tree: &Tree<'_>, cpus: usize) -> Result<(), Fault> {
    let node = tree.compatible("qemu,vcpu-stall-detector")?;
    let place = registers(node)[0].ok_or(Fault::Missing("stall detector reg"))?;
    if place != STALL_DETECTOR {
        return Err(Fault::StallDetectorPlace { start: place.0, size: place.1 });
    }
    let interrupts = entries::<3>(node, "interrupts").and_then(|mut all| all.next());
    let interrupt = interrupts.ok_or(Fault::Missing("stall detector interrupts"))?;
    let mask = ((1_u32 << cpus.min(CPU_MASK_BITS)) - 1) << CPU_MASK_SHIFT;
    if interrupt != [PPI, STALL_DETECTOR_PPI, EDGE_RISING | mask] {
        return Err(Fault::StallDetectorInterrupt(interrupt));
    }
    Ok(())
}

/// The firmware does not read the interrupt controller's place, it writes its own: a controller
/// elsewhere would leave the payload without interrupts.
pub(crate) fn gic(tree: &Tree<'_>, cpus: usize) -> Result<(), Fault> {
    let [distributor, redistributors] = registers(tree.compatible("arm,gic-v3")?);
    let (Some((distributor, _)), Some((redistributors, _))) = (distributor, redistributors) else {
        return Err(Fault::Missing("interrupt controller reg, two ranges"));
    };
    // At most MAX_CPUS.
    let cpus = u64::try_from(cpus).unwrap_or(u64::MAX);
    let expected = GIC_DISTRIBUTOR - cpus * GIC_REDISTRIBUTOR_SIZE;
    if (distributor, redistributors) != (GIC_DISTRIBUTOR, expected) {
        return Err(Fault::Gic { distributor, redistributors });
    }
    Ok(())
}

/// `/avf` must be there; what is in `/avf/untrusted` is passed on unchecked, so it must not mean
/// anything to Linux.
pub(crate) fn avf(tree: &Tree<'_>) -> Result<(), Fault> {
    tree.node("/avf").ok_or(Fault::Missing("/avf"))?;
    let Some(untrusted) = tree.node("/avf/untrusted") else { return Ok(()) };
    for name in ["compatible", "linux,phandle", "phandle"] {
        if value(untrusted, name).is_some() {
            return Err(Fault::Untrusted(name));
        }
    }
    Ok(())
}
