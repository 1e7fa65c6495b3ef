// SPDX-License-Identifier: Apache-2.0
//! The block device (5.2).

use super::queue::Chain;
use super::worker::{wait, Worker};
use super::{device_type, read_bytes, Activation, VirtioDevice};
use crate::disk::Disk;
use crate::guest_warn;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use virtio_bindings::virtio_blk as bits;
use virtio_queue::{Reader, Writer};
use vm_memory::GuestMemoryMmap;

const QUEUES: [u16; 1] = [256];
const SECTOR: u64 = 512;
/// Segments of one request: the queue's size without header and status.
const SEGMENTS: u32 = 254;
/// Sectors of one range that is discarded or zeroed: 32 MiB, what a request may take the device's
/// thread for where zeros have to be written.
const RANGE: u32 = 1 << 16;
/// Bytes of the description of such a range: sector, number of sectors, flags.
const DESCRIPTION: usize = 16;
/// Flag of a zeroed range: its storage may be given up.
const UNMAP: u32 = bits::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
/// Bytes that are copied at a time.
const BUFFER: usize = 64 * 1024;
/// Bytes of a serial number.
const ID_SIZE: usize = bits::VIRTIO_BLK_ID_BYTES as usize;
/// Bytes of a request's header: type, reserved, sector.
const HEADER: usize = 16;

/// Status of a request.
const OK: u8 = bits::VIRTIO_BLK_S_OK as u8;
const IO_ERROR: u8 = bits::VIRTIO_BLK_S_IOERR as u8;
const UNSUPPORTED: u8 = bits::VIRTIO_BLK_S_UNSUPP as u8;

/// A block device.
pub struct Block {
    name: String,
    backend: Arc<Backend>,
    worker: Option<Worker<()>>,
}

struct Backend {
    disk: Box<dyn Disk>,
    writable: bool,
    serial: [u8; ID_SIZE],
}

