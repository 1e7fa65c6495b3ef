// SPDX-License-Identifier: Apache-2.0
//! A balloon driver for a guest that knows GenieZone: it gives its pages back by hypercall before it
//! tells the device, and its queues are in shared memory.

use super::pci::Bus;
use super::ring::Ring;
use super::Failure;
use crate::say;
use alloc::vec;
use core::slice;
use guest_bare::console::Console;
use guest_bare::page::Page;
use gzvm_guest::{GenieZone, Hypervisor, PoolHal};
use sha2::{Digest, Sha256};
use virtio_drivers::device::blk::{VirtIOBlk, SECTOR_SIZE};
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};
use virtio_guest::machine::Machine;

extern crate alloc;

/// The first page that is played with: behind the program and its heap.
const START: u64 = 0x8100_0000;
/// Bytes behind the last one: the device tree's window, and the pool for restricted DMA.
const KEPT: u64 = 16 << 20;
/// Bytes of a page.
const PAGE: u64 = 4096;
/// Page numbers of one request.
const NUMBERS: usize = 256;
/// Bytes that are read from the disk at a time.
const CHUNK: usize = 64 * 1024;

/// Features: VERSION_1, and that the device sees only what it is shown.
const FEATURES: u64 = 1 << 32 | 1 << 33;
/// Offsets in the device's configuration.
const NUM_PAGES: usize = 0;
const ACTUAL: usize = 4;
const INFLATE: u16 = 0;

/// Fills its memory, lets the host have as much of it as it asks for, and fills that part from the
/// disk when it gets it back.
pub(super) fn run(
    console: &mut Console,
    bus: &mut Bus<'_>,
    machine: &Machine<'_>,
    protected: bool,
    geniezone: &GenieZone<Hypervisor>,
) -> Result<(), Failure> {
    let pages = pages(machine);
    let mut word = 0_u64;
    let mut next = || {
        word += 1;
        Ok::<_, Failure>(word)
    };
    pages.iter().try_for_each(|page| page.fill(&mut next))?;
    let mut transport = bus.find(DeviceType::MemoryBalloon, "balloon")?;
    let accepted = start(&mut transport, if protected { FEATURES } else { FEATURES >> 33 << 33 });
    let mut queue = Ring::new(&mut transport, INFLATE)?;
    transport.set_status(accepted | DeviceStatus::DRIVER_OK);
    say!(console, "balloon: {} pages are full", pages.len());
    let target = wait(&transport, |target| target != 0)?;
    // CAST: usize has 64 bits here.
    let given = pages.get(..target as usize).ok_or(Failure::Absent("memory for the balloon"))?;
    for part in given.chunks(NUMBERS) {
        for page in part.iter().filter(|_| protected) {
            // SAFETY: nothing relies on the page's contents, nor is there another reference to it.
            unsafe { geniezone.relinquish(page.ipa()) }?;
        }
        inflate(&mut transport, &mut queue, part)?;
    }
    transport.write_config_space(ACTUAL, target)?;
    say!(console, "balloon: {target} pages given");
    wait(&transport, |target| target == 0)?;
    transport.write_config_space(ACTUAL, 0_u32)?;
    refill(console, bus, given)?;
    let changed = (given.len() as u64 * PAGE / 8 + 1..).zip(words(&pages[given.len()..]));
    let changed = changed.filter(|(expected, found)| expected != found).count();
    say!(console, "balloon: {changed} words of what was kept have changed");
    Ok(())
}

/// The pages that are played with.
fn pages(machine: &Machine<'_>) -> &'static [Page] {
    let count = machine.memory_end.saturating_sub(START + KEPT) / PAGE;
    // CAST: usize has 64 bits here.
    let start = core::ptr::with_exposed_provenance(START as usize);
    // SAFETY: this is memory that the page table maps, and the program has nothing there; pages are
    // accessed by atomic operations only.
    unsafe { slice::from_raw_parts(start, count as usize) }
}

fn words(pages: &[Page]) -> impl Iterator<Item = u64> + '_ {
    pages.iter().flat_map(Page::words)
}

/// Negotiates; answers the device's status.
fn start(transport: &mut PciTransport, features: u64) -> DeviceStatus {
    let mut status = DeviceStatus::empty();
    transport.set_status(status);
    for step in [DeviceStatus::ACKNOWLEDGE, DeviceStatus::DRIVER] {
        status |= step;
        transport.set_status(status);
    }
    let offered = transport.read_device_features();
    transport.write_driver_features(offered & features);
    status |= DeviceStatus::FEATURES_OK;
    transport.set_status(status);
    assert!(transport.get_status().contains(status), "the device refuses {features:#x}");
    status
}

/// Waits until the host wants another size.
fn wait(transport: &PciTransport, done: impl Fn(u32) -> bool) -> Result<u32, Failure> {
    loop {
        let target = transport.read_config_space::<u32>(NUM_PAGES)?;
        if done(target) {
            return Ok(target);
        }
    }
}

fn inflate(transport: &mut PciTransport, queue: &mut Ring, pages: &[Page]) -> Result<(), Failure> {
    let mut numbers = vec![];
    for page in pages {
        // CAST: guest addresses are below 2^44.
        numbers.extend(((page.ipa() / PAGE) as u32).to_le_bytes());
    }
    queue.send(transport, &numbers)
}

/// Fills pages with what is on the disk.
fn refill(console: &mut Console, bus: &mut Bus<'_>, pages: &[Page]) -> Result<(), Failure> {
    let mut disk = VirtIOBlk::<PoolHal, _>::new(bus.find(DeviceType::Block, "block device")?)?;
    let mut chunk = vec![0; CHUNK];
    for (index, part) in pages.chunks(CHUNK / 4096).enumerate() {
        let bytes = &mut chunk[..part.len() * 4096];
        disk.read_blocks(index * (CHUNK / SECTOR_SIZE), bytes)?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        for page in part {
            page.fill(|| words.next().ok_or(Failure::Message))?;
        }
    }
    let mut hash = Sha256::new();
    words(pages).for_each(|word| hash.update(word.to_le_bytes()));
    let hash: [u8; 32] = hash.finalize().into();
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
    say!(console, "balloon: sha256 {:032x}{:032x}", number(&hash[..16]), number(&hash[16..]));
    Ok(())
}
