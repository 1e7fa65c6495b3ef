// SPDX-License-Identifier: Apache-2.0
//! Files that become partitions.

use crate::errors::{failed, illegal_argument};
use anyhow::{anyhow, Context, Result};
use avf_aidl::aidl::virtualizationservice::PartitionType::PartitionType;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;

/// What an instance image begins with, and its version.
const INSTANCE_MAGIC: &[u8] = b"Android-VM-instance";
const INSTANCE_VERSION: u16 = 1;
/// What an encrypted store that was never used begins with.
const UNFORMATTED: &[u8] = b"UNFORMATTED-STORAGE";

/// What sizes are rounded up to, as in AVF: crosvm wants partitions of whole pages.
const GRANULE: u64 = 4096;

/// Makes a file an empty partition of at least `size` bytes; what it held is lost.
pub fn initialize(image: &impl AsFd, size: i64, kind: PartitionType) -> binder::Result<()> {
    let size = u64::try_from(size)
        .map_err(|_| illegal_argument(format!("sizeBytes: {size} bytes cannot be")))?;
    // No `i64` is so large that it could not be rounded up.
    let size = size.next_multiple_of(GRANULE);
    let start = match kind {
        PartitionType::RAW => Vec::new(),
        PartitionType::ANDROID_VM_INSTANCE => {
            [INSTANCE_MAGIC, &INSTANCE_VERSION.to_le_bytes()].concat()
        }
        PartitionType::ENCRYPTEDSTORE => UNFORMATTED.to_vec(),
        other => return Err(failed(&anyhow!("type: there is no {}", other.0))),
    };
    if u64::try_from(start.len()).is_ok_and(|needed| needed > size) {
        return Err(illegal_argument(format!("sizeBytes: {size} is too small for this type")));
    }
    write(image, size, &start).map_err(|e| failed(&e))
}

fn write(image: &impl AsFd, size: u64, start: &[u8]) -> Result<()> {
    let mut file = File::from(image.as_fd().try_clone_to_owned()?);
    file.set_len(0).context("imageFd: it cannot be emptied")?;
    file.set_len(size).with_context(|| format!("imageFd: it cannot have {size} bytes"))?;
    file.rewind().context("imageFd")?;
    file.write_all(start).context("imageFd: it cannot be written to")
}

#[cfg(test)]
mod tests {
    use super::*;
    use binder::{ExceptionCode, Exceptions};
    use std::io::Read;

    fn made(size: i64, kind: PartitionType) -> binder::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"what was there").unwrap();
        initialize(&file, size, kind)?;
        let mut contents = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut contents).unwrap();
        Ok(contents)
    }

    #[test]
    fn partitions_begin_as_android_knows_them() {
        assert_eq!(made(8192, PartitionType::RAW).unwrap(), [0; 8192]);
        let instance = made(4096, PartitionType::ANDROID_VM_INSTANCE).unwrap();
        assert!(instance.starts_with(b"Android-VM-instance\x01\0\0") && instance.len() == 4096);
        let store = made(4096, PartitionType::ENCRYPTEDSTORE).unwrap();
        assert!(store.starts_with(b"UNFORMATTED-STORAGE\0"));
    }

    #[test]
    fn sizes_are_rounded_up_to_pages() {
        for (asked, size) in [(0, 0), (1, 4096), (4095, 4096), (4096, 4096), (4097, 8192)] {
            assert_eq!(made(asked, PartitionType::RAW).unwrap().len(), size, "{asked}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (size, kind, exception, words) in [
            (-1, PartitionType::RAW, ExceptionCode::ILLEGAL_ARGUMENT, "-1 bytes"),
            (0, PartitionType::ENCRYPTEDSTORE, ExceptionCode::ILLEGAL_ARGUMENT, "too small"),
            (20, PartitionType(7), ExceptionCode::SERVICE_SPECIFIC, "no 7"),
            (i64::MAX, PartitionType::RAW, ExceptionCode::SERVICE_SPECIFIC, "cannot have"),
        ] {
            let status = made(size, kind).unwrap_err();
            assert_eq!(status.exception_code(), exception, "{status}");
            assert!(status.message().is_some_and(|text| text.contains(words)), "{status}");
        }
        let read_only = File::open("/dev/null").unwrap();
        let status = initialize(&read_only, 1, PartitionType::RAW).unwrap_err();
        assert_eq!(status.service_specific_error(), -1);
    }
}
