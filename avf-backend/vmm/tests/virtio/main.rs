// SPDX-License-Identifier: Apache-2.0
//! The virtio devices, driven in one process by the drivers that AOSP's bare-metal guests use.
//!
//! [`guest`] is the guest's side: its memory, and virtio-drivers' view of a device through the
//! registers that the VMM shows in PCI memory.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod guest;

use guest::{Guest, GuestHal, Registers};
use gzvm_vmm::config::SerialOutput;
use gzvm_vmm::devices::console::Output;
use gzvm_vmm::devices::virtio::blk::Block;
use gzvm_vmm::devices::virtio::console::Console;
use gzvm_vmm::devices::virtio::rng::Rng;
use gzvm_vmm::disk;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use tempfile::NamedTempFile;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::{DeviceStatus, Transport};

type Blk = VirtIOBlk<GuestHal, Registers>;

fn image(sectors: usize) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let contents: Vec<u8> = (0..sectors * 512).map(|i| (i / 512) as u8).collect();
    file.write_all(&contents).unwrap();
    file
}

fn block(guest: &Guest, path: &Path, writable: bool) -> Registers {
    let contents = disk::open(path, writable).unwrap();
    guest.plug(Box::new(Block::new("disk0".into(), contents, writable)))
}

#[test]
fn a_disk_is_read_and_written() {
    let (guest, image) = (Guest::new(), image(64));
    let mut blk = Blk::new(block(&guest, image.path(), true)).unwrap();
    assert_eq!((blk.capacity(), blk.readonly()), (64, false));
    let mut data = vec![0; 8 * 512];
    blk.read_blocks(3, &mut data).unwrap();
    assert_eq!((data[0], data[8 * 512 - 1]), (3, 10));
    blk.write_blocks(5, &[0xee; 1024]).unwrap();
    blk.flush().unwrap();
    let file = fs::read(image.path()).unwrap();
    assert_eq!((file[5 * 512 - 1], file[5 * 512], file[7 * 512 - 1]), (4, 0xee, 0xee));
    assert_eq!(file[7 * 512], 7);
    let mut id = [0; 20];
    blk.device_id(&mut id).unwrap();
    assert!(id.starts_with(b"disk0\0"));
}

/// A driver may look at its queue while the device runs, and cannot change it then.
#[test]
fn queues_stay_readable() {
    let (guest, image) = (Guest::new(), image(8));
    let mut registers = block(&guest, image.path(), true);
    assert!(!registers.queue_used(0));
    let mut blk = Blk::new(registers.clone()).unwrap();
    assert!(registers.queue_used(0) && !registers.queue_used(1));
    registers.queue_unset(0);
    assert!(registers.queue_used(0));
    blk.read_blocks(0, &mut [0; 512]).unwrap();
    drop(blk);
    registers.set_status(DeviceStatus::empty());
    assert!(!registers.queue_used(0), "a reset takes it back");
}

#[test]
fn a_disk_has_an_end() {
    let (guest, image) = (Guest::new(), image(8));
    let mut blk = Blk::new(block(&guest, image.path(), true)).unwrap();
    assert!(blk.read_blocks(8, &mut [0; 512]).is_err());
    assert!(blk.read_blocks(7, &mut [0; 1024]).is_err());
    assert!(blk.write_blocks(usize::MAX >> 1, &[0; 512]).is_err());
    blk.read_blocks(7, &mut [0; 512]).unwrap();
}

/// AOSP's example of a bare-metal guest has one, and expects an error of its reads.
#[test]
fn an_empty_disk_has_no_sectors() {
    let (guest, image) = (Guest::new(), image(0));
    let mut blk = Blk::new(block(&guest, image.path(), false)).unwrap();
    assert_eq!(blk.capacity(), 0);
    assert_eq!(blk.read_blocks(0, &mut [0; 512]), Err(virtio_drivers::Error::IoError));
}

/// What is left of a file behind its last sector is not there.
#[test]
fn only_whole_sectors_count() {
    let (guest, image) = (Guest::new(), image(2));
    image.as_file().set_len(2 * 512 + 100).unwrap();
    let mut blk = Blk::new(block(&guest, image.path(), true)).unwrap();
    assert_eq!(blk.capacity(), 2);
    assert!(blk.write_blocks(2, &[0; 512]).is_err());
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (guest, image) = (Guest::new(), image(8));
    let mut blk = Blk::new(block(&guest, image.path(), false)).unwrap();
    assert!(blk.readonly());
    assert!(blk.write_blocks(0, &[0xee; 512]).is_err());
    assert_eq!(fs::read(image.path()).unwrap()[0], 0);
}

