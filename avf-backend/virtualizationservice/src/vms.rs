// SPDX-License-Identifier: Apache-2.0
//! The VMs of all users: each has an id and a directory until nobody refers to its context any more,
//! which is also when the process that did has died. VMs of an earlier service have theirs until they
//! end.

use crate::orphans;
use anyhow::{bail, Context, Result};
use avf_aidl::aidl::virtualizationservice::VirtualMachineDebugInfo::VirtualMachineDebugInfo;
use gzvm_host::cids;
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
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
    /// Locked: two services would take each other's directories away.
    _lock: File,
}

#[derive(Debug)]
struct State {
    last: Option<u32>,
    vms: BTreeMap<u32, Vm>,
}

#[derive(Debug)]
struct Vm {
    info: VirtualMachineDebugInfo,
    /// An earlier service's: nobody refers to it, and its end has to be looked for.
    orphan: bool,
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
    /// With the VMs that an earlier service left behind. Directories of VMs that have ended go.
    pub fn open(dir: &Path) -> Result<Self> {
        match DirBuilder::new().mode(0o711).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("cannot make {}", dir.display()));
            }
            _ => {}
        }
        let lock = lock(dir).with_context(|| dir.display().to_string())?;
        // Users get through to their VMs' directories, and see no others.
        fs::set_permissions(dir, Permissions::from_mode(0o711))
            .with_context(|| dir.display().to_string())?;
        let last = fs::read_to_string(dir.join(LAST_CID)).ok();
        let last = last.and_then(|text| text.trim().parse().ok());
        let state = Mutex::new(State { last, vms: left_behind(dir) });
        Ok(Self { dir: dir.to_owned(), state, _lock: lock })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id and a directory for a VM of this user; `client` is the process that wants it.
    pub fn allocate(self: &Arc<Self>, uid: u32, client: i32) -> Result<Entry> {
        let mut state = self.lock();
        state.forget_orphans();
        // The one that was given back last is the last to be given again.
        let cid = cids::after(state.last).find(|cid| !state.vms.contains_key(cid));
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
        state.vms.insert(cid, Vm { info, orphan: false });
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
        let mut state = self.lock();
        state.forget_orphans();
        let theirs = |info: &&VirtualMachineDebugInfo| {
            uid.is_none_or(|uid| u32::try_from(info.requesterUid) == Ok(uid))
        };
        let copy = |info: &VirtualMachineDebugInfo| VirtualMachineDebugInfo {
            temporaryDirectory: info.temporaryDirectory.clone(),
            hostConsoleName: info.hostConsoleName.clone(),
            ..*info
        };
        state.vms.values().map(|vm| &vm.info).filter(theirs).map(copy).collect()
    }
}

impl State {
    /// Gives back what VMs of an earlier service had that have ended since.
    fn forget_orphans(&mut self) {
        self.vms.retain(|_, vm| {
            let dir = Path::new(&vm.info.temporaryDirectory);
            let keep = !vm.orphan || orphans::lives(dir);
            if !keep {
                remove(dir);
            }
            keep
        });
    }
}

/// Opens a directory that this process alone is to use.
fn lock(dir: &Path) -> Result<File> {
    let file = File::open(dir)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!("another gzvm_virtualizationservice runs"),
        Err(e) => Err(e.into()),
    }
}

/// The VMs whose directories are there.
fn left_behind(dir: &Path) -> BTreeMap<u32, Vm> {
    let mut vms = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let cid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(cid) = cid.filter(|cid| cids::CIDS.contains(cid)) else { continue };
        match orphans::find(&entry.path(), cid) {
            Some(info) => drop(vms.insert(cid, Vm { info, orphan: true })),
            None => remove(&entry.path()),
        }
    }
    vms
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("{} stays behind: {e}", dir.display());
        }
        _ => {}
    }
}

