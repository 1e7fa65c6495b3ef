// SPDX-License-Identifier: Apache-2.0
//! The header of an arm64 Linux Image (Documentation/arch/arm64/booting.rst, "Call the kernel
//! image").

use std::io::{self, Read, Seek, SeekFrom};
use thiserror::Error;

/// Bytes of the header.
const HEADER_SIZE: usize = 64;
const TEXT_OFFSET: usize = 8;
const IMAGE_SIZE: usize = 16;
const FLAGS: usize = 24;
const MAGIC: usize = 56;
/// "ARM\x64".
const MAGIC_VALUE: &[u8] = b"ARM\x64";
/// Flag: the kernel is big-endian.
const FLAG_BIG_ENDIAN: u64 = 1;
/// Where kernels before 3.17 are linked; those leave `image_size` 0.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
/// Leading bytes of formats that are mistaken for Images.
const COMPRESSED: &[(&[u8], &str)] = &[
    (&[0x1f, 0x8b], "gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, 0x37, 0x7a, 0x58], "xz"),
    (&[0x7f, b'E', b'L', b'F'], "ELF"),
];

/// Why a file is not a usable Image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no Image.
    #[error("not an arm64 kernel Image: give the file arch/arm64/boot/Image of a kernel build")]
    NotAnImage,
    /// It is something that can be made one.
    #[error("not an arm64 kernel Image but {0}: unpack or convert it to a plain Image")]
    OtherFormat(&'static str),
    /// It is for the other byte order.
    #[error("a big-endian kernel, which GenieZone guests cannot run")]
    BigEndian,
}

/// What the loader needs to know of an Image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Bytes from a 2 MiB boundary to the start.
    pub text_offset: u64,
    /// Bytes that the kernel occupies once it runs, its BSS included. The file may be larger: what
    /// a signature adds is not counted.
    pub occupied: u64,
}

impl ImageHeader {
    /// Reads the header of a file of `size` bytes.
    pub fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Self, ImageError> {
        file.seek(SeekFrom::Start(0))?;
        let mut header = Vec::with_capacity(HEADER_SIZE);
        // CAST: widening of a small constant.
        file.take(HEADER_SIZE as u64).read_to_end(&mut header)?;
        Self::parse(&header, size)
    }

    fn parse(header: &[u8], size: u64) -> Result<Self, ImageError> {
        if header.get(MAGIC..MAGIC + MAGIC_VALUE.len()) != Some(MAGIC_VALUE) {
            let format = COMPRESSED.iter().find(|(magic, _)| header.starts_with(magic));
            return Err(format.map_or(ImageError::NotAnImage, |f| ImageError::OtherFormat(f.1)));
        }
        let word = |at| match header.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => Ok(u64::from_le_bytes(*bytes)),
            None => Err(ImageError::NotAnImage),
        };
        if word(FLAGS)? & FLAG_BIG_ENDIAN != 0 {
            return Err(ImageError::BigEndian);
        }
        match word(IMAGE_SIZE)? {
            0 => Ok(Self { text_offset: OLD_TEXT_OFFSET, occupied: size }),
            claimed => Ok(Self { text_offset: word(TEXT_OFFSET)?, occupied: claimed }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// A header that is accepted.
    pub fn header(text_offset: u64, image_size: u64) -> Vec<u8> {
        let mut header = vec![0; HEADER_SIZE];
        header[TEXT_OFFSET..][..8].copy_from_slice(&text_offset.to_le_bytes());
        header[IMAGE_SIZE..][..8].copy_from_slice(&image_size.to_le_bytes());
        header[MAGIC..][..4].copy_from_slice(MAGIC_VALUE);
        header
    }

    fn parse(bytes: &[u8]) -> Result<ImageHeader, ImageError> {
        ImageHeader::read(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn a_modern_image() {
        let expected = ImageHeader { text_offset: 0, occupied: 0x100_0000 };
        assert_eq!(parse(&header(0, 0x100_0000)).unwrap(), expected);
    }

    #[test]
    fn an_image_without_a_size_is_old() {
        let expected = ImageHeader { text_offset: 0x8_0000, occupied: 64 };
        assert_eq!(parse(&header(0x1234, 0)).unwrap(), expected);
    }

    #[test]
    fn other_formats_are_named() {
        for (magic, name) in COMPRESSED {
            let mut bytes = magic.to_vec();
            bytes.resize(100, 0);
            assert!(parse(&bytes).unwrap_err().to_string().contains(name));
        }
        assert!(matches!(parse(b"short"), Err(ImageError::NotAnImage)));
        assert!(matches!(parse(&[]), Err(ImageError::NotAnImage)));
    }

    #[test]
    fn the_byte_order_is_checked() {
        let mut big = header(0, 0x1000);
        big[FLAGS] = 1;
        assert!(matches!(parse(&big), Err(ImageError::BigEndian)));
    }

    #[test]
    fn a_signed_image_is_longer_than_its_header_says() {
        let mut signed = header(0, 64);
        signed.extend([0; 4096]);
        assert_eq!(parse(&signed).unwrap(), ImageHeader { text_offset: 0, occupied: 64 });
    }

    proptest! {
        #[test]
        fn garbage_is_no_image(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            if let Ok(header) = parse(&bytes) {
                prop_assert!(header.occupied != 0);
            }
        }
    }
}
