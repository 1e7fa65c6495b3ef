// SPDX-License-Identifier: Apache-2.0
//! The firmware's way from the first call to the payload.

use crate::patch::{has_parameter, patch};
use crate::{Refusal, UART_PAGE};
use core::fmt;
use core::ops::Range;
use gzvm_dtcheck::{check, Facts, Pool, Reader};
use gzvm_guest::{Features, GenieZone, GuardedRange, Hvc, MmioGuard, SharedRange, Trng};

/// Configuration space of PCI slot 1 (crosvm's CAM: slot in bits 15:11).
const FIRST_SLOT: u64 = 1 << 11;
/// Configuration space of bus 0, and what virtio devices take of the memory behind it.
const CAM_OF_BUS: u64 = 1 << 16;
const DEVICE_MEMORY: u64 = 1 << 20;
/// What virtio devices have as PCI vendor.
const VIRTIO_VENDOR: u32 = 0x1af4;
/// Real-time clock and stall detector.
const TIMERS: Range<u64> = 0x2000..0x4000;
/// On the payload's command line: the payload does not know the MMIO guard.
const KEEP_MMIO: &str = "pvmfw.keep-mmio";
/// The machine below.
pub trait Board {
    /// How hypervisor calls are made.
    type Conduit: Hvc + Copy;

    /// The hypervisor below.
    fn hypervisor(&self) -> Self::Conduit;

    /// Sets up the console; its page is guarded in by now.
    fn open_console(&mut self);

    /// Prints on the console.
    fn print(&mut self, text: fmt::Arguments<'_>);

    /// Reads 32 bits of a device's registers.
    fn read(&self, address: u64) -> u32;

    /// Shares a page of the firmware's own with the host.
    fn share<'a>(
        &self,
        geniezone: &'a GenieZone<Self::Conduit>,
    ) -> Result<SharedRange<'a, Self::Conduit>, gzvm_guest::Error>;

    /// Fills that page.
    fn fill_page(&self, value: u64);

    /// Whether all of that page has the value.
    fn page_is(&self, value: u64) -> bool;
}

/// What the firmware is started with.
#[derive(Debug)]
pub struct Given {
    /// The device tree and the room behind it (x0).
    pub window: &'static mut [u8],
    /// First address of the payload (x1).
    pub payload: u64,
    /// Bytes of the payload (x2).
    pub size: u64,
}

/// What is to be started.
#[derive(Debug, PartialEq, Eq)]
pub struct Handover {
    /// Its first instruction.
    pub entry: u64,
}

/// Prints a line.
macro_rules! say {
    ($board:expr, $($format:tt)*) => {
        $board.print(format_args!("pvmfw: {}\n", format_args!($($format)*)))
    };
}

/// Does everything but the jump.
///
/// # Errors
///
/// The payload is not to be started; the reason is on the console.
pub fn run<B: Board>(board: &mut B, given: &mut Given) -> Result<Handover, Refusal> {
    let geniezone = GenieZone::detect(board.hypervisor())?;
    let guard = geniezone.enroll_mmio_guard()?;
    let uart = guard.map(UART_PAGE, guard.granule())?;
    board.open_console();
    say!(board, "stand-in for protected VMs' firmware, without verified boot");
    let result = judge(board, &geniezone, &guard, given);
    match result {
        Ok(facts) => {
            hand_over(board, &guard, uart, given, &facts)?;
            Ok(Handover { entry: given.payload })
        }
        Err(refusal) => {
            say!(board, "refused: {refusal}");
            // The console stays, for the name of the reason on the failure port.
            uart.keep();
            Err(refusal)
        }
    }
}

