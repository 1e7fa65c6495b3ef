// SPDX-License-Identifier: Apache-2.0
//! What can be wrong with a tree. Each message names what is demanded.

use crate::{FIRMWARE_WINDOW, MAIN_MEMORY, MAX_CPUS, MAX_PCI_DEVICES, PAGE_SIZE};
use core::fmt;
use dtoolkit::error::FdtParseError;

/// An interrupt specifier of the GIC: type (0 SPI, 1 PPI), number, flags.
pub type Interrupt = [u32; 3];

/// Why a tree will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not a flattened device tree, or a damaged one.
    Malformed(FdtParseError),
    /// A node or property is missing, or its value has another size than is read.
    Missing(
        /// A path, or a path and a property.
        &'static str,
    ),
    /// Memory starts elsewhere.
    MemoryBase(u64),
    /// Memory is no whole number of pages, or there is none.
    MemorySize(u64),
    /// Something that must lie in memory does not.
    NotInMemory {
        /// What.
        what: &'static str,
        /// First address.
        start: u64,
        /// The address behind it.
        end: u64,
    },
    /// Payload and initial ramdisk overlap.
    PayloadOverlap,
    /// No CPU is `arm,armv8`, or more than there is room for.
    Cpus(usize),
    /// A PCI range is of a kind that the firmware refuses.
    PciRangeKind {
        /// Which of the two.
        index: usize,
        /// Its first cell.
        flags: u32,
    },
    /// A PCI range is not mapped to the same address.
    PciRangeMapping {
        /// Address on the bus.
        bus: u64,
        /// Address for the CPU.
        cpu: u64,
    },
    /// A PCI range ends behind what the firmware can map.
    PciRangeEnd {
        /// First address.
        start: u64,
        /// Bytes.
        size: u64,
    },
    /// A PCI range overlaps with memory.
    PciInMemory(u64),
    /// `interrupt-map-mask` is not the one for slots and pins.
    PciMask,
    /// An entry of `interrupt-map` is not the one for its slot.
    PciInterrupt {
        /// The slot that the entry stands for.
        slot: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// More PCI devices than there is room for.
    PciDevices(usize),
    /// No serial port where bare-metal guests have it built in.
    SerialPorts,
    /// The stall detector's registers are elsewhere.
    StallDetectorPlace {
        /// First address.
        start: u64,
        /// Bytes.
        size: u64,
    },
    /// The stall detector has another interrupt.
    StallDetectorInterrupt(Interrupt),
    /// The interrupt controller is elsewhere.
    Gic {
        /// Distributor.
        distributor: u64,
        /// First redistributor.
        redistributors: u64,
    },
    /// The restricted-DMA pool is empty or no whole number of pages.
    PoolSize(u64),
    /// The restricted-DMA pool's alignment is no whole number of pages.
    PoolAlignment(u64),
    /// A property that must not be passed on without a check.
    Untrusted(&'static str),
    /// The tree is larger than the hypervisor is told.
    LargerThanDeclared {
        /// Bytes of the tree.
        size: u64,
        /// Bytes declared.
        declared: u64,
    },
    /// The tree's window is not in main memory, or not aligned.
    OutsideOfRam {
        /// First address.
        start: u64,
        /// Bytes declared.
        declared: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Malformed(ref why) => write!(f, "not a device tree, or damaged: {why}"),
            Self::Missing(what) => write!(f, "{what} is missing, or of another size"),
            Self::NotInMemory { what, start, end } => {
                write!(f, "{what} {start:#x}..{end:#x} is not in memory, or empty")
            }
            Self::PayloadOverlap => f.write_str("payload and initial ramdisk overlap"),
            Self::Cpus(count) => {
                write!(f, "{count} CPUs compatible with arm,armv8, 1 to {MAX_CPUS} are supported")
            }
            Self::SerialPorts => f.write_str("no ns16550a with its registers at 0x3f8"),
            Self::StallDetectorPlace { start, size } => {
                write!(f, "the stall detector is at {start:#x}+{size:#x}, not at 0x3000+0x1000")
            }
            Self::StallDetectorInterrupt(found) => {
                write!(
                    f,
                    "the stall detector's interrupt is {found:x?}, not edge PPI 15 of all CPUs"
                )
            }
            Self::Gic { distributor, redistributors } => write!(
                f,
                "the interrupt controller is at {distributor:#x} and {redistributors:#x}, not at \
                 0x3fff0000 with 128 KiB for each CPU below"
            ),
            Self::Untrusted(name) => write!(f, "/avf/untrusted has the property {name}"),
            Self::LargerThanDeclared { size, declared } => {
                write!(f, "the tree has {size} bytes, only {declared} are declared")
            }
            Self::OutsideOfRam { start, declared } => write!(
                f,
                "the tree's window {start:#x}+{declared:#x} is not aligned or not in main memory"
            ),
            _ => self.fmt_memory_and_pci(f),
        }
    }
}

impl Fault {
    fn fmt_memory_and_pci(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MemoryBase(base) => write!(
                f,
                "memory starts at {base:#x}, not at {MAIN_MEMORY:#x} or {FIRMWARE_WINDOW:#x}"
            ),
            Self::MemorySize(size) => {
                write!(f, "{size:#x} bytes of memory are no whole pages of {PAGE_SIZE}, or none")
            }
            Self::PciRangeKind { index, flags } => write!(
                f,
                "PCI range {index} is of kind {flags:#x}, not 64-bit (or 32-bit), then 64-bit \
                 prefetchable, or 64-bit twice"
            ),
            Self::PciRangeMapping { bus, cpu } => {
                write!(f, "PCI range {bus:#x} is mapped to {cpu:#x}, not to itself")
            }
            Self::PciRangeEnd { start, size } => {
                write!(f, "PCI range {start:#x}+{size:#x} is empty or ends behind 40-bit addresses")
            }
            Self::PciInMemory(start) => write!(f, "PCI range {start:#x} overlaps with memory"),
            Self::PciMask => f.write_str("interrupt-map-mask of PCI is not <0xf800 0 0 7>"),
            Self::PciInterrupt { slot, what } => {
                write!(f, "interrupt-map of PCI, slot {slot}: {what}")
            }
            Self::PciDevices(count) => {
                write!(f, "{count} PCI devices, {MAX_PCI_DEVICES} are supported")
            }
            Self::PoolSize(size) => write!(
                f,
                "{size:#x} bytes of restricted-DMA pool are no whole pages of {PAGE_SIZE}, or none"
            ),
            Self::PoolAlignment(alignment) => write!(
                f,
                "the restricted-DMA pool's alignment {alignment:#x} is no multiple of {PAGE_SIZE}"
            ),
            // The others are the caller's.
            _ => Ok(()),
        }
    }
}

impl core::error::Error for Fault {}
