// SPDX-License-Identifier: Apache-2.0
//! The machine as its device tree describes it.

use core::fmt;
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// The most CPUs that the payload starts.
pub const MAX_CPUS: usize = 16;

/// Where the console is if the device tree does not say: crosvm's first UART.
const DEFAULT_UART: u64 = 0x3f8;

/// What the payload wants to know about its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    /// The first range of RAM, by address.
    pub memory: Range<u64>,
    /// MPIDR values of the CPUs.
    pub cpus: Cpus,
    /// Address of the console's registers, a 16550.
    pub uart: u64,
    /// Address of the stall detector's registers, if there is one.
    pub stall_detector: Option<u64>,
    /// GICv3, if there is one.
    pub gic: Option<Gic>,
    /// The command line.
    pub command_line: &'a str,
}

/// Addresses of a GICv3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gic {
    /// Distributor.
    pub distributor: u64,
    /// First redistributor.
    pub redistributors: u64,
}

/// MPIDR values, at most [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    ids: [u64; MAX_CPUS],
    count: usize,
}

impl Cpus {
    /// The values, in the device tree's order.
    pub fn ids(&self) -> &[u64] {
        &self.ids[..self.count]
    }
}

/// Why a device tree will not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineError {
    /// It cannot be parsed.
    Malformed,
    /// It has no memory node with a range.
    NoMemory,
    /// It has no CPU, or too many.
    BadCpus,
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the device tree cannot be parsed",
            Self::NoMemory => "the device tree has no memory",
            Self::BadCpus => "the device tree has no CPU, or more than 16",
        })
    }
}

impl<'a> Machine<'a> {
    /// Reads the device tree.
    ///
    /// # Errors
    ///
    /// What is missing from it.
    pub fn from_device_tree(dtb: &'a [u8]) -> Result<Self, MachineError> {
        let fdt = Fdt::new(dtb).map_err(|_| MachineError::Malformed)?;
        Ok(Self {
            memory: memory(fdt)?,
            cpus: cpus(fdt)?,
            uart: console(fdt).unwrap_or(DEFAULT_UART),
            stall_detector: find(fdt.root(), "qemu,vcpu-stall-detector")
                .and_then(|[first, _]| first),
            gic: find(fdt.root(), "arm,gic-v3").and_then(|addresses| match addresses {
                [Some(distributor), Some(redistributors)] => {
                    Some(Gic { distributor, redistributors })
                }
                _ => None,
            }),
            command_line: command_line(fdt).unwrap_or(""),
        })
    }
}

/// The first memory node's first range.
fn memory(fdt: Fdt<'_>) -> Result<Range<u64>, MachineError> {
    let node = fdt.root().children().find(|node| node.name_without_address() == "memory");
    let mut ranges =
        node.and_then(|node| node.reg().ok().flatten()).ok_or(MachineError::NoMemory)?;
    let range = ranges.next().ok_or(MachineError::NoMemory)?;
    match (range.address::<u64>(), range.size::<u64>()) {
        (Ok(base), Ok(size)) => Ok(base..base.checked_add(size).ok_or(MachineError::NoMemory)?),
        _ => Err(MachineError::NoMemory),
    }
}

/// The CPU nodes' identifiers.
fn cpus(fdt: Fdt<'_>) -> Result<Cpus, MachineError> {
    let node = fdt.root().children().find(|node| node.name() == "cpus");
    let children = node.into_iter().flat_map(|node| node.children());
    let mut cpus = Cpus { ids: [0; MAX_CPUS], count: 0 };
    for cpu in children.filter(|node| node.name_without_address() == "cpu") {
        let id = addresses(cpu)[0].ok_or(MachineError::BadCpus)?;
        *cpus.ids.get_mut(cpus.count).ok_or(MachineError::BadCpus)? = id;
        cpus.count += 1;
    }
    if cpus.count == 0 {
        return Err(MachineError::BadCpus);
    }
    Ok(cpus)
}

/// The first two addresses of the first of a node's children that is compatible with `what`.
fn find(parent: FdtNode<'_>, what: &str) -> Option<[Option<u64>; 2]> {
    let node = parent.children().find(|node| node.is_compatible(what))?;
    Some(addresses(node))
}

/// A node's first two addresses.
fn addresses(node: FdtNode<'_>) -> [Option<u64>; 2] {
    let mut ranges = node.reg().ok().flatten().into_iter().flatten();
    [(); 2].map(|()| ranges.next().and_then(|range| range.address().ok()))
}

/// The address of the console that `/chosen` names.
fn console(fdt: Fdt<'_>) -> Option<u64> {
    // Options may follow a colon.
    let path = chosen(fdt, "stdout-path")?.split(':').next()?;
    let node = fdt.find_node(path).filter(|node| node.is_compatible("ns16550a"))?;
    addresses(node)[0]
}

/// The command line.
fn command_line(fdt: Fdt<'_>) -> Option<&str> {
    chosen(fdt, "bootargs")
}

/// A string of `/chosen`.
fn chosen<'a>(fdt: Fdt<'a>, name: &str) -> Option<&'a str> {
    let node = fdt.root().children().find(|node| node.name() == "chosen")?;
    node.properties().find(|property| property.name() == name)?.value_as().ok()
}
