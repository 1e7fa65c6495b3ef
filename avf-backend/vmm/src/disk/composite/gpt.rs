// SPDX-License-Identifier: Apache-2.0
//! A GUID partition table (UEFI 2.10, 5.3) around files that become partitions, and the list that
//! makes them one composite disk.

use super::{Description, Part};
use crc32fast::hash as crc32;
use std::path::{Path, PathBuf};
use uuid::{uuid, Uuid};

const SECTOR: u64 = 512;
/// Partitions start at multiples of this, as crosvm's do: pages of the files stay pages.
const ALIGNMENT: u64 = 4096;
/// Sectors of a table: 128 entries of 128 bytes.
const TABLE_SECTORS: u64 = 32;
const ENTRY: usize = 128;
/// Most partitions of a disk.
pub const MAX_PARTITIONS: usize = 128;
/// Bytes before the first partition: protective MBR, header, table, alignment.
const START: u64 = 40 * SECTOR;
/// Bytes behind the last partition: table and header.
const END: u64 = (TABLE_SECTORS + 1) * SECTOR;
/// UTF-16 units of a partition's name.
const NAME_UNITS: usize = 36;
/// "Linux filesystem data".
const TYPE: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");

/// A file that becomes a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Name in the partition table; what is longer than 36 UTF-16 units is cut.
    pub label: String,
    /// The file as the VMM will find it.
    pub path: PathBuf,
    /// Bytes of the file; not 0.
    pub size: u64,
    /// Whether the guest may write.
    pub writable: bool,
    /// Unique id.
    pub guid: Uuid,
}

/// A disk in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionedDisk {
    /// Contents of the file before the partitions.
    pub start: Vec<u8>,
    /// Contents of the file behind them.
    pub end: Vec<u8>,
    parts: Vec<Part>,
    end_offset: u64,
}

impl PartitionedDisk {
    /// Lays out partitions in the given order; `None` if there are too many, or one is empty, or
    /// their sizes overflow.
    pub fn new(partitions: &[Partition], disk_guid: Uuid) -> Option<Self> {
        if partitions.len() > MAX_PARTITIONS || partitions.iter().any(|p| p.size == 0) {
            return None;
        }
        let mut table = vec![0; MAX_PARTITIONS * ENTRY];
        let mut parts = Vec::new();
        let mut offset = START;
        for (partition, entry) in partitions.iter().zip(table.chunks_mut(ENTRY)) {
            let end = offset.checked_add(partition.size)?.checked_next_multiple_of(ALIGNMENT)?;
            entry.copy_from_slice(&partition.entry(offset / SECTOR, end / SECTOR - 1));
            let (path, writable) = (partition.path.clone(), partition.writable);
            parts.push(Part { path, offset, writable, file_offset: 0 });
            offset = end;
        }
        let sectors = offset.checked_add(END)? / SECTOR;
        let header = |mine, other, table_at| Header {
            mine,
            other,
            table_at,
            last_usable: offset / SECTOR - 1,
            disk_guid,
            table_crc: crc32(&table),
        };
        let first = header(1, sectors - 1, 2).bytes();
        let last = header(sectors - 1, 1, offset / SECTOR).bytes();
        let mut start = [protective_mbr(sectors), first, table.clone()].concat();
        start.resize(usize::try_from(START).ok()?, 0);
        Some(Self { start, end: [table, last].concat(), parts, end_offset: offset })
    }

    /// The composite disk; the two files are those with the contents `start` and `end`.
    pub fn list(&self, start: &Path, end: &Path) -> Vec<u8> {
        let part = |path: &Path, offset| {
            let (path, writable, file_offset) = (path.to_owned(), false, 0);
            Part { path, offset, writable, file_offset }
        };
        let mut parts = vec![part(start, 0)];
        parts.extend(self.parts.iter().cloned());
        parts.push(part(end, self.end_offset));
        Description { version: 2, parts, length: self.end_offset + END }.write()
    }
}

impl Partition {
    fn entry(&self, first: u64, last: u64) -> Vec<u8> {
        let mut entry = Vec::with_capacity(ENTRY);
        entry.extend(TYPE.to_bytes_le());
        entry.extend(self.guid.to_bytes_le());
        entry.extend(first.to_le_bytes());
        entry.extend(last.to_le_bytes());
        entry.extend([0; 8]);
        entry.extend(self.label.encode_utf16().take(NAME_UNITS).flat_map(u16::to_le_bytes));
        entry.resize(ENTRY, 0);
        entry
    }
}

