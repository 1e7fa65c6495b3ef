// SPDX-License-Identifier: Apache-2.0
//! What AVF's protected-VM firmware (pvmfw) and bare-metal guests demand of a device tree.
//!
//! The firmware takes apart the tree that the VMM gives it, and resets the VM without a word to the
//! host where it finds something else than crosvm writes. The same demands are checked here in
//! three places: in the VMM's tests, by the VMM before it starts a VM with firmware, and by the
//! stand-in for the firmware in the test machine. The numbers are those of pvmfw and vmbase
//! (Android's packages/modules/Virtualization).
//!
//! ```
//! use gzvm_dtcheck::{check, Fault, Reader};
//! assert!(matches!(check(b"no tree", Reader::Firmware), Err(Fault::Malformed(_))));
//! ```

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod devices;
mod fault;
mod memory;
mod pci;
#[cfg(test)]
mod tests;
mod tree;

pub use fault::{Fault, Interrupt};

use core::ops::Range;
use dtoolkit::fdt::Fdt;
use tree::Tree;

/// First address of main memory (crosvm's memory map).
pub const MAIN_MEMORY: u64 = 0x8000_0000;
/// Where the firmware's window starts. Newer crosvm lists the window as memory, older firmware
/// refuses that; both are in the field.
pub const FIRMWARE_WINDOW: u64 = 0x7fc0_0000;
/// Bytes that a guest maps at the device tree's address: a larger tree is cut.
pub const WINDOW: u64 = 2 << 20;
/// Bytes of a guest page.
pub const PAGE_SIZE: u64 = 4096;
/// CPUs that the firmware's own tree has room for.
pub const MAX_CPUS: usize = 16;
/// PCI devices that the firmware's own tree has room for.
pub const MAX_PCI_DEVICES: usize = 16;

/// Who reads the tree first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The firmware of protected VMs.
    Firmware,
    /// The payload of a protected VM without firmware.
    Protected,
    /// The payload of another VM.
    Plain,
}

/// What the tree says, as far as it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// All memory, from [`FIRMWARE_WINDOW`] or [`MAIN_MEMORY`] on.
    pub memory: Range<u64>,
    /// The payload that the firmware is to start.
    pub kernel: Option<Range<u64>>,
    /// Initial ramdisk.
    pub initrd: Option<Range<u64>>,
    /// The restricted-DMA pool.
    pub pool: Option<Pool>,
    /// Number of CPUs.
    pub cpus: usize,
    /// Number of PCI devices.
    pub pci_devices: usize,
}

/// A restricted-DMA pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pool {
    /// At these addresses.
    Fixed(Range<u64>),
    /// Wherever the guest finds room for so many bytes.
    Anywhere(u64),
}

/// Checks the tree in `blob` for `reader`.
///
/// # Errors
///
/// The first demand that it does not meet.
pub fn check(blob: &[u8], reader: Reader) -> Result<Facts, Fault> {
    let tree = Tree(parse(blob)?);
    let memory = memory::all(&tree)?;
    let initrd = memory::initrd(&tree, &memory)?;
    let kernel = memory::kernel(&tree, &memory, initrd.as_ref(), reader)?;
    let cpus = devices::cpus(&tree, reader)?;
    let pci_devices = pci::check(&tree, &memory, reader)?;
    devices::serial(&tree)?;
    let pool = memory::pool(&tree, &memory, reader)?;
    devices::stall_detector(&tree, cpus)?;
    devices::gic(&tree, cpus)?;
    devices::avf(&tree)?;
    Ok(Facts { memory, kernel, initrd, pool, cpus, pci_devices })
}

/// Where the PCI bus is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciPlaces {
    /// First address of configuration space.
    pub configuration: u64,
    /// First address of devices' memory.
    pub memory: u64,
}

/// Reads where the PCI bus of a tree that passed [`check`] is.
///
/// # Errors
///
/// The tree does not say it.
pub fn pci_places(blob: &[u8]) -> Result<PciPlaces, Fault> {
    pci::places(&Tree(parse(blob)?))
}

/// Parses the tree at the start of `blob`, which may be larger: a window with room to grow into.
///
/// # Errors
///
/// There is no tree, or it is damaged.
pub fn parse(blob: &[u8]) -> Result<Fdt<'_>, Fault> {
    // The header's second word is the tree's size (DTSpec 5.2).
    let size = blob.get(4..8).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    let tree = size.and_then(|size| blob.get(..usize::try_from(size).ok()?));
    Fdt::new(tree.unwrap_or(blob)).map_err(Fault::Malformed)
}

/// Checks where a tree of `size` bytes lies that was declared with `declared` bytes from `start`
/// on, in a VM with main memory `ram`.
///
/// # Errors
///
/// The tree is larger than declared, not aligned as guests map it, or not in main memory.
pub fn check_place(size: u64, start: u64, declared: u64, ram: &Range<u64>) -> Result<(), Fault> {
    if size > declared {
        return Err(Fault::LargerThanDeclared { size, declared });
    }
    let end = start.checked_add(declared);
    if !start.is_multiple_of(WINDOW) || end.is_none_or(|end| start < ram.start || end > ram.end) {
        return Err(Fault::OutsideOfRam { start, declared });
    }
    Ok(())
}
