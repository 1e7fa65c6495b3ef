// SPDX-License-Identifier: Apache-2.0
//! The VMM's process as the host's administrator sees it: where the guest's memory is in it.

use anyhow::{bail, ensure, Context, Result};
use std::fs;
use std::path::PathBuf;

/// What `/proc` calls guest memory: the name that AVF's metrics look for.
const MEMFD: &str = "/memfd:crosvm_guest";

/// A VMM process and its guest's memory.
#[derive(Debug)]
pub struct Vmm {
    /// Its process id.
    pub pid: u32,
    /// The file descriptor of guest memory in that process.
    pub fd: u32,
    /// Where guest memory is mapped in it.
    pub mappings: Vec<Mapping>,
}

/// A mapping of a part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address in the VMM.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Offset of its first byte in the memfd.
    pub offset: u64,
}

impl Vmm {
    /// Finds the VMM that a `vm` tool started (or became).
    pub fn find(tool: u32) -> Result<Self> {
        for pid in family(tool)? {
            let Some(fd) = guest_memory(pid) else { continue };
            let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
                .with_context(|| format!("cannot read the mappings of process {pid}"))?;
            let mappings = mappings(&maps);
            ensure!(!mappings.is_empty(), "process {pid} holds guest memory but maps none");
            return Ok(Self { pid, fd, mappings });
        }
        bail!("no process below {tool} holds guest memory ({MEMFD})")
    }

    /// Guest memory as a file.
    pub fn memfd(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.fd))
    }

    /// The process's address space as a file.
    pub fn memory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/mem", self.pid))
    }

    /// Where the byte at `offset` of guest memory is mapped.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let inside = |mapping: &&Mapping| {
            offset.checked_sub(mapping.offset).is_some_and(|inside| inside < mapping.size)
        };
        let mapping = self.mappings.iter().find(inside)?;
        Some(mapping.address + (offset - mapping.offset))
    }
}

/// A process and all below it.
fn family(root: u32) -> Result<Vec<u32>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) {
            // A process that has ended by now has no parent any more.
            if let Some(parent) =
                fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| parent(&stat))
            {
                processes.push((pid, parent));
            }
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(&pid) = family.get(next) {
        family.extend(processes.iter().filter(|&&(_, parent)| parent == pid).map(|&(pid, _)| pid));
        next += 1;
    }
    Ok(family)
}

/// The parent's id in `/proc/PID/stat`: the second field behind the name, which is in parentheses
/// and may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The file descriptor of guest memory in a process, if it has one.
fn guest_memory(pid: u32) -> Option<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is_guest_memory = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with(MEMFD))
    };
    let entry = entries.flatten().find(is_guest_memory)?;
    entry.file_name().to_str()?.parse().ok()
}

/// The mappings of guest memory in `/proc/PID/maps`.
fn mappings(maps: &str) -> Vec<Mapping> {
    maps.lines().filter_map(mapping).collect()
}

/// One line: `start-end perms offset dev inode path`, numbers in hexadecimal.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    fields.nth(2)?.starts_with(MEMFD).then_some(())?;
    let [address, end, offset] = [start, end, offset].map(|text| u64::from_str_radix(text, 16));
    let (address, offset) = (address.ok()?, offset.ok()?);
    Some(Mapping { address, size: end.ok()?.checked_sub(address)?, offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
ffff80000000-ffff81000000 rw-s 00000000 00:01 1027   /memfd:crosvm_guest (deleted)
ffff81001000-ffff81801000 rw-s 01000000 00:01 1027   /memfd:crosvm_guest (deleted)
ffff90000000-ffff90001000 rw-p 00000000 00:00 0
ffff90002000-ffff90003000 r-xp 00000000 00:02 12     /usr/bin/gzvm_vmm
";

    #[test]
    fn guest_memory_is_found_in_the_mappings() {
        let vmm = Vmm { pid: 1, fd: 2, mappings: mappings(MAPS) };
        let first = Mapping { address: 0xffff_8000_0000, size: 0x100_0000, offset: 0 };
        assert_eq!((vmm.mappings.len(), vmm.mappings[0]), (2, first));
        assert_eq!(vmm.address(0x4_1000), Some(0xffff_8004_1000));
        assert_eq!(vmm.address(0x100_0008), Some(0xffff_8100_1008));
        assert_eq!(vmm.address(0x180_0000), None);
    }

    #[test]
    fn a_name_does_not_hide_the_parent() {
        assert_eq!(parent("12 (a b) c) d) S 7 12 0"), Some(7));
        assert_eq!(parent("nonsense"), None);
    }

    #[test]
    fn a_family_begins_with_its_root() {
        let pid = std::process::id();
        assert_eq!(family(pid).unwrap()[0], pid);
        assert!(Vmm::find(pid).is_err());
    }
}
