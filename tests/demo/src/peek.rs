// SPDX-License-Identifier: Apache-2.0
//! Access to a file's pages by user-mode loads and stores through a mapping. It runs in child
//! processes of the demo, because it may be what kills them: an access to a private page of a
//! protected VM is a bus error.

use crate::dump::PAGE;
use anyhow::{ensure, Context, Result};
use nix::sys::mman::{mmap, munmap, MapFlags, ProtFlags};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Marks a page in the output of [`Access::Dump`] that could be read; its bytes follow.
pub const READ: u8 = b'P';
/// Marks a page whose reading was a bus error.
pub const REFUSED: u8 = b'R';

/// What to do to a file's pages.
#[derive(clap::Subcommand)]
pub enum Access {
    /// Loads a byte
    Load {
        /// The file
        file: PathBuf,
        /// Offset in bytes
        offset: u64,
    },
    /// Stores a byte that it loaded before, changed
    Store {
        /// The file
        file: PathBuf,
        /// Offset in bytes
        offset: u64,
    },
    /// Writes pages to standard output and survives bus errors
    Dump {
        /// The file
        file: PathBuf,
        /// Ranges of whole pages: FIRST-END, in bytes
        #[arg(value_parser = range)]
        ranges: Vec<Range<u64>>,
    },
}

/// Does it.
pub fn run(access: Access) -> Result<()> {
    match access {
        Access::Load { file, offset } => {
            let byte = Mapping::new(&open(&file, false)?, false)?.load(offset)?;
            std::hint::black_box(byte);
            Ok(())
        }
        Access::Store { file, offset } => {
            Mapping::new(&open(&file, true)?, true)?.store(offset, !0)
        }
        Access::Dump { file, ranges } => {
            let mapping = Mapping::new(&open(&file, false)?, false)?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            survive_bus_errors(&mapping)?;
            for offset in ranges.into_iter().flat_map(|range| range.step_by(4096)) {
                match mapping.page(offset)? {
                    Some(page) => {
                        out.write_all(&[READ])?;
                        out.write_all(&offset.to_le_bytes())?;
                        out.write_all(&page)?;
                    }
                    None => {
                        out.write_all(&[REFUSED])?;
                        out.write_all(&offset.to_le_bytes())?;
                    }
                }
            }
            Ok(out.flush()?)
        }
    }
}

/// FIRST-END.
fn range(text: &str) -> Result<Range<u64>> {
    let (first, end) = text.split_once('-').context("a range is FIRST-END")?;
    let (first, end) = (first.parse()?, end.parse()?);
    ensure!(first <= end && first % PAGE == 0 && end % PAGE == 0, "a range has whole pages");
    Ok(first..end)
}

fn open(path: &PathBuf, write: bool) -> Result<File> {
    let file = OpenOptions::new().read(true).write(write).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// A shared mapping of a whole file.
struct Mapping {
    base: NonNull<c_void>,
    size: NonZeroUsize,
}

impl Mapping {
    #[allow(unsafe_code)]
    fn new(file: &File, write: bool) -> Result<Self> {
        let size = file.metadata()?.len().next_multiple_of(PAGE);
        let size = NonZeroUsize::new(usize::try_from(size)?).context("the file is empty")?;
        let access = if write { ProtFlags::PROT_WRITE } else { ProtFlags::empty() };
        let access = access | ProtFlags::PROT_READ;
        // SAFETY: The kernel chooses an address that nothing else uses.
        let base = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, 0) }
            .context("cannot map the file")?;
        Ok(Self { base, size })
    }

    /// The address of `size` bytes at `offset`.
    fn at(&self, offset: u64, size: usize) -> Result<*mut u8> {
        let start = usize::try_from(offset)?;
        let end = start.checked_add(size).context("the offset is too large")?;
        ensure!(end <= self.size.get(), "offset {offset:#x} lies behind the end of the file");
        Ok(self.base.as_ptr().cast::<u8>().wrapping_add(start))
    }

    #[allow(unsafe_code)]
    fn load(&self, offset: u64) -> Result<u8> {
        // SAFETY: The address is inside of the mapping, which others may write to: hence volatile.
        Ok(unsafe { self.at(offset, 1)?.read_volatile() })
    }

    #[allow(unsafe_code)]
    fn store(&self, offset: u64, mask: u8) -> Result<()> {
        let address = self.at(offset, 1)?;
        // SAFETY: As for `load`; the mapping is writable and nothing of this process is in it.
        unsafe { address.write_volatile(address.read_volatile() ^ mask) };
        Ok(())
    }

    /// A page's contents, or `None` if reading it was a bus error. Needs [`survive_bus_errors`].
    #[allow(unsafe_code)]
    fn page(&self, offset: u64) -> Result<Option<Vec<u8>>> {
        let mut page = vec![0; 4096];
        let address = self.at(offset, page.len())?.cast::<u64>();
        let before = BUS_ERRORS.load(Ordering::Relaxed);
        for (index, bytes) in page.chunks_exact_mut(8).enumerate() {
            // SAFETY: The page is inside of the mapping, and aligned. If the load is a bus error,
            // the handler puts a page of zeros there and the load is done again.
            let word = unsafe { address.wrapping_add(index).read_volatile() };
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ok((BUS_ERRORS.load(Ordering::Relaxed) == before).then_some(page))
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, and nothing points into it. If unmapping failed,
        // it would only stay until the process ends.
        let _ = unsafe { munmap(self.base, self.size.get()) };
    }
}