impl Block {
    /// A device with the contents of `disk`. Its serial number is `name`.
    pub fn new(name: String, disk: Box<dyn Disk>, writable: bool) -> Self {
        let mut serial = [0; ID_SIZE];
        read_bytes(name.as_bytes(), 0, &mut serial);
        Self { name, backend: Arc::new(Backend { disk, writable, serial }), worker: None }
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u16 {
        device_type::BLOCK
    }

    fn pci_class(&self) -> u32 {
        0x01_8000
    }

    fn features(&self) -> u64 {
        let bits: &[u32] = match self.backend.writable {
            true => &[bits::VIRTIO_BLK_F_DISCARD, bits::VIRTIO_BLK_F_WRITE_ZEROES],
            false => &[bits::VIRTIO_BLK_F_RO],
        };
        let always = 1 << bits::VIRTIO_BLK_F_FLUSH | 1 << bits::VIRTIO_BLK_F_SEG_MAX;
        bits.iter().fold(always, |all, bit| all | 1 << bit)
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        // capacity, seg_max
        put(0, &(self.backend.disk.size() / SECTOR).to_le_bytes());
        put(12, &SEGMENTS.to_le_bytes());
        // max_discard_sectors, max_discard_seg, discard_sector_alignment
        put(36, [RANGE, 1, 1].map(u32::to_le_bytes).as_flattened());
        // max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap
        put(48, [RANGE, 1, 1].map(u32::to_le_bytes).as_flattened());
        read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { ram, queues, interrupt, .. } = activation;
        let Some(mut queue) = queues.into_iter().next().flatten() else { return Ok(()) };
        let backend = Arc::clone(&self.backend);
        let name = self.name.clone();
        let work = move |(): &mut (), stop: &_| {
            while wait(stop, [Some(queue.kick.as_fd())]).is_some() {
                queue.take_kick();
                let memory = ram.memory();
                let serve = |chain: Chain<'_>| Some(backend.serve(&name, memory, chain));
                if let Err(e) = queue.process(memory, &interrupt, serve) {
                    guest_warn!("{name}: {e}");
                }
            }
        };
        self.worker = Some(Worker::spawn(&self.name, (), work)?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.take().map(Worker::stop);
    }
}

/// Why a request fails.
enum Failure {
    Io(io::Error),
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl Backend {
    /// Serves one request; returns the number of bytes written to its chain.
    fn serve(&self, name: &str, memory: &GuestMemoryMmap, chain: Chain<'_>) -> u32 {
        let served = self.try_serve(name, memory, chain);
        served.unwrap_or_else(|e| {
            guest_warn!("{name}: a request that makes no sense: {e}");
            0
        })
    }

    fn try_serve(&self, name: &str, memory: &GuestMemoryMmap, chain: Chain<'_>) -> io::Result<u32> {
        let mut reader = chain.clone().reader(memory).map_err(io::Error::other)?;
        let mut data = chain.writer(memory).map_err(io::Error::other)?;
        // The last writable byte is the status.
        let last = data.available_bytes().checked_sub(1);
        let last = last.ok_or_else(|| io::Error::other("no room for a status"))?;
        let mut status_at = data.split_at(last).map_err(io::Error::other)?;
        let status = match self.request(&mut reader, &mut data) {
            Ok(()) => OK,
            Err(Failure::Unsupported) => UNSUPPORTED,
            Err(Failure::Io(e)) => {
                guest_warn!("{name}: {e}");
                IO_ERROR
            }
        };
        status_at.write_all(&[status])?;
        Ok(u32::try_from(data.bytes_written() + 1).unwrap_or(u32::MAX))
    }

    fn request(&self, reader: &mut Reader<'_>, data: &mut Writer<'_>) -> Result<(), Failure> {
        let mut header = [0; HEADER];
        reader.read_exact(&mut header)?;
        let (words, sector) = header.split_at(8);
        let kind = words.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let sector = sector.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        match kind {
            bits::VIRTIO_BLK_T_IN => {
                let offset = self.range(sector, len(data.available_bytes()))?;
                Ok(self.read(offset, data)?)
            }
            bits::VIRTIO_BLK_T_OUT => {
                let offset = self.range(sector, len(reader.available_bytes()))?;
                Ok(self.write(offset, reader)?)
            }
            bits::VIRTIO_BLK_T_FLUSH => Ok(self.disk.flush()?),
            bits::VIRTIO_BLK_T_DISCARD => match self.described(reader)? {
                (offset, len, 0) => Ok(self.disk.discard(offset, len)?),
                _ => Err(Failure::Unsupported),
            },
            bits::VIRTIO_BLK_T_WRITE_ZEROES => match self.described(reader)? {
                (offset, len, flags @ (0 | UNMAP)) => {
                    Ok(self.disk.write_zeroes(offset, len, flags == UNMAP)?)
                }
                _ => Err(Failure::Unsupported),
            },
            bits::VIRTIO_BLK_T_GET_ID => {
                let len = data.available_bytes().min(ID_SIZE);
                Ok(data.write_all(&self.serial[..len])?)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// The offset of a request that is completely on the disk.
    fn range(&self, sector: u64, len: u64) -> io::Result<u64> {
        let offset = sector.checked_mul(SECTOR);
        let end = offset.and_then(|offset| offset.checked_add(len));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.disk.size() => Ok(offset),
            _ => Err(io::Error::other(format!("{len} bytes at sector {sector}: behind the end"))),
        }
    }

    /// The one range that a request to discard or zero describes: offset, length, flags. More than one
    /// are more than the configuration says.
    fn described(&self, reader: &mut Reader<'_>) -> io::Result<(u64, u64, u32)> {
        self.check_writable()?;
        if reader.available_bytes() != DESCRIPTION {
            return Err(io::Error::other("a request for other than one range"));
        }
        let mut description = [0; DESCRIPTION];
        reader.read_exact(&mut description)?;
        let [a, b, count, flags] = words(&description);
        let sector = u64::from(a) | u64::from(b) << 32;
        if count > RANGE {
            return Err(io::Error::other(format!("a range of {count} sectors: {RANGE} at most")));
        }
        let len = u64::from(count) * SECTOR;
        Ok((self.range(sector, len)?, len, flags))
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(io::Error::other("write to a read-only disk")),
        }
    }

    fn read(&self, mut offset: u64, data: &mut Writer<'_>) -> io::Result<()> {
        let mut buffer = vec![0; data.available_bytes().min(BUFFER)];
        while data.available_bytes() > 0 {
            let len = data.available_bytes().min(BUFFER);
            self.disk.read_at(&mut buffer[..len], offset)?;
            data.write_all(&buffer[..len])?;
            // CAST: at most `BUFFER`.
            offset += len as u64;
        }
        Ok(())
    }

    fn write(&self, mut offset: u64, data: &mut Reader<'_>) -> io::Result<()> {
        self.check_writable()?;
        let mut buffer = vec![0; data.available_bytes().min(BUFFER)];
        while data.available_bytes() > 0 {
            let len = data.available_bytes().min(BUFFER);
            data.read_exact(&mut buffer[..len])?;
            self.disk.write_at(&buffer[..len], offset)?;
            // CAST: at most `BUFFER`.
            offset += len as u64;
        }
        Ok(())
    }
}

/// A length as disks have it.
fn len(bytes: usize) -> u64 {
    // CAST: widening on the supported machines.
    bytes as u64
}

fn words(bytes: &[u8; DESCRIPTION]) -> [u32; DESCRIPTION / 4] {
    let mut words = [0; DESCRIPTION / 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::hostile::{rings, Rings, ANSWER};
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::fs;
    use tempfile::NamedTempFile;
    use vm_memory::Bytes;

    const CONTENTS: [u8; 4096] = [7; 4096];

    /// Serves rings on a disk; answers its file, and how many requests were answered.
    fn serve(rings: &Rings, writable: bool) -> (Vec<u8>, usize) {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), CONTENTS).unwrap();
        let disk = crate::disk::open(file.path(), true).unwrap();
        let backend = Backend { disk, writable, serial: [0; ID_SIZE] };
        let answered = Cell::new(0);
        rings.serve(|memory, chain| {
            let written = backend.serve("disk", memory, chain);
            answered.set(answered.get() + usize::from(written > 0));
            Some(written)
        });
        (fs::read(file.path()).unwrap(), answered.get())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_rings_are_survived(rings in rings()) {
            let (contents, _) = serve(&rings, true);
            prop_assert_eq!(contents.len(), CONTENTS.len(), "the disk has another size");
            let (contents, _) = serve(&rings, false);
            prop_assert_eq!(contents, CONTENTS, "a read-only disk was written");
        }
    }

    /// Asks for a range to be discarded or zeroed; answers the status and what is on the disk then.
    fn ask(writable: bool, kind: u32, ranges: &[(u64, u32, u32)]) -> (u8, Vec<u8>) {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), CONTENTS).unwrap();
        let disk = crate::disk::open(file.path(), true).unwrap();
        let backend = Backend { disk, writable, serial: [0; ID_SIZE] };
        let mut request = [&kind.to_le_bytes()[..], &[0; 12]].concat();
        for (sector, count, flags) in ranges {
            request.extend(sector.to_le_bytes());
            request.extend(count.to_le_bytes());
            request.extend(flags.to_le_bytes());
        }
        let mut status = [0xff];
        Rings::request(&request, 1).serve(|memory, chain| {
            let written = backend.serve("disk", memory, chain);
            memory.read_slice(&mut status, ANSWER).unwrap();
            Some(written)
        });
        (status[0], fs::read(file.path()).unwrap())
    }

    #[test]
    fn ranges_are_discarded_and_zeroed() {
        let (discard, zero) = (bits::VIRTIO_BLK_T_DISCARD, bits::VIRTIO_BLK_T_WRITE_ZEROES);
        let mut holed = CONTENTS.to_vec();
        holed[512..1536].fill(0);
        for (kind, flags) in [(zero, 0), (zero, UNMAP), (discard, 0)] {
            assert_eq!(ask(true, kind, &[(1, 2, flags)]), (OK, holed.clone()), "{kind} {flags}");
            assert_eq!(ask(false, kind, &[(1, 2, flags)]), (IO_ERROR, CONTENTS.to_vec()));
        }
        for (kind, range, status) in [
            (discard, &[(1, 2, UNMAP)][..], UNSUPPORTED),
            (zero, &[(1, 2, 2)], UNSUPPORTED),
            (zero, &[(7, 2, 0)], IO_ERROR),
            (zero, &[(u64::MAX, 2, 0)], IO_ERROR),
            (zero, &[(0, RANGE + 1, 0)], IO_ERROR),
            (discard, &[(0, u32::MAX, 0)], IO_ERROR),
            (zero, &[(0, 1, 0), (1, 1, 0)], IO_ERROR),
            (zero, &[], IO_ERROR),
            (zero, &[(8, 0, 0)], OK),
        ] {
            assert_eq!(ask(true, kind, range), (status, CONTENTS.to_vec()), "{kind} {range:?}");
        }
    }

    #[test]
    fn the_configuration_says_what_there_is() {
        let device = |writable| {
            let file = NamedTempFile::new().unwrap();
            fs::write(file.path(), CONTENTS).unwrap();
            let disk = crate::disk::open(file.path(), writable).unwrap();
            Block::new("x".into(), disk, writable)
        };
        let ranges = 1 << bits::VIRTIO_BLK_F_DISCARD | 1 << bits::VIRTIO_BLK_F_WRITE_ZEROES;
        let read_only = 1 << bits::VIRTIO_BLK_F_RO;
        assert_eq!(device(true).features() & (ranges | read_only), ranges);
        assert_eq!(device(false).features() & (ranges | read_only), read_only);
        let mut config = [0xff; 61];
        device(true).read_config(0, &mut config);
        let word = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(12)], [8, 0, SEGMENTS]);
        assert_eq!([36, 40, 44, 48, 52].map(word), [RANGE, 1, 1, RANGE, 1]);
        assert_eq!((config[56], config[60]), (1, 0xff), "nothing behind the end is touched");
    }

    /// The rings are not so strange that nothing is ever served.
    #[test]
    fn some_rings_make_sense() {
        use proptest::strategy::ValueTree;
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let answered: usize =
            (0..64).map(|_| serve(&rings().new_tree(&mut runner).unwrap().current(), true).1).sum();
        assert!(answered > 10, "{answered} requests were answered");
    }
}
