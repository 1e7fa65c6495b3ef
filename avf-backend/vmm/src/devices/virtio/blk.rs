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
        let read_only = if self.backend.writable { 0 } else { 1 << bits::VIRTIO_BLK_F_RO };
        read_only | 1 << bits::VIRTIO_BLK_F_FLUSH | 1 << bits::VIRTIO_BLK_F_SEG_MAX
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // capacity in sectors, size_max, seg_max
        let mut config = [0; 16];
        let sectors = self.backend.disk.size() / SECTOR;
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        config[12..].copy_from_slice(&SEGMENTS.to_le_bytes());
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
                let offset = self.range(sector, data.available_bytes())?;
                Ok(self.read(offset, data)?)
            }
            bits::VIRTIO_BLK_T_OUT => {
                let offset = self.range(sector, reader.available_bytes())?;
                Ok(self.write(offset, reader)?)
            }
            bits::VIRTIO_BLK_T_FLUSH => Ok(self.disk.flush()?),
            bits::VIRTIO_BLK_T_GET_ID => {
                let len = data.available_bytes().min(ID_SIZE);
                Ok(data.write_all(&self.serial[..len])?)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// The offset of a request that is completely on the disk.
    fn range(&self, sector: u64, len: usize) -> io::Result<u64> {
        let offset = sector.checked_mul(SECTOR);
        let end = offset.and_then(|o| o.checked_add(u64::try_from(len).ok()?));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.disk.size() => Ok(offset),
            _ => Err(io::Error::other(format!("{len} bytes at sector {sector}: behind the end"))),
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
        if !self.writable {
            return Err(io::Error::other("write to a read-only disk"));
        }
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

#[cfg(test)]
mod tests {
    use super::super::hostile::{rings, Rings};
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::fs;
    use tempfile::NamedTempFile;

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
