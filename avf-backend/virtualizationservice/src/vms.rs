// SPDX-License-Identifier: Apache-2.0
//! The VMs of all users: each has an id and a directory until nobody refers to its context any more,
//! which is also when the process that did has died.

use crate::cids;
use anyhow::{Context, Result};
use avf_aidl::aidl::virtualizationservice::VirtualMachineDebugInfo::VirtualMachineDebugInfo;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{chown, DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the last id is kept, in the directory of all VMs: ids go on where an earlier service ended,
/// whose VMs may still run.
const LAST_CID: &str = "last_cid";

/// All VMs.
#[derive(Debug)]
pub struct Vms {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<u32>,
    vms: BTreeMap<u32, VirtualMachineDebugInfo>,
}

/// One VM's id and directory. Dropping it gives them back.
#[derive(Debug)]
pub struct Entry {
    vms: Arc<Vms>,
    /// The id.
    pub cid: u32,
    /// The directory.
    pub dir: PathBuf,
}

impl Vms {
    /// Without VMs. Directories that an earlier service left behind stay until their ids come round:
    /// their VMs may still run.
    pub fn open(dir: &Path) -> Result<Self> {
        match DirBuilder::new().mode(0o711).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", dir.display()));
            }
            _ => {}
        }
        // Users get through to their VMs' directories, and see no others.
        fs::set_permissions(dir, Permissions::from_mode(0o711))
            .with_context(|| format!("{}", dir.display()))?;
        let last = fs::read_to_string(dir.join(LAST_CID)).ok();
        let last = last.and_then(|text| text.trim().parse().ok());
        let state = Mutex::new(State { last, vms: BTreeMap::new() });
        Ok(Self { dir: dir.to_owned(), state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id and a directory for a VM of this user; `client` is the process that wants it.
    pub fn allocate(self: &Arc<Self>, uid: u32, client: i32) -> Result<Entry> {
        let mut state = self.lock();
        let cid = cids::next(state.last, |cid| state.vms.contains_key(&cid));
        let cid = cid.context("all context ids are in use")?;
        let dir = self.dir.join(cid.to_string());
        self.make(&dir, uid).with_context(|| format!("cannot make {}", dir.display()))?;
        // Without it an id may be given again after a restart: the VMM notices.
        if let Err(e) = fs::write(self.dir.join(LAST_CID), cid.to_string()) {
            log::warn!("{LAST_CID} is not kept: {e}");
        }
        state.last = Some(cid);
        let info = VirtualMachineDebugInfo {
            cid: i32::try_from(cid)?,
            temporaryDirectory: dir.display().to_string(),
            requesterUid: i32::try_from(uid)?,
            requesterPid: client,
            hostConsoleName: None,
        };
        state.vms.insert(cid, info);
        Ok(Entry { vms: Arc::clone(self), cid, dir })
    }

    fn make(&self, dir: &Path, uid: u32) -> Result<()> {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(dir)?;
        Ok(chown(dir, Some(uid), None)?)
    }

    /// The VMs of a user, or of everybody.
    pub fn list(&self, uid: Option<u32>) -> Vec<VirtualMachineDebugInfo> {
        let state = self.lock();
        let theirs = |info: &&VirtualMachineDebugInfo| {
            uid.is_none_or(|uid| u32::try_from(info.requesterUid) == Ok(uid))
        };
        let copy = |info: &VirtualMachineDebugInfo| VirtualMachineDebugInfo {
            temporaryDirectory: info.temporaryDirectory.clone(),
            hostConsoleName: info.hostConsoleName.clone(),
            ..*info
        };
        state.vms.values().filter(theirs).map(copy).collect()
    }
}

impl Entry {
    /// Says which terminal shows the VM's console.
    pub fn set_console(&self, name: &str) {
        if let Some(info) = self.vms.lock().vms.get_mut(&self.cid) {
            info.hostConsoleName = Some(name.to_owned());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            log::warn!("{} stays behind: {e}", self.dir.display());
        }
        // The id is free when the directory is gone, or another VM's would go.
        self.vms.lock().vms.remove(&self.cid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn vms_come_and_go() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("vms");
        let uid = fs::metadata(top.path()).unwrap().uid();
        let vms = Arc::new(Vms::open(&dir).unwrap());
        let (one, two) = (vms.allocate(uid, 7).unwrap(), vms.allocate(uid, 8).unwrap());
        assert_eq!((one.cid, two.cid), (2048, 2049));
        fs::write(one.dir.join("crosvm.sock"), "").unwrap();
        assert_eq!(fs::metadata(&one.dir).unwrap().mode() & 0o777, 0o700);
        two.set_console("/dev/pts/3");
        let list = vms.list(None);
        assert_eq!(list.iter().map(|vm| vm.requesterPid).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(list[1].hostConsoleName.as_deref(), Some("/dev/pts/3"));
        assert_eq!((vms.list(Some(uid)).len(), vms.list(Some(uid + 1)).len()), (2, 0));
        let gone = one.dir.clone();
        drop(one);
        assert!(!gone.exists() && two.dir.exists() && vms.list(None).len() == 1);
        drop(two);
        // An id is not given again soon, not by the next service either.
        assert_eq!(vms.allocate(uid, 9).unwrap().cid, 2050);
        let later = Arc::new(Vms::open(&dir).unwrap());
        assert_eq!(later.allocate(uid, 9).unwrap().cid, 2051);
    }
}