/// What the two headers say.
struct Header {
    mine: u64,
    other: u64,
    table_at: u64,
    last_usable: u64,
    disk_guid: Uuid,
    table_crc: u32,
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        const SIZE: u32 = 92;
        let fields = |crc: u32| {
            let mut header = b"EFI PART\0\0\x01\0".to_vec();
            header.extend(SIZE.to_le_bytes());
            header.extend(crc.to_le_bytes());
            header.extend([0; 4]);
            for number in [self.mine, self.other, START / SECTOR, self.last_usable] {
                header.extend(number.to_le_bytes());
            }
            header.extend(self.disk_guid.to_bytes_le());
            header.extend(self.table_at.to_le_bytes());
            // CAST: small constants.
            for number in [MAX_PARTITIONS as u32, ENTRY as u32, self.table_crc] {
                header.extend(number.to_le_bytes());
            }
            header
        };
        let mut header = fields(crc32(&fields(0)));
        // CAST: a small constant.
        header.resize(SECTOR as usize, 0);
        header
    }
}

/// Says to old programs that all of the disk is in use (UEFI 5.2.3).
fn protective_mbr(sectors: u64) -> Vec<u8> {
    // CAST: a small constant.
    let mut mbr = vec![0; SECTOR as usize];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    let entry = [[0, 0, 2, 0], [0xee, 0xff, 0xff, 0xff], 1_u32.to_le_bytes(), size.to_le_bytes()];
    mbr[446..462].copy_from_slice(entry.as_flattened());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use tempfile::NamedTempFile;

    fn file(contents: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    fn handed_over(file: &NamedTempFile) -> PathBuf {
        format!("/proc/self/fd/{}", file.as_file().as_raw_fd()).into()
    }

    fn partition(label: &str, path: &Path, size: u64) -> Partition {
        let (label, path) = (label.to_owned(), path.to_owned());
        Partition { label, path, size, writable: true, guid: Uuid::from_u128(size.into()) }
    }

    #[test]
    fn the_disk_reads_back_with_table_and_files() {
        let (a, b) = (file(&[0xaa; 5000]), file(&[0xbb; 4096]));
        let partitions =
            [partition("first", &handed_over(&a), 5000), partition("b", &handed_over(&b), 4096)];
        let made = PartitionedDisk::new(&partitions, Uuid::from_u128(7)).unwrap();
        let (start, end) = (file(&made.start), file(&made.end));
        let list = file(&made.list(&handed_over(&start), &handed_over(&end)));
        let disk = disk::open(list.path(), true).unwrap();
        assert_eq!(disk.size(), START + 8192 + 4096 + END);
        let mut all = vec![0; usize::try_from(disk.size()).unwrap()];
        disk.read_at(&mut all, 0).unwrap();
        let start = usize::try_from(START).unwrap();
        assert_eq!(all[start..][..5000], [0xaa; 5000]);
        assert_eq!(all[start + 5000..][..3192], [0; 3192]);
        assert_eq!(all[start + 8192..][..4096], [0xbb; 4096]);
        // Each header's sum covers itself, and the second one mirrors the first.
        for (at, sector) in [(512, 1), (all.len() - 512, disk.size() / 512 - 1)] {
            let mut header = all[at..][..92].to_vec();
            assert_eq!(&header[..8], b"EFI PART");
            assert_eq!(header[24..32], sector.to_le_bytes());
            let sum = u32::from_le_bytes(*header[16..].first_chunk().unwrap());
            header[16..20].fill(0);
            assert_eq!(sum, crc32(&header));
        }
        assert_eq!(&all[1024 + 56..][..10], b"f\0i\0r\0s\0t\0");
        assert!(disk.write_at(&[1], 0).is_err(), "the table is not the guest's to change");
        disk.write_at(&[1], START).unwrap();
    }

    #[test]
    fn what_cannot_be_a_disk_is_refused() {
        let path = Path::new("/x");
        assert!(PartitionedDisk::new(&[partition("a", path, 0)], Uuid::nil()).is_none());
        assert!(PartitionedDisk::new(&[partition("a", path, u64::MAX)], Uuid::nil()).is_none());
        let many = vec![partition("a", path, 1); MAX_PARTITIONS + 1];
        assert!(PartitionedDisk::new(&many, Uuid::nil()).is_none());
    }

    proptest! {
        #[test]
        fn partitions_do_not_overlap(sizes in proptest::collection::vec(1_u64..1 << 40, 0..8)) {
            let partitions: Vec<_> =
                sizes.iter().map(|&size| partition("p", Path::new("/x"), size)).collect();
            let made = PartitionedDisk::new(&partitions, Uuid::nil()).unwrap();
            let mut free = START;
            for (part, size) in made.parts.iter().zip(sizes) {
                prop_assert!(part.offset >= free && part.offset % ALIGNMENT == 0);
                free = part.offset + size;
            }
            prop_assert!(made.end_offset >= free);
            let list = made.list(Path::new("/s"), Path::new("/e"));
            let read = Description::parse(&list[super::super::MAGIC.len()..]).unwrap();
            prop_assert_eq!(read.parts.len(), made.parts.len() + 2);
        }
    }
}
