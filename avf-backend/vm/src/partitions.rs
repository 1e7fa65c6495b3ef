// SPDX-License-Identifier: Apache-2.0
//! A disk that is made of files, each a partition: what the VMM gets is the list of them, in crosvm's
//! composite format, between the two halves of a partition table.

use crate::config::Partition;
use anyhow::{Context, Result};
use gzvm_vmm::disk::composite::gpt::{Partition as Entry, PartitionedDisk};
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use uuid::Uuid;

/// Opens the files of a disk and makes its list. `keep` takes what the VMM inherits; the list is
/// the answer. Only partitions that say so are writable.
pub fn compose(
    partitions: &[Partition],
    keep: &mut impl FnMut(OwnedFd) -> RawFd,
) -> Result<OwnedFd> {
    let mut entries = Vec::new();
    for partition in partitions {
        let path = partition.path.display();
        let open = || OpenOptions::new().read(true).write(partition.writable).open(&partition.path);
        let file = open().with_context(|| format!("key \"partitions\": cannot open {path}"))?;
        let size = file.metadata().with_context(|| format!("key \"partitions\": {path}"))?.len();
        entries.push(Entry {
            label: partition.label.clone(),
            size,
            writable: partition.writable,
            guid: partition.guid.unwrap_or_else(Uuid::new_v4),
            path: inherited(keep(file.into())),
        });
    }
    let disk = PartitionedDisk::new(&entries, Uuid::new_v4()).context(
        "key \"partitions\": they make no disk: none may be empty, and there may be 128 of them",
    )?;
    let start = inherited(keep(contents("gpt-start", &disk.start)?));
    let end = inherited(keep(contents("gpt-end", &disk.end)?));
    contents("composite", &disk.list(&start, &end))
}

fn inherited(fd: RawFd) -> PathBuf {
    format!("/proc/self/fd/{fd}").into()
}

/// A file without a name.
fn contents(name: &str, contents: &[u8]) -> Result<OwnedFd> {
    let make = || -> Result<File> {
        let name = CString::new(name)?;
        let mut file = File::from(memfd_create(&name, MemFdCreateFlag::MFD_CLOEXEC)?);
        file.write_all(contents)?;
        Ok(file)
    };
    Ok(make().with_context(|| format!("cannot make {name}"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    fn partition(path: &Path) -> Partition {
        Partition { label: "a".into(), path: path.into(), writable: false, guid: None }
    }

    #[test]
    fn the_vmm_opens_what_is_made() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 5000]).unwrap();
        let mut kept = Vec::new();
        let list = compose(&[partition(file.path())], &mut |fd: OwnedFd| {
            let number = fd.as_raw_fd();
            kept.push(fd);
            number
        })
        .unwrap();
        assert_eq!(kept.len(), 3);
        let disk = gzvm_vmm::disk::open(&inherited(list.as_raw_fd()), false).unwrap();
        let mut byte = [0];
        disk.read_at(&mut byte, 40 * 512 + 4999).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn errors_name_the_file() {
        let mut keep = |fd: OwnedFd| fd.as_raw_fd();
        let error = compose(&[partition(Path::new("/no/such"))], &mut keep).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such"), "{error:#}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = compose(&[partition(empty.path())], &mut keep).unwrap_err();
        assert!(format!("{error:#}").contains("empty"), "{error:#}");
    }
}
