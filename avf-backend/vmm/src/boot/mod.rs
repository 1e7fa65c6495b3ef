// SPDX-License-Identifier: Apache-2.0
//! Loading: what is a bootable image, and where its parts go.

mod image;
mod lz4;

pub use image::{ImageError, ImageHeader};

use crate::config::Payload;
use crate::files;
use crate::layout::{Layout, LayoutError, Placement, PVMFW};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use thiserror::Error;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap};

/// Why a payload cannot be loaded.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file cannot be opened or read.
    #[error("{what} {}: {source}", files::describe(path))]
    File {
        /// Which.
        what: &'static str,
        /// Its name on the command line.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The kernel is not one.
    #[error("kernel {}: {source}", files::describe(path))]
    Image {
        /// Its name on the command line.
        path: PathBuf,
        /// Cause.
        source: ImageError,
    },
    /// Too little memory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The place is not in guest memory.
    #[error("{what}: {source}")]
    Memory {
        /// Which.
        what: &'static str,
        /// Cause.
        source: vm_memory::GuestMemoryError,
    },
}

/// Loads the payload into `memory`.
pub fn load(
    payload: &Payload,
    layout: &Layout,
    memory: &GuestMemoryMmap,
) -> Result<Placement, BootError> {
    match payload {
        Payload::Kernel { kernel, initrd } => {
            let mut image = Source::open("kernel", kernel)?;
            image.unpack(layout.payload.size)?;
            let mut ramdisk =
                initrd.as_deref().map(|path| Source::open("initrd", path)).transpose()?;
            let header = ImageHeader::read(&mut image.file, image.size)
                .map_err(|source| BootError::Image { path: kernel.clone(), source })?;
            let ramdisk_size = ramdisk.as_ref().map(|r| r.size);
            let ImageHeader { text_offset, occupied } = header;
            let placement = layout.place_kernel(text_offset, image.size, occupied, ramdisk_size)?;
            image.copy(memory, placement.payload.start)?;
            if let (Some(source), Some(region)) = (&mut ramdisk, placement.initrd) {
                source.copy(memory, region.start)?;
            }
            Ok(placement)
        }
        Payload::Bios(path) => {
            let mut bios = Source::open("bios", path)?;
            let placement = layout.place_bios(bios.size)?;
            bios.copy(memory, placement.payload.start)?;
            Ok(placement)
        }
    }
}

/// Loads firmware from a file into its window, where it is entered at its start.
pub fn load_firmware(path: &Path, memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let mut firmware = Source::open("firmware", path)?;
    if firmware.size > PVMFW.size {
        let why = format!("{} bytes, its window has {}", firmware.size, PVMFW.size);
        let source = io::Error::new(io::ErrorKind::InvalidInput, why);
        return Err(BootError::File { what: "firmware", path: path.to_owned(), source });
    }
    firmware.copy(memory, PVMFW.start)
}

/// A file to load.
struct Source<'a> {
    what: &'static str,
    path: &'a Path,
    file: File,
    size: u64,
}

