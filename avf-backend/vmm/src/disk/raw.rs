// SPDX-License-Identifier: Apache-2.0
//! A file, or block device, that is the disk.

use super::Disk;
use nix::errno::Errno;
use nix::fcntl::{fallocate, FallocateFlags};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Zeros that are written at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file that is the disk.
#[derive(Debug)]
pub struct Raw {
    file: File,
    size: u64,
}

impl Raw {
    /// The disk with the contents of `file`.
    pub fn new(mut file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let size = match metadata.file_type() {
            kind if kind.is_file() => metadata.len(),
            kind if kind.is_block_device() => {
                // Who handed it over shares the position: it is put back.
                let position = file.stream_position()?;
                let end = file.seek(SeekFrom::End(0))?;
                file.seek(SeekFrom::Start(position))?;
                end
            }
            _ => {
                let why = "neither a file nor a block device";
                return Err(io::Error::new(ErrorKind::InvalidInput, why));
            }
        };
        Ok(Self { file, size })
    }

    /// Has the file system change a range; `false` where it cannot.
    fn change(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        let number = |value| libc::off_t::try_from(value).map_err(io::Error::other);
        let mode = mode | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(self.file.as_raw_fd(), mode, number(offset)?, number(len)?) {
            Ok(()) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
            Err(e) => Err(e.into()),
        }
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

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if len == 0
            || unmap && self.change(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len)?
            || self.change(FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len)?
        {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let count = usize::try_from(len - done).unwrap_or(usize::MAX).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..count], offset + done)?;
            // CAST: widening on the supported machines.
            done += count as u64;
        }
        Ok(())
    }

    /// A hint: where nothing can be given up, nothing needs to be done.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        match len {
            0 => Ok(()),
            _ => self.change(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len).map(drop),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    const SIZE: usize = 1 << 20;

    fn disk(dir: &Path) -> Raw {
        let file = tempfile::tempfile_in(dir).unwrap();
        file.write_all_at(&[7; SIZE], 0).unwrap();
        Raw::new(file).unwrap()
    }

    fn contents(disk: &Raw) -> Vec<u8> {
        let mut all = vec![0; SIZE];
        disk.read_at(&mut all, 0).unwrap();
        all
    }

    /// On a file system that can do it itself, and on one that cannot in every case.
    #[test]
    fn zeros_are_written_where_they_should_be() {
        for dir in ["/tmp", "/dev/shm"] {
            for unmap in [false, true] {
                let disk = disk(Path::new(dir));
                disk.write_zeroes(5000, 600_000, unmap).unwrap();
                let mut expected = vec![7; SIZE];
                expected[5000..605_000].fill(0);
                assert!(contents(&disk) == expected, "{dir} {unmap}");
                assert_eq!(disk.file.metadata().unwrap().len(), 1 << 20);
            }
        }
    }

    #[test]
    fn what_is_discarded_takes_no_room() {
        let disk = disk(Path::new("/dev/shm"));
        let blocks = || disk.file.metadata().unwrap().blocks();
        let before = blocks();
        disk.discard(0, 1 << 19).unwrap();
        assert_eq!(blocks(), before - (1 << 19) / 512);
        assert_eq!(contents(&disk)[SIZE / 2..], vec![7; SIZE / 2]);
        disk.discard(0, 0).unwrap();
    }
}
