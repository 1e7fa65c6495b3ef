// SPDX-License-Identifier: Apache-2.0
//! From the first instruction to power-off, on bare metal at EL1.

mod balloon;
mod heap;
mod pci;
mod ring;
mod service;
mod stream;

use crate::say;
use guest_bare::console::Console;
use gzvm_guest::{share_pool, Features, GenieZone, Hypervisor};
use virtio_guest::machine::Machine;

/// Address of the serial port (crosvm's memory map).
const UART: u64 = 0x3f8;

guest_bare::program!("virtio", main);

/// Runs the program that the command line asks for. The boot protocol has the device tree's address
/// in x0.
fn main([dtb, ..]: [u64; 3]) -> ! {
    let geniezone = match GenieZone::detect(Hypervisor) {
        Ok(geniezone) => geniezone,
        // There is no console that could be mapped; the panic resets the VM.
        Err(error) => panic!("{error}"),
    };
    let guard = geniezone.enroll_mmio_guard().unwrap_or_else(|e| panic!("MMIO guard: {e}"));
    guard.map(0, guard.granule()).unwrap_or_else(|e| panic!("the console's page: {e}")).keep();
    let Some(mut console) = Console::new(UART) else { panic!("there is no console") };
    let machine = Machine::from_device_tree(guest_bare::start::device_tree(dtb));
    let machine = machine.unwrap_or_else(|e| panic!("{e}"));
    let features = geniezone.features().unwrap_or_else(|e| panic!("features: {e}"));
    let protected = features.is_some_and(Features::memory_sharing);
    if protected {
        share_pool(&geniezone).unwrap_or_else(|e| panic!("sharing memory: {e}"));
    }
    heap::init();
    say!(console, "virtio: protected {protected}, strict boot {}", machine.strict_boot);
    let mut bus = pci::Bus::new(machine.cam, guard);
    let done = match machine.word("mode") {
        None | Some("serve") => service::run(&mut console, &mut bus, &machine),
        Some("balloon") => balloon::run(&mut console, &mut bus, &machine, protected, &geniezone),
        Some(other) => panic!("mode={other} is unknown"),
    };
    match done {
        Ok(()) => say!(console, "virtio: done"),
        Err(error) => panic!("{error}"),
    }
    guest_bare::exceptions::power_off()
}

/// Prints a line. A console cannot refuse.
#[macro_export]
macro_rules! say {
    ($console:expr, $($format:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($console, $($format)*);
        let _ = $console.write_str("\r\n");
    }};
}

/// What stops a program.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no such device.
    Absent(&'static str),
    /// GenieZone refuses.
    Hypervisor(gzvm_guest::Error),
    /// A driver does.
    Driver(virtio_drivers::Error),
    /// A device is not what it should be.
    Pci(virtio_drivers::transport::pci::VirtioPciError),
    /// The connection ended.
    Disconnected,
    /// A message cannot be understood, or written.
    Message,
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Absent(what) => write!(f, "there is no {what}"),
            Self::Hypervisor(error) => write!(f, "{error}"),
            Self::Driver(error) => write!(f, "{error}"),
            Self::Pci(error) => write!(f, "{error}"),
            Self::Disconnected => f.write_str("the host closed the connection"),
            Self::Message => f.write_str("a message makes no sense"),
        }
    }
}

impl From<virtio_drivers::Error> for Failure {
    fn from(error: virtio_drivers::Error) -> Self {
        Self::Driver(error)
    }
}

impl From<gzvm_guest::Error> for Failure {
    fn from(error: gzvm_guest::Error) -> Self {
        Self::Hypervisor(error)
    }
}
