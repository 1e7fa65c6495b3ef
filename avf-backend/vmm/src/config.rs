// SPDX-License-Identifier: Apache-2.0
//! What a VM is made of, after the command line was understood.

use crate::clock::Resync;
use crate::devices::pci::PciWindows;
use crate::layout::MIB;
use crate::memory::Mode;
use std::path::PathBuf;

/// A VM's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name, for logs.
    pub name: Option<String>,
    /// vsock context id.
    pub cid: Option<u32>,
    /// All guest memory in bytes, the static restricted-DMA pool included.
    pub memory: u64,
    /// Size of the static restricted-DMA pool in bytes; only protected VMs have one.
    pub swiotlb: Option<u64>,
    /// Whether, and how, the VM is protected from the host.
    pub protection: Protection,
    /// Number of vCPUs.
    pub vcpus: Vcpus,
    /// What runs first.
    pub payload: Payload,
    /// Kernel parameters, in order.
    pub params: Vec<String>,
    /// Serial ports that are given; the others discard their output.
    pub serial: Vec<SerialPort>,
    /// virtio consoles, in the order of their numbers.
    pub consoles: Vec<SerialPort>,
    /// Disks.
    pub disks: Vec<DiskConfig>,
    /// Where the guest finds PCI.
    pub pci: PciWindows,
    /// Whether the VM has a balloon.
    pub balloon: bool,
    /// Whether the guest may report free memory.
    pub page_reporting: bool,
    /// Whether the guest's clock follows steps of the host's.
    pub clock_resync: Resync,
    /// When the host provides guest memory.
    pub memory_mode: Mode,
    /// Whether guest memory asks for transparent huge pages.
    pub hugepages: bool,
    /// Whether guest memory is kept out of child processes and core dumps, whatever the protection.
    pub dont_fork: bool,
    /// Whether the vCPUs wait for a command before they run.
    pub suspended: bool,
    /// Socket for commands.
    pub socket: Option<PathBuf>,
    /// Device tree overlays, applied in order.
    pub overlays: Vec<PathBuf>,
    /// Where a copy of the device tree goes.
    pub dump_device_tree: Option<PathBuf>,
    /// The device node of the driver.
    pub device: PathBuf,
}

/// Bytes of guest memory where the command line does not say (crosvm's default).
pub const DEFAULT_MEMORY: u64 = 256 * MIB;

/// Bytes of the restricted-DMA pool of a protected VM where the command line does not say (crosvm's
/// default).
pub const DEFAULT_SWIOTLB: u64 = 64 * MIB;

/// Whether, and how, a VM is protected from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The host may see all of it.
    None,
    /// Protected; the loaded payload runs first, trusted by definition.
    WithoutFirmware,
    /// Protected; the hypervisor's own firmware runs first and verifies the payload.
    HypervisorFirmware,
    /// Protected; the firmware in this file runs first, trusted by definition.
    FirmwareFile(PathBuf),
}

impl Protection {
    /// Whether the host loses access to the guest's memory.
    pub fn is_protected(&self) -> bool {
        *self != Self::None
    }

    /// Whether firmware runs before the payload.
    pub fn has_firmware(&self) -> bool {
        matches!(self, Self::HypervisorFirmware | Self::FirmwareFile(_))
    }
}

/// Number of vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vcpus {
    /// That many.
    Count(u32),
    /// As many as the host has CPUs.
    MatchHost,
}

/// What runs first (behind firmware, if there is one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A kernel in the arm64 Image format.
    Kernel {
        /// The Image.
        kernel: PathBuf,
        /// An initial ramdisk.
        initrd: Option<PathBuf>,
    },
    /// A flat binary, entered at its start.
    Bios(PathBuf),
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Raw or composite image.
    pub path: PathBuf,
    /// Whether the guest may write.
    pub writable: bool,
    /// Serial number that the guest sees.
    pub id: Option<String>,
}

/// A 16550 port or a virtio console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialPort {
    /// Number as in `num=`, from 1; there are four serial ports.
    pub number: u8,
    /// Where the guest's output goes.
    pub output: SerialOutput,
    /// Where the guest's input comes from.
    pub input: Option<SerialInput>,
    /// Whether the kernel is told to use it as its console.
    pub console: bool,
    /// Whether the kernel is told to print to it before its driver starts.
    pub earlycon: bool,
}

/// Where a port's output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialOutput {
    /// Nowhere.
    Sink,
    /// To this process's standard output.
    Stdout,
    /// To a file, pipe or terminal.
    File(PathBuf),
    /// To the log, line by line.
    Log,
}

/// Where a port's input comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialInput {
    /// This process's standard input.
    Stdin,
    /// A file, pipe or terminal.
    File(PathBuf),
}
