// SPDX-License-Identifier: Apache-2.0
//! What a guest's kernel leaves of its memory when it crashes: a file in the VM's directory, which goes
//! with that. On Android it goes to tombstoned; here to a directory that a property names.

use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Its name in a VM's directory, and the beginning of its name in the directory of all.
const NAME: &str = "ramdump";

/// A file for it.
#[derive(Debug)]
pub struct Ramdump {
    file: PathBuf,
    /// Where it is kept.
    keep: Option<PathBuf>,
}

impl Ramdump {
    /// Makes the empty file in a VM's directory; the guest's port gets the end that writes.
    pub fn create(dir: &Path, keep: Option<PathBuf>) -> Result<(Self, OwnedFd)> {
        let file = dir.join(NAME);
        let end = create(&file)?;
        Ok((Self { file, keep }, end.into()))
    }

    /// Keeps what the guest has left, if it has left anything. Nothing depends on it.
    pub fn collect(&self, cid: u32) {
        let size = fs::metadata(&self.file).map_or(0, |data| data.len());
        if size == 0 {
            return;
        }
        let Some(keep) = &self.keep else {
            log::warn!(
                "VM {cid}: its kernel left a dump of {size} bytes, which is lost: \
                 hypervisor.gzvm.ramdump_dir names no directory for it"
            );
            return;
        };
        let copy = keep.join(format!("{NAME}-{cid}"));
        match self.copy(&copy) {
            Ok(_) => log::warn!("VM {cid}: its kernel left {}", copy.display()),
            Err(e) => log::warn!("VM {cid}: the dump that its kernel left is lost: {e:#}"),
        }
    }

    fn copy(&self, copy: &Path) -> Result<u64> {
        // One of an earlier VM with this id.
        let _ = fs::remove_file(copy);
        let mut from = File::open(&self.file).context("cannot read it")?;
        std::io::copy(&mut from, &mut create(copy)?).context("cannot copy it")
    }
}

/// A guest's memory is nobody's but its user's.
fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_left_is_kept() {
        let (vm, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dump, end) = Ramdump::create(vm.path(), Some(kept.path().into())).unwrap();
        dump.collect(2048);
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 0, "nothing was left");
        File::from(end).write_all(b"memory").unwrap();
        let copy = kept.path().join("ramdump-2048");
        fs::write(&copy, "that of another VM, which was longer").unwrap();
        dump.collect(2048);
        assert_eq!(fs::read(&copy).unwrap(), b"memory");
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o600);
        let (lost, _) = Ramdump::create(kept.path(), Some("/nonexistent".into())).unwrap();
        fs::write(&lost.file, "x").unwrap();
        lost.collect(2048);
    }
}