impl Entry {
    /// Says which terminal shows the VM's console.
    pub fn set_console(&self, name: &str) {
        if let Some(vm) = self.vms.lock().vms.get_mut(&self.cid) {
            vm.info.hostConsoleName = Some(name.to_owned());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        remove(&self.dir);
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
        assert!(Vms::open(&dir).unwrap_err().chain().any(|e| e.to_string().contains("another")));
        drop(vms);
        let later = Arc::new(Vms::open(&dir).unwrap());
        assert_eq!(later.allocate(uid, 9).unwrap().cid, 2051);
    }

    /// A service whose last id was this one.
    fn after(dir: &Path, last: u32) -> Arc<Vms> {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(LAST_CID), last.to_string()).unwrap();
        Arc::new(Vms::open(dir).unwrap())
    }

    #[test]
    fn ids_wrap_and_pass_over_vms_that_live() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("vms");
        let uid = fs::metadata(top.path()).unwrap().uid();
        // One of an earlier service's VMs has the first id.
        fs::create_dir_all(dir.join("2048")).unwrap();
        let listener = orphans::tests::listen_in(&dir.join("2048"));
        let vms = after(&dir, 65_533);
        let next = || vms.allocate(uid, 7).unwrap();
        let (alive, last) = (next(), next());
        assert_eq!((alive.cid, last.cid), (65_534, 65_535));
        let (dead, other) = (next(), next());
        assert_eq!((dead.cid, other.cid), (2049, 2050));
        // The id of a VM that was killed is given again when all others had their turn.
        drop((dead, last, listener));
        assert_eq!(next().cid, 2051);
        vms.lock().last = Some(65_533);
        let round: Vec<_> = (0..4).map(|_| next().cid).collect();
        assert_eq!(round, [65_535, 2048, 2049, 2051], "65534 and 2050 live");
        assert_eq!(vms.list(None).len(), 2);
    }

    #[test]
    fn when_all_ids_are_in_use_there_is_no_more() {
        let top = tempfile::tempdir().unwrap();
        let uid = fs::metadata(top.path()).unwrap().uid();
        let vms = after(&top.path().join("vms"), 2047);
        let mut state = vms.lock();
        for cid in cids::CIDS.filter(|&cid| cid != 40_000) {
            state.vms.insert(cid, Vm { info: VirtualMachineDebugInfo::default(), orphan: false });
        }
        drop(state);
        let only = vms.allocate(uid, 7).unwrap();
        assert_eq!(only.cid, 40_000);
        let error = format!("{:#}", vms.allocate(uid, 7).unwrap_err());
        assert!(error.contains("all context ids are in use"), "{error}");
        drop(only);
        assert_eq!(vms.allocate(uid, 7).unwrap().cid, 40_000);
    }

    #[test]
    fn a_service_finds_the_vms_of_the_one_before() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("vms");
        let uid = fs::metadata(top.path()).unwrap().uid();
        let vms = Arc::new(Vms::open(&dir).unwrap());
        // Its virtmgr goes on when the service is killed.
        let alive = std::mem::ManuallyDrop::new(vms.allocate(uid, 7).unwrap());
        let listener = orphans::tests::listen_in(&alive.dir);
        let ended = std::mem::ManuallyDrop::new(vms.allocate(uid, 8).unwrap());
        fs::write(ended.dir.join("crosvm.sock"), "").unwrap();
        // The lock goes with the process.
        let other = top.path().join("moved");
        fs::rename(&dir, &other).unwrap();
        fs::create_dir(&dir).unwrap();
        for cid in ["2048", "2049"] {
            fs::rename(other.join(cid), dir.join(cid)).unwrap();
        }
        fs::create_dir(dir.join("70000")).unwrap();
        let later = Arc::new(Vms::open(&dir).unwrap());
        assert!(!ended.dir.exists() && dir.join("70000").exists());
        let list = later.list(Some(uid));
        assert_eq!(list.iter().map(|vm| vm.cid).collect::<Vec<_>>(), [2048]);
        // Its id is taken, also for a service that has lost count.
        assert_eq!(later.allocate(uid, 9).unwrap().cid, 2049);
        drop(listener);
        assert!(later.list(None).is_empty() && !alive.dir.exists());
    }
}
