// SPDX-License-Identifier: Apache-2.0
//! Kernels that are packed with LZ4, in the frame format or in the older one that kernel builds
//! make (`Image.lz4`).

use lz4_flex::frame::FrameDecoder;
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

/// First bytes of both formats.
const MAGIC: [[u8; 4]; 2] = [[0x04, 0x22, 0x4d, 0x18], [0x02, 0x21, 0x4c, 0x18]];

/// Whether `file` is packed.
pub fn is_packed(file: &mut File) -> io::Result<bool> {
    let mut start = [0; 4];
    file.seek(SeekFrom::Start(0))?;
    match file.read_exact(&mut start) {
        Ok(()) => Ok(MAGIC.contains(&start)),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Unpacks `file`, to at most `limit` bytes, into a file without a name; answers it and its size.
pub fn unpack(file: &mut File, limit: u64) -> io::Result<(File, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut unpacked = File::from(memfd_create(c"kernel", MemFdCreateFlag::MFD_CLOEXEC)?);
    let mut decoder = FrameDecoder::new(file).take(limit.saturating_add(1));
    let size = io::copy(&mut decoder, &mut unpacked)?;
    if size > limit {
        let message = format!("unpacked it has more than the {limit} bytes of memory");
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    Ok((unpacked, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &[u8] = b"abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd";

    fn file(contents: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    fn frame() -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(TEXT).unwrap();
        encoder.finish().unwrap()
    }

    /// The older format: magic, then blocks, each after its size.
    fn legacy() -> Vec<u8> {
        let block = lz4_flex::block::compress(TEXT);
        let size = u32::try_from(block.len()).unwrap().to_le_bytes();
        [&MAGIC[1][..], &size, &block].concat()
    }

    #[test]
    fn both_formats_are_unpacked() {
        for packed in [frame(), legacy()] {
            let mut packed = file(&packed);
            assert!(is_packed(&mut packed).unwrap());
            let (mut unpacked, size) = unpack(&mut packed, 60).unwrap();
            assert_eq!(size, 60);
            let mut text = Vec::new();
            unpacked.seek(SeekFrom::Start(0)).unwrap();
            unpacked.read_to_end(&mut text).unwrap();
            assert_eq!(text, TEXT);
        }
        assert!(!is_packed(&mut file(TEXT)).unwrap());
        assert!(!is_packed(&mut file(b"a")).unwrap());
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let error = unpack(&mut file(&frame()), 59).unwrap_err();
        assert!(error.to_string().contains("59 bytes"), "{error}");
        let mut damaged = frame();
        damaged.truncate(20);
        assert!(unpack(&mut file(&damaged), 60).is_err());
    }
}
