// SPDX-License-Identifier: Apache-2.0
//! Android's sparse images (system/core/libsparse): a list of chunks, each of them blocks that are in
//! the file, that repeat four bytes, or that nobody cares about. They are read only.

use super::{starts_with, Disk};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 4] = 0xed26_ff3a_u32.to_le_bytes();
const MAJOR: u16 = 1;
/// Bytes of the two headers; a file may have longer ones.
const FILE_HEADER: usize = 28;
const CHUNK_HEADER: usize = 12;
/// Kinds of chunks.
const RAW: u16 = 0xcac1;
const FILL: u16 = 0xcac2;
const DONT_CARE: u16 = 0xcac3;
const CRC32: u16 = 0xcac4;
/// More chunks than real images have: a file of 4 GiB whose every second block is used.
const MOST_CHUNKS: u32 = 1 << 20;

/// A sparse image.
///
/// Invariant: chunks are sorted by offset, the first is at 0, and none is empty.
#[derive(Debug)]
pub struct Sparse {
    file: File,
    chunks: Vec<Chunk>,
    size: u64,
}

#[derive(Debug)]
struct Chunk {
    /// On the disk; it ends where the next one starts.
    offset: u64,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    /// In the file, from there on.
    At(u64),
    /// The same four bytes.
    Fill([u8; 4]),
}

impl Sparse {
    /// Whether `file` is a sparse image.
    pub fn detect(file: &File) -> io::Result<bool> {
        let mut start = [0; MAGIC.len()];
        Ok(starts_with(file, &mut start)? && start == MAGIC)
    }

    /// Opens the image in `file`.
    pub fn open(file: File) -> io::Result<Self> {
        let mut header = [0; FILE_HEADER];
        file.read_exact_at(&mut header, 0)?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if half(4) != MAJOR {
            return Err(invalid(&format!("version {} is not known", half(4))));
        }
        let (file_header, chunk_header) = (half(8), half(10));
        let [block, blocks, count] = [12, 16, 20].map(|at| word(&header, at));
        if usize::from(file_header) < FILE_HEADER || usize::from(chunk_header) < CHUNK_HEADER {
            return Err(invalid("its headers are too short"));
        }
        if block == 0 || block % 4 != 0 || count > MOST_CHUNKS {
            return Err(invalid("its header makes no sense"));
        }
        let length = file.metadata()?.len();
        let mut chunks = Vec::new();
        let (mut at, mut offset) = (u64::from(file_header), 0);
        for _ in 0..count {
            let mut header = [0; CHUNK_HEADER];
            file.read_exact_at(&mut header, at)?;
            let kind = u16::from_le_bytes([header[0], header[1]]);
            // Each at most 2^32 * 2^32 bytes.
            let size = u64::from(word(&header, 4)) * u64::from(block);
            let data = at + u64::from(chunk_header);
            at += u64::from(word(&header, 8));
            let stored = at.checked_sub(data).filter(|_| at <= length);
            let stored = stored.ok_or_else(|| invalid("a chunk is not in the file"))?;
            let contents = match kind {
                RAW if stored == size => Contents::At(data),
                FILL if stored == 4 => {
                    let mut fill = [0; 4];
                    file.read_exact_at(&mut fill, data)?;
                    Contents::Fill(fill)
                }
                DONT_CARE if stored == 0 => Contents::Fill([0; 4]),
                CRC32 => continue,
                _ => return Err(invalid(&format!("a chunk of kind {kind:#x} makes no sense"))),
            };
            if size != 0 {
                chunks.push(Chunk { offset, contents });
            }
            offset = offset.checked_add(size).ok_or_else(|| invalid("too large"))?;
        }
        match offset == u64::from(blocks) * u64::from(block) {
            true => Ok(Self { file, chunks, size: offset }),
            false => Err(invalid("its chunks are not its size")),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("Android sparse image: {what}"))
}

fn read_only() -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, "an Android sparse image is read-only")
}

