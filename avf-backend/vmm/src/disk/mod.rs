// SPDX-License-Identifier: Apache-2.0
//! Disks: raw images and block devices, Android's sparse images, and crosvm's composite images, which
//! virtmgr makes of partitions.

pub mod composite;
mod raw;
mod sparse;

use crate::files;
use composite::Composite;
use raw::Raw;
use sparse::Sparse;
use std::fs::File;
use std::io::{self, ErrorKind};
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

    /// Makes `len` bytes at `offset` zeros, whose storage may be given up if `unmap` is set; the range
    /// is on the disk.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;

    /// The contents of `len` bytes at `offset` are of no use any more; the range is on the disk.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Returns when what was written is safe.
    fn flush(&self) -> io::Result<()>;
}

/// Leading bytes of formats that are not understood. What a guest would see is not what the user
/// means.
const UNKNOWN_FORMATS: &[(&[u8], &str, &str)] = &[
    (b"QFI\xfb", "a qcow2 image", "qemu-img convert -O raw"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "zstd -d"),
    (b"\x1f\x8b\x08", "packed with gzip", "gzip -d"),
];
/// Bytes of the longest of them.
const LONGEST_MAGIC: usize = 4;

/// Opens a disk, whatever its format.
pub fn open(path: &Path, writable: bool) -> io::Result<Box<dyn Disk>> {
    let file = open_file(path, writable)?;
    match Composite::detect(&file)? {
        true => Ok(Box::new(Composite::open(&file)?)),
        false => open_image(file, writable),
    }
}

/// Bytes of the disk that the image in `file` makes, as a component of a composite disk.
pub fn image_size(file: File) -> io::Result<u64> {
    Ok(open_image(file, false)?.size())
}

/// The contents of a file that is not made of other files.
fn open_image(file: File, writable: bool) -> io::Result<Box<dyn Disk>> {
    if Sparse::detect(&file)? {
        return match writable {
            false => Ok(Box::new(Sparse::open(file)?)),
            true => Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "an Android sparse image cannot be written: make a raw image of it (simg2img)",
            )),
        };
    }
    let mut start = [0; LONGEST_MAGIC];
    if starts_with(&file, &mut start)? {
        if let Some((_, what, remedy)) =
            UNKNOWN_FORMATS.iter().find(|(magic, ..)| start.starts_with(magic))
        {
            let why = format!("{what}: make a raw image of it ({remedy})");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
    }
    Ok(Box::new(Raw::new(file)?))
}

/// Reads the first bytes of a file; answers whether it has so many.
fn starts_with(file: &File, start: &mut [u8]) -> io::Result<bool> {
    match file.read_exact_at(start, 0) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn open_file(path: &Path, writable: bool) -> io::Result<File> {
    if writable {
        files::open_read_write(path)
    } else {
        files::open_read(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::NamedTempFile;

    #[test]
    fn what_is_no_disk_is_named() {
        for (contents, word) in
            [(&b"QFI\xfb\0\0\0\x03"[..], "qemu-img"), (b"\x28\xb5\x2f\xfd....", "zstd")]
        {
            let file = NamedTempFile::new().unwrap();
            fs::write(file.path(), contents).unwrap();
            let error = open(file.path(), true).map(drop).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let error = open(Path::new("/dev/null"), true).map(drop).unwrap_err().to_string();
        assert_eq!(error, "neither a file nor a block device");
        assert!(open(Path::new("/tmp"), false).is_err());
    }

    #[test]
    fn an_empty_file_is_an_empty_disk() {
        let file = NamedTempFile::new().unwrap();
        assert_eq!(open(file.path(), false).unwrap().size(), 0);
    }
}