impl<'a> Source<'a> {
    fn open(what: &'static str, path: &'a Path) -> Result<Self, BootError> {
        let open = || {
            let file = files::open_read(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            if metadata.len() == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "empty"));
            }
            Ok((file, metadata.len()))
        };
        let (file, size) =
            open().map_err(|source| BootError::File { what, path: path.to_owned(), source })?;
        Ok(Self { what, path, file, size })
    }

    /// Unpacks it if it is packed, to at most `limit` bytes.
    fn unpack(&mut self, limit: u64) -> Result<(), BootError> {
        let unpacked = match lz4::is_packed(&mut self.file) {
            Ok(true) => lz4::unpack(&mut self.file, limit),
            Ok(false) => return Ok(()),
            Err(e) => Err(e),
        };
        let (what, path) = (self.what, self.path.to_owned());
        (self.file, self.size) =
            unpacked.map_err(|source| BootError::File { what, path, source })?;
        Ok(())
    }

    fn copy(&mut self, memory: &GuestMemoryMmap, address: u64) -> Result<(), BootError> {
        let what = self.what;
        self.file.seek(SeekFrom::Start(0)).map_err(|source| BootError::File {
            what,
            path: self.path.to_owned(),
            source,
        })?;
        let memory_error = |source| BootError::Memory { what, source };
        // A file that is larger than the address space was refused by the layout.
        let size = usize::try_from(self.size)
            .map_err(|_| memory_error(vm_memory::GuestMemoryError::InvalidBackendAddress))?;
        memory
            .read_exact_volatile_from(GuestAddress(address), &mut self.file, size)
            .map_err(memory_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;
    use crate::memory::{GuestRam, Policy};
    use std::io::Write;
    use tempfile::NamedTempFile;
    use vm_memory::Bytes;

    fn file(contents: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    fn ram() -> (Layout, GuestRam) {
        let layout = Layout::new(16 * MIB, None, 1, false, false).unwrap();
        let ram = GuestRam::new(&layout, Policy::default()).unwrap();
        (layout, ram)
    }

    #[test]
    fn kernel_and_initrd_arrive() {
        let mut contents = image::tests::header(0, 3 * MIB);
        contents.extend([0xaa; 100]);
        let (kernel, initrd) = (file(&contents), file(b"ramdisk"));
        let (layout, ram) = ram();
        let payload =
            Payload::Kernel { kernel: kernel.path().into(), initrd: Some(initrd.path().into()) };
        let placed = load(&payload, &layout, ram.memory()).unwrap();
        let mut start = [0; 164];
        ram.memory().read_slice(&mut start, GuestAddress(0x8000_0000)).unwrap();
        assert_eq!(&start[..], contents);
        let region = placed.initrd.unwrap();
        assert_eq!(placed.payload.size, 164, "firmware finds the signature at the file's end");
        assert_eq!(region.start, 0x8040_0000, "behind what the kernel occupies, not its file");
        let mut text = [0; 7];
        ram.memory().read_slice(&mut text, GuestAddress(region.start)).unwrap();
        assert_eq!(&text, b"ramdisk");
    }

    #[test]
    fn firmware_goes_into_its_window() {
        let layout = Layout::new(16 * MIB, None, 1, false, true).unwrap();
        let ram = GuestRam::new(&layout, Policy::default()).unwrap();
        load_firmware(file(b"firmware").path(), ram.memory()).unwrap();
        let mut start = [0; 8];
        ram.memory().read_slice(&mut start, GuestAddress(0x7fc0_0000)).unwrap();
        assert_eq!(&start, b"firmware");
        let large = file(b"");
        large.as_file().set_len(4 * MIB + 1).unwrap();
        let error = load_firmware(large.path(), ram.memory()).unwrap_err().to_string();
        assert!(error.contains("4194305 bytes, its window has 4194304"), "{error}");
    }

    #[test]
    fn a_packed_kernel_is_unpacked() {
        let mut contents = image::tests::header(0, 3 * MIB);
        contents.extend([0xaa; 100]);
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(&contents).unwrap();
        let kernel = file(&encoder.finish().unwrap());
        let (layout, ram) = ram();
        let payload = Payload::Kernel { kernel: kernel.path().into(), initrd: None };
        assert_eq!(load(&payload, &layout, ram.memory()).unwrap().payload.size, 164, "unpacked");
        let mut start = [0; 164];
        ram.memory().read_slice(&mut start, GuestAddress(0x8000_0000)).unwrap();
        assert_eq!(&start[..], contents);
    }

    #[test]
    fn errors_name_the_file() {
        let (layout, ram) = ram();
        let empty = file(b"");
        let text = file(b"just some text, longer than an image header is: 64 bytes and then some");
        let kernel = |path: &Path| Payload::Kernel { kernel: path.into(), initrd: None };
        for (payload, word) in [
            (kernel(Path::new("/nonexistent/Image")), "/nonexistent/Image"),
            (kernel(Path::new("/dev/zero")), "regular"),
            (kernel(empty.path()), "empty"),
            (kernel(text.path()), "arm64"),
        ] {
            let error = load(&payload, &layout, ram.memory()).unwrap_err().to_string();
            assert!(error.starts_with("kernel ") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_flat_binary_is_not_looked_into() {
        let layout = Layout::new(16 * MIB, None, 1, true, false).unwrap();
        let ram = GuestRam::new(&layout, Policy::default()).unwrap();
        let bios = file(&[1, 2, 3]);
        let placed = load(&Payload::Bios(bios.path().into()), &layout, ram.memory()).unwrap();
        assert_eq!((placed.payload.start, placed.payload.size), (0x8020_0000, 3));
    }
}