impl Disk for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut data: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let next = self.chunks.partition_point(|chunk| chunk.offset <= offset);
            let chunk = next.checked_sub(1).and_then(|index| self.chunks.get(index));
            let chunk = chunk.ok_or_else(|| invalid("nothing there"))?;
            let end = self.chunks.get(next).map_or(self.size, |chunk| chunk.offset);
            let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (now, rest) = data.split_at_mut(left.min(data.len()));
            if now.is_empty() {
                return Err(invalid("behind the end"));
            }
            let inside = offset - chunk.offset;
            match chunk.contents {
                Contents::At(start) => self.file.read_exact_at(now, start + inside)?,
                Contents::Fill(fill) => {
                    // CAST: less than 4.
                    let phase = (inside % 4) as usize;
                    let bytes = fill.iter().cycle().skip(phase);
                    now.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                }
            }
            // CAST: widening on the supported machines.
            offset += now.len() as u64;
            data = rest;
        }
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> io::Result<()> {
        Err(read_only())
    }

    fn discard(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const BLOCK: u32 = 4096;

    /// An image of chunks: kind, blocks, data.
    fn image(blocks: u32, chunks: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut image = MAGIC.to_vec();
        for half in [1_u16, 0, 28, 12] {
            image.extend(half.to_le_bytes());
        }
        for word in [BLOCK, blocks, u32::try_from(chunks.len()).unwrap(), 0] {
            image.extend(word.to_le_bytes());
        }
        for (kind, blocks, data) in chunks {
            image.extend(u32::from(*kind).to_le_bytes());
            image.extend(blocks.to_le_bytes());
            image.extend(u32::try_from(data.len() + CHUNK_HEADER).unwrap().to_le_bytes());
            image.extend(*data);
        }
        image
    }

    fn open(image: &[u8]) -> io::Result<Sparse> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        Sparse::open(file)
    }

    fn sample() -> Vec<u8> {
        let raw: Vec<u8> = (0..2 * BLOCK).map(|at| at.to_le_bytes()[1]).collect();
        image(
            5,
            &[
                (DONT_CARE, 1, b""),
                (RAW, 2, &raw),
                (CRC32, 0, b"1234"),
                (FILL, 2, b"\x01\x02\x03\x04"),
            ],
        )
    }

    #[test]
    fn chunks_make_a_disk() {
        let disk = open(&sample()).unwrap();
        let mut expected = vec![0; 4096];
        expected.extend((0..2 * BLOCK).map(|at| at.to_le_bytes()[1]));
        expected.extend([1, 2, 3, 4].repeat(2048));
        let mut all = vec![9; expected.len()];
        disk.read_at(&mut all, 0).unwrap();
        assert!(all == expected && disk.size() == 5 * 4096);
        // Over the ends of chunks, and at an odd place of the repeated bytes.
        let mut part = vec![9; 9001];
        disk.read_at(&mut part, 4001).unwrap();
        assert!(part == expected[4001..13002]);
        disk.read_at(&mut part[..2], 4 * 4096 + 3).unwrap();
        assert_eq!(part[..2], [4, 1]);
        assert!(disk.read_at(&mut part[..2], 5 * 4096 - 1).is_err());
        assert!(disk.write_at(b"x", 0).unwrap_err().to_string().contains("read-only"));
    }

    #[test]
    fn nonsense_is_refused() {
        for image in [
            image(2, &[(RAW, 1, &[0; 4096])]),
            image(1, &[(RAW, 1, &[0; 4095])]),
            image(1, &[(FILL, 1, b"123")]),
            image(1, &[(0xcac5, 1, b"")]),
            sample()[..4000].to_vec(),
            sample()[..30].to_vec(),
        ] {
            assert!(open(&image).is_err());
        }
        let mut version = sample();
        version[4] = 2;
        assert!(open(&version).unwrap_err().to_string().contains("version 2"));
    }

    proptest! {
        #[test]
        fn any_damage_is_survived(
            changes in proptest::collection::vec((0_usize..100, any::<u8>()), 1..8),
            offset in 0_u64..30_000,
        ) {
            let mut image = sample();
            for (at, byte) in changes {
                image[at] = byte;
            }
            if let Ok(disk) = open(&image) {
                let _ = disk.read_at(&mut [0; 5000], offset);
            }
        }
    }
}
