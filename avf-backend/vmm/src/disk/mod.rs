// SPDX-License-Identifier: Apache-2.0
//! Disks: raw images, and crosvm's composite images, which virtmgr makes of partitions.

pub mod composite;

use crate::files;
use composite::Composite;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Something with the contents of a disk.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads all of `data` at `offset`; the range is on the disk.
    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `data` at `offset`; the range is on the disk.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Returns when what was written is safe.
    fn flush(&self) -> io::Result<()>;
}

/// Opens a disk, whatever its format.
pub fn open(path: &Path, writable: bool) -> io::Result<Box<dyn Disk>> {
    let file = open_file(path, writable)?;
    match Composite::detect(&file)? {
        true => Ok(Box::new(Composite::open(&file)?)),
        false => Ok(Box::new(Raw::new(file)?)),
    }
}

fn open_file(path: &Path, writable: bool) -> io::Result<File> {
    if writable {
        files::open_read_write(path)
    } else {
        files::open_read(path)
    }
}

/// A file that is the disk.
#[derive(Debug)]
struct Raw {
    file: File,
    size: u64,
}

impl Raw {
    fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { size: metadata.len(), file })
    }
}

impl Disk for Raw {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
