// SPDX-License-Identifier: Apache-2.0
//! Disks. One that is made of files, each a partition, becomes the list of them, in crosvm's
//! composite format, between the two halves of a partition table.

use crate::argv::Disk;
use crate::errors::{failed, illegal_argument};
use crate::files::{path, Files};
use anyhow::{Context, Result};
use avf_aidl::aidl::virtualizationservice::{DiskImage::DiskImage, Partition::Partition};
use gzvm_vmm::disk::composite::gpt::{Partition as Entry, PartitionedDisk};
use std::os::fd::{AsFd, RawFd};
use uuid::Uuid;

/// Checks a disk, and hands its files over.
pub fn disk(disk: &DiskImage, files: &mut Files) -> binder::Result<Disk> {
    let image = match (&disk.image, disk.partitions.as_slice()) {
        (Some(_), [_, ..]) => {
            return Err(illegal_argument("a disk has either an image or partitions, not both"))
        }
        (None, []) => return Err(illegal_argument("a disk needs an image or partitions")),
        (Some(image), []) => files.copy(image).map_err(|e| failed(&e))?,
        (None, partitions) => {
            if let Some(part) = partitions.iter().find(|part| part.writable && !disk.writable) {
                return Err(illegal_argument(format!(
                    "partition {:?} is writable, its disk is not",
                    part.label
                )));
            }
            compose(partitions, files)?
        }
    };
    Ok(Disk { image, writable: disk.writable })
}

/// Makes the list; only partitions that say so are writable.
fn compose(partitions: &[Partition], files: &mut Files) -> binder::Result<RawFd> {
    let mut entries = Vec::new();
    for partition in partitions {
        let guid = match partition.guid.as_deref() {
            Some(text) => Uuid::parse_str(text)
                .map_err(|e| illegal_argument(format!("partition {:?}: {e}", partition.label)))?,
            None => Uuid::new_v4(),
        };
        let Some(given) = &partition.image else {
            return Err(illegal_argument(format!("partition {:?} has no image", partition.label)));
        };
        let image = files.copy(given).map_err(|e| failed(&e))?;
        let size = size(given)
            .with_context(|| format!("partition {:?}: no size", partition.label))
            .map_err(|e| failed(&e))?;
        let (label, writable) = (partition.label.clone(), partition.writable);
        entries.push(Entry { label, size, writable, guid, path: path(image) });
    }
    let disk = PartitionedDisk::new(&entries, Uuid::new_v4()).ok_or_else(|| {
        illegal_argument(
            "the partitions make no disk: none may be empty, and there may be 128 of them",
        )
    })?;
    let mut made =
        |name: &str, contents: &[u8]| files.contents(name, contents).map_err(|e| failed(&e));
    let (start, end) = (made("gpt-start", &disk.start)?, made("gpt-end", &disk.end)?);
    made("composite", &disk.list(&path(start), &path(end)))
}

/// Bytes of the partition that a file, sparse image or block device makes.
fn size(image: &impl AsFd) -> Result<u64> {
    Ok(gzvm_vmm::disk::image_size(image.as_fd().try_clone_to_owned()?.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use binder::{ExceptionCode, Exceptions, ParcelFileDescriptor};

    fn image(contents: &[u8]) -> ParcelFileDescriptor {
        let file = tempfile::tempfile().unwrap();
        std::fs::write(path(std::os::fd::AsRawFd::as_raw_fd(&file)), contents).unwrap();
        ParcelFileDescriptor::new(file)
    }

    fn partition(contents: &[u8]) -> Partition {
        Partition { label: "a".into(), image: Some(image(contents)), ..Default::default() }
    }

    #[test]
    fn the_vmm_opens_what_is_made() {
        let config = DiskImage { partitions: vec![partition(&[7; 5000])], ..Default::default() };
        let mut files = Files::default();
        let made = disk(&config, &mut files).unwrap();
        let opened = gzvm_vmm::disk::open(&path(made.image), false).unwrap();
        let mut byte = [0];
        opened.read_at(&mut byte, 40 * 512 + 4999).unwrap();
        assert_eq!((byte, files.into_inner().len()), ([7], 4));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let writable = Partition { writable: true, ..partition(b"x") };
        let nonsense = Partition { guid: Some("x".into()), ..partition(b"x") };
        let missing = Partition { image: None, ..partition(b"x") };
        let both = DiskImage {
            image: Some(image(b"x")),
            partitions: vec![partition(b"x")],
            ..Default::default()
        };
        let of = |partition| DiskImage { partitions: vec![partition], ..Default::default() };
        for (config, words) in [
            (both, "not both"),
            (DiskImage::default(), "needs an image"),
            (of(writable), "its disk is not"),
            (of(nonsense), "partition \"a\""),
            (of(missing), "no image"),
            (of(partition(b"")), "may be empty"),
        ] {
            let status = disk(&config, &mut Files::default()).unwrap_err();
            assert_eq!(status.exception_code(), ExceptionCode::ILLEGAL_ARGUMENT);
            assert!(status.message().is_some_and(|text| text.contains(words)), "{status}");
        }
    }
}