/// The mapping in which bus errors are survived: first and last address.
static WINDOW: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
/// Bus errors survived so far.
static BUS_ERRORS: AtomicUsize = AtomicUsize::new(0);

/// From now on, a bus error in the mapping replaces the page by zeros and is counted; one elsewhere
/// is as deadly as ever.
#[allow(unsafe_code)]
fn survive_bus_errors(mapping: &Mapping) -> Result<()> {
    let base = mapping.base.as_ptr().addr();
    WINDOW[0].store(base, Ordering::Relaxed);
    WINDOW[1].store(base + (mapping.size.get() - 1), Ordering::Relaxed);
    let handler = SigHandler::SigAction(on_bus_error);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: The handler calls async-signal-safe functions only and uses atomics only.
    unsafe { sigaction(Signal::SIGBUS, &action) }.context("cannot handle SIGBUS")?;
    Ok(())
}

#[allow(unsafe_code)]
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: The kernel passes a valid siginfo, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    let [first, last] = [&WINDOW[0], &WINDOW[1]].map(|edge| edge.load(Ordering::Relaxed));
    let page = address & !4095;
    let replaced = (first..=last).contains(&address) && {
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = std::ptr::with_exposed_provenance_mut(page);
        // SAFETY: The page is one of the mapping's, which is accessed by volatile loads only.
        // mmap is a system call and nothing more.
        let result = unsafe { libc::mmap(page, 4096, libc::PROT_READ, flags, -1, 0) };
        result != libc::MAP_FAILED
    };
    if replaced {
        BUS_ERRORS.fetch_add(1, Ordering::Relaxed);
    } else {
        // SAFETY: Back to the default, so that the access, done again, ends the process.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_consist_of_pages() {
        assert_eq!(range("4096-12288").unwrap(), 4096..12288);
        for text in ["", "4096", "1-4096", "4096-5000", "8192-4096", "a-b"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bus_errors_are_survived_and_reported() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE).unwrap();
        (&file).write_all(&[0xa5; 4096]).unwrap();
        let mapping = Mapping::new(&file, false).unwrap();
        survive_bus_errors(&mapping).unwrap();
        // Pages behind the end of a file are bus errors.
        file.set_len(PAGE).unwrap();
        assert_eq!(mapping.page(0).unwrap(), Some(vec![0xa5; 4096]));
        assert_eq!(mapping.page(PAGE).unwrap(), None);
        assert_eq!(mapping.page(2 * PAGE).unwrap(), None);
        assert_eq!(mapping.page(0).unwrap(), Some(vec![0xa5; 4096]));
        assert!(mapping.page(3 * PAGE).is_err());
    }

    #[test]
    fn a_stored_byte_is_another() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE).unwrap();
        let mapping = Mapping::new(&file, true).unwrap();
        mapping.store(5, !0).unwrap();
        assert_eq!((mapping.load(5).unwrap(), mapping.load(6).unwrap()), (0xff, 0));
    }
}