fn judge<B: Board>(
    board: &mut B,
    geniezone: &GenieZone<B::Conduit>,
    guard: &MmioGuard<'_, B::Conduit>,
    given: &mut Given,
) -> Result<Facts, Refusal> {
    let trng = Trng::new(board.hypervisor())?;
    // The real one's stack guard.
    trng.fill(&mut [0; 8])?;
    let facts = check(given.window, Reader::Firmware)?;
    describe(board, geniezone, &facts)?;
    let tree = facts.kernel.as_ref().map(|kernel| (kernel.start, kernel.end - kernel.start));
    let (registers, tree) = ((given.payload, given.size), tree.unwrap_or_default());
    if registers != tree {
        return Err(Refusal::Payload { registers, tree });
    }
    share(board, geniezone)?;
    first_device(board, guard, given)?;
    patch(given.window, &trng)?;
    say!(board, "device tree: seeds replaced, avf,strict-boot set");
    Ok(facts)
}

fn describe<B: Board>(
    board: &mut B,
    geniezone: &GenieZone<B::Conduit>,
    facts: &Facts,
) -> Result<(), Refusal> {
    let protected = match geniezone.features()?.map(Features::memory_sharing) {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    say!(board, "protected {protected}");
    say!(board, "memory {:#x}..{:#x}", facts.memory.start, facts.memory.end);
    say!(board, "{} CPUs, {} PCI devices", facts.cpus, facts.pci_devices);
    match &facts.pool {
        Some(Pool::Fixed(pool)) => {
            say!(board, "restricted DMA {:#x}..{:#x}", pool.start, pool.end);
        }
        Some(Pool::Anywhere(size)) => say!(board, "restricted DMA of {size:#x} bytes"),
        None => {}
    }
    if let Some(initrd) = &facts.initrd {
        say!(board, "initial ramdisk {:#x}..{:#x}", initrd.start, initrd.end);
    }
    Ok(())
}

/// What the firmware does for its block device: memory of its own is shared and taken back.
fn share<B: Board>(board: &mut B, geniezone: &GenieZone<B::Conduit>) -> Result<(), Refusal> {
    const PATTERN: u64 = 0x7076_6d66_7770_6731;
    board.fill_page(PATTERN);
    board.share(geniezone)?.unshare()?;
    if !board.page_is(PATTERN) {
        return Err(Refusal::Shared);
    }
    say!(board, "a page shared and taken back");
    Ok(())
}

/// Finds the first PCI device, whose registers are guarded in for as long as that takes.
fn first_device<B: Board>(
    board: &mut B,
    guard: &MmioGuard<'_, B::Conduit>,
    given: &Given,
) -> Result<(), Refusal> {
    let (cam, _) = pci(given.window)?;
    let address = cam + FIRST_SLOT;
    let granule = guard.granule();
    let page = guard.map(address - address % granule, granule)?;
    let id = board.read(address);
    page.unmap()?;
    if id & 0xffff != VIRTIO_VENDOR {
        return Err(Refusal::NoDevice(id));
    }
    say!(board, "PCI slot 1 is {:04x}:{:04x}", id & 0xffff, id >> 16);
    Ok(())
}

/// First addresses of PCI configuration space and of devices' memory.
fn pci(blob: &[u8]) -> Result<(u64, u64), Refusal> {
    let places = gzvm_dtcheck::pci_places(blob)?;
    Ok((places.configuration, places.memory))
}

/// Leaves everything as it was found, but for what a payload needs that does not know the guard.
fn hand_over<B: Board>(
    board: &mut B,
    guard: &MmioGuard<'_, B::Conduit>,
    uart: GuardedRange<'_, B::Conduit>,
    given: &Given,
    facts: &Facts,
) -> Result<(), Refusal> {
    let keep = has_parameter(given.window, KEEP_MMIO);
    if keep {
        let (cam, memory) = pci(given.window)?;
        let size = |bytes: u64| bytes.next_multiple_of(guard.granule());
        guard.map(TIMERS.start, size(TIMERS.end - TIMERS.start))?.keep();
        guard.map(cam, size(CAM_OF_BUS))?.keep();
        guard.map(memory, size(DEVICE_MEMORY))?.keep();
    }
    let kept = if keep { ", devices stay mapped" } else { "" };
    let cpus = facts.cpus;
    say!(board, "starting the payload at {:#x} on {cpus} CPUs{kept}", given.payload);
    if keep {
        uart.keep();
    } else {
        uart.unmap()?;
    }
    Ok(())
}
