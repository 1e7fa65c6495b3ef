// SPDX-License-Identifier: Apache-2.0
//! Dumps of guest memory, taken by the host's administrator in each way there is.

use crate::peek::{READ, REFUSED};
use crate::vmm::Vmm;
use anyhow::{bail, ensure, Context, Result};
use nix::unistd::{lseek, Whence};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// What a dump got.
#[derive(Debug, Default)]
pub struct Dump {
    /// Contents of the pages that could be read, by offset in guest memory.
    pub pages: BTreeMap<u64, Vec<u8>>,
    /// Pages whose reading was refused.
    pub refused: usize,
}

impl Dump {
    /// Pages that hold anything but zeros.
    pub fn nonzero(&self) -> usize {
        self.pages.values().filter(|page| page.iter().any(|&byte| byte != 0)).count()
    }

    /// What was got, for people.
    pub fn describe(&self) -> String {
        let (read, nonzero) = (self.pages.len(), self.nonzero());
        format!("{read} pages read, {nonzero} of them not zero; {} refused", self.refused)
    }
}

/// The ranges of guest memory that the host's kernel has pages for. Asking does not touch them.
pub fn populated(vmm: &Vmm) -> Result<Vec<Range<u64>>> {
    let path = vmm.memfd();
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let end = i64::try_from(file.metadata()?.len())?;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < end {
        // An error says that there is no data any more.
        let Ok(start) = lseek(file.as_raw_fd(), at, Whence::SeekData) else { break };
        at = lseek(file.as_raw_fd(), start, Whence::SeekHole).context("cannot seek in memory")?;
        ensure!(at > start, "the kernel found a hole where it had found data");
        ranges.push(u64::try_from(start)?..u64::try_from(at)?);
    }
    Ok(ranges)
}

/// Reads through a mapping of the memfd of its own, from user mode.
pub fn by_user(vmm: &Vmm, ranges: &[Range<u64>]) -> Result<Dump> {
    let mut command = peek("dump", vmm);
    command.args(ranges.iter().map(|range| format!("{}-{}", range.start, range.end)));
    let output = command.stderr(Stdio::inherit()).output().context("cannot run a child")?;
    ensure!(output.status.success(), "the dumping child ended with {}", output.status);
    parse(&output.stdout)
}

/// Reads through the VMM's address space, by the kernel.
pub fn by_kernel(vmm: &Vmm, ranges: &[Range<u64>]) -> Result<Dump> {
    read(&vmm.memory(), ranges, |offset| vmm.address(offset).context("that is not mapped"))
}

/// Reads the memfd with read(2), by the kernel.
pub fn by_file(vmm: &Vmm, ranges: &[Range<u64>]) -> Result<Dump> {
    read(&vmm.memfd(), ranges, Ok)
}

/// Writes to the VMM's address space, by the kernel.
pub fn write_by_kernel(vmm: &Vmm, offset: u64, bytes: &[u8]) -> Result<()> {
    let path = vmm.memory();
    let address = vmm.address(offset).context("that is not mapped")?;
    let file = OpenOptions::new().write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.write_all_at(bytes, address).with_context(|| format!("cannot write {}", path.display()))
}

/// Loads a byte in a child process.
pub fn load_by_user(vmm: &Vmm, offset: u64) -> Result<ExitStatus> {
    peek("load", vmm).arg(offset.to_string()).status().context("cannot run a child")
}

/// Changes a byte in a child process.
pub fn store_by_user(vmm: &Vmm, offset: u64) -> Result<ExitStatus> {
    peek("store", vmm).arg(offset.to_string()).status().context("cannot run a child")
}

/// Whether a child died of a bus error.
pub fn is_bus_error(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGBUS)
}

/// This program again, to access guest memory.
fn peek(access: &str, vmm: &Vmm) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["peek", access]).arg(vmm.memfd());
    command
}

/// Reads pages from a file, each at the place that `position` says.
fn read(
    path: &std::path::Path,
    ranges: &[Range<u64>],
    position: impl Fn(u64) -> Result<u64>,
) -> Result<Dump> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut dump = Dump::default();
    for offset in ranges.iter().cloned().flat_map(|range| range.step_by(4096)) {
        let mut page = vec![0; 4096];
        match file.read_exact_at(&mut page, position(offset)?) {
            Ok(()) => _ = dump.pages.insert(offset, page),
            Err(_) => dump.refused += 1,
        }
    }
    Ok(dump)
}

/// Reads the output of `peek dump`.
fn parse(mut output: &[u8]) -> Result<Dump> {
    let mut dump = Dump::default();
    while let Some((&kind, rest)) = output.split_first() {
        let (offset, rest) = rest.split_first_chunk().context("the dump is cut off")?;
        let offset = u64::from_le_bytes(*offset);
        output = match kind {
            READ => {
                let (page, rest) = rest.split_at_checked(4096).context("the dump is cut off")?;
                dump.pages.insert(offset, page.to_vec());
                rest
            }
            REFUSED => {
                dump.refused += 1;
                rest
            }
            other => bail!("the dump has an unknown mark {other:#x}"),
        };
    }
    Ok(dump)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::Mapping;
    use nix::sys::memfd::{memfd_create, MemFdCreateFlag};

    #[test]
    fn a_dump_is_parsed_or_refused() {
        let mut output = vec![REFUSED];
        output.extend(0_u64.to_le_bytes());
        output.push(READ);
        output.extend(8192_u64.to_le_bytes());
        output.extend([1; 4096]);
        let dump = parse(&output).unwrap();
        assert_eq!((dump.refused, dump.pages.len(), dump.pages[&8192][4095]), (1, 1, 1));
        assert_eq!(dump.describe(), "1 pages read, 1 of them not zero; 1 refused");
        assert!(parse(&output[..output.len() - 1]).is_err());
        assert!(parse(b"X12345678").is_err());
    }

    #[test]
    fn this_process_can_be_dumped() {
        let memfd = memfd_create(c"crosvm_guest", MemFdCreateFlag::empty()).unwrap();
        let file = File::from(memfd);
        file.set_len(8 * PAGE).unwrap();
        file.write_all_at(&[1; 4096], 2 * PAGE).unwrap();
        file.write_all_at(&[2; 4096], 5 * PAGE).unwrap();
        let bytes = [3_u8; 8];
        let vmm = Vmm {
            pid: std::process::id(),
            fd: u32::try_from(file.as_raw_fd()).unwrap(),
            mappings: vec![Mapping {
                address: u64::try_from(bytes.as_ptr().addr()).unwrap(),
                size: PAGE,
                offset: 0,
            }],
        };
        let ranges = populated(&vmm).unwrap();
        assert_eq!(ranges, [2 * PAGE..3 * PAGE, 5 * PAGE..6 * PAGE]);
        let dump = by_file(&vmm, &ranges).unwrap();
        assert_eq!((dump.pages.len(), dump.pages[&(5 * PAGE)][0]), (2, 2));
        assert!(by_kernel(&vmm, &ranges).is_err(), "those pages are not mapped");
    }
}