#[test]
fn a_disk_survives_resets() {
    let (guest, image) = (Guest::new(), image(8));
    let registers = block(&guest, image.path(), true);
    for round in 0..5 {
        let mut blk = Blk::new(registers.clone()).unwrap();
        blk.write_blocks(round, &[0xaa; 512]).unwrap();
        // Dropping the driver resets the device.
    }
    assert_eq!(fs::read(image.path()).unwrap()[..5 * 512], [0xaa; 5 * 512]);
}

#[test]
fn entropy_is_different_each_time() {
    let guest = Guest::new();
    let source = File::open("/dev/urandom").unwrap();
    let registers = guest.plug(Box::new(Rng::new(source)));
    let mut rng = VirtIORng::<GuestHal, Registers>::new(registers).unwrap();
    let (mut a, mut b) = ([0; 64], [0; 64]);
    assert_eq!(
        (rng.request_entropy(&mut a).unwrap(), rng.request_entropy(&mut b).unwrap()),
        (64, 64)
    );
    assert_ne!(a, b);
}

#[test]
fn a_console_carries_both_ways() {
    let guest = Guest::new();
    let mut file = tempfile::tempfile().unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let output = Output::open("hvc0".into(), &SerialOutput::File(path.into())).unwrap();
    let (mut host, input) = UnixStream::pair().unwrap();
    let input = File::from(std::os::fd::OwnedFd::from(input));
    let registers = guest.plug(Box::new(Console::new("hvc0".into(), output, Some(input))));
    let mut console = VirtIOConsole::<GuestHal, Registers>::new(registers).unwrap();

    console.send_bytes(b"Hello VirtIO console\n").unwrap();
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "Hello VirtIO console\n");

    // More than one buffer of the driver.
    let sent: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
    host.write_all(&sent).unwrap();
    let mut received = Vec::new();
    while received.len() < sent.len() {
        match console.recv(true).unwrap() {
            Some(byte) => received.push(byte),
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(received, sent);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let guest = Guest::new();
    let mut registers = guest.plug(Box::new(Rng::new(File::open("/dev/urandom").unwrap())));
    registers.set_status(DeviceStatus::empty());
    registers.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    registers.write_driver_features(1 << 63);
    registers
        .set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK);
    assert!(!registers.get_status().contains(DeviceStatus::FEATURES_OK));
}

#[test]
fn rings_outside_of_memory_are_refused() {
    let guest = Guest::new();
    let mut registers = guest.plug(Box::new(Rng::new(File::open("/dev/urandom").unwrap())));
    let ready = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    for address in [0, 0x1000, 0x7fff_f000, usize::MAX & !0xfff] {
        registers.set_status(DeviceStatus::empty());
        registers.write_driver_features(0);
        registers.set_status(ready);
        registers.queue_set(0, 16, address, address, address);
        registers.set_status(ready | DeviceStatus::DRIVER_OK);
        assert!(registers.get_status().contains(DeviceStatus::DEVICE_NEEDS_RESET), "{address:#x}");
    }
}

#[test]
fn a_ring_of_garbage_is_survived() {
    let guest = Guest::new();
    let mut registers = guest.plug(Box::new(Rng::new(File::open("/dev/urandom").unwrap())));
    let ready = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    let pages = guest.allocate(3);
    let rings = usize::try_from(pages).unwrap();
    for fill in [0xff, 0x01, 0x80] {
        guest.fill(pages, 3, fill);
        registers.set_status(DeviceStatus::empty());
        registers.write_driver_features(0);
        registers.set_status(ready);
        registers.queue_set(0, 16, rings, rings + 0x1000, rings + 0x2000);
        registers.set_status(ready | DeviceStatus::DRIVER_OK);
        for _ in 0..100 {
            registers.notify(0);
        }
        // Returns only after the device has stopped working on it.
        registers.set_status(DeviceStatus::empty());
        assert!(registers.get_status().is_empty());
    }
}
