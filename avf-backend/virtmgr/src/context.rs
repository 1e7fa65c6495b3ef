// SPDX-License-Identifier: Apache-2.0
//! What a VM has besides its process: a context id and a directory, from the global service, or
//! from this process where there is none.

use anyhow::{anyhow, bail, Context as _, Result};
use avf_aidl::aidl::virtualizationservice_internal::IGlobalVmContext::IGlobalVmContext;
use binder::Strong;
use gzvm_host::cids::{self, Taken, CIDS};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

/// A VM's context id and directory. Dropping it gives both back.
#[derive(Debug)]
pub struct VmContext {
    cid: u32,
    dir: PathBuf,
    kind: Kind,
    /// `None`, if somebody else has the id, or nobody can tell.
    taken: Option<Taken>,
}

#[derive(Debug)]
enum Kind {
    /// The global service removes the directory when nobody holds this any more.
    Global(Strong<dyn IGlobalVmContext>),
    Local,
}

impl VmContext {
    /// One that the global service gave.
    pub fn global(context: Strong<dyn IGlobalVmContext>) -> Result<Self> {
        let cid = context.getCid()?;
        let cid = u32::try_from(cid).map_err(|_| anyhow!("the service gave the CID {cid}"))?;
        let dir = context.getTemporaryDirectory()?.into();
        let taken = Taken::take(cid).unwrap_or_else(|e| {
            log::info!("who has context ids is not known: {e}");
            None
        });
        Ok(Self { cid, dir, kind: Kind::Global(context), taken })
    }

    /// Whether the id is certainly no other VM's.
    pub fn is_alone(&self) -> bool {
        self.taken.is_some()
    }

    /// The id.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The directory, which is only this user's.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Says which terminal shows the VM's console.
    pub fn set_host_console_name(&self, name: &str) -> binder::Result<()> {
        match &self.kind {
            Kind::Global(context) => context.setHostConsoleName(name),
            // Nobody but the client could list it.
            Kind::Local => Ok(()),
        }
    }
}

impl Drop for VmContext {
    fn drop(&mut self) {
        if matches!(self.kind, Kind::Local) {
            remove(&self.dir);
        }
    }
}

/// Contexts without a global service.
#[derive(Debug)]
pub struct LocalContexts {
    base: PathBuf,
    last: AtomicU32,
}

/// What the directories of processes are called, before their ids.
const PREFIX: &str = "gzvm-virtmgr-";

impl LocalContexts {
    /// Below the directory for temporary files. Removes what processes that were killed left there.
    pub fn new() -> Result<Self> {
        Self::below(&env::temp_dir())
    }

    /// Below another directory.
    pub fn below(parent: &Path) -> Result<Self> {
        let base = parent.join(format!("{PREFIX}{}", process::id()));
        sweep(parent);
        let made = DirBuilder::new().mode(0o700).create(&base);
        made.with_context(|| format!("cannot make {}", base.display()))?;
        // Other processes begin elsewhere: an id is not given again soon.
        let count = CIDS.end() - CIDS.start() + 1;
        Ok(Self { base, last: AtomicU32::new(CIDS.start() + process::id() % count) })
    }

    /// A new context, with an id that no other VM has.
    pub fn allocate(&self) -> Result<VmContext> {
        let (cid, taken) = self.take().context("no context id for the VM")?;
        self.last.store(cid, Ordering::Relaxed);
        let dir = self.base.join(cid.to_string());
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(VmContext { cid, dir, kind: Kind::Local, taken: Some(taken) })
    }

    /// Removes the directories of all VMs.
    pub fn remove(&self) {
        remove(&self.base);
    }

    fn take(&self) -> Result<(u32, Taken)> {
        for cid in cids::after(Some(self.last.load(Ordering::Relaxed))) {
            if let Some(taken) = Taken::take(cid)? {
                return Ok((cid, taken));
            }
        }
        bail!("all are in use")
    }
}

impl Drop for LocalContexts {
    fn drop(&mut self) {
        self.remove();
    }
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        // At the end of the process the directory of a VM may go with the one above it.
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("{} stays behind: {e}", dir.display());
        }
        _ => {}
    }
}

/// Removes directories of this user's processes that are gone.
fn sweep(parent: &Path) {
    let uid = nix::unistd::getuid().as_raw();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let gone = pid == process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        // Not that of a link.
        let ours = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == uid);
        if gone && ours {
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_private_and_go() {
        let parent = tempfile::tempdir().unwrap();
        // A process id that no process can have, and a name that is nobody's.
        let (old, other) =
            (parent.path().join(format!("{PREFIX}99999999")), PREFIX.to_owned() + "x");
        fs::create_dir_all(old.join("2048")).unwrap();
        fs::create_dir(parent.path().join(&other)).unwrap();
        let contexts = LocalContexts::below(parent.path()).unwrap();
        assert!(!old.exists() && parent.path().join(other).exists());
        let (one, two) = (contexts.allocate().unwrap(), contexts.allocate().unwrap());
        assert!([&one, &two].iter().all(|vm| vm.is_alone() && CIDS.contains(&vm.cid())));
        assert_ne!(one.cid(), two.cid());
        assert_eq!(fs::metadata(one.dir()).unwrap().mode() & 0o777, 0o700);
        let (dir, base) = (one.dir().to_owned(), contexts.base.clone());
        drop(one);
        assert!(!dir.exists() && two.dir().exists());
        drop((two, contexts));
        assert!(!base.exists());
    }

    /// Of any process, the process's own included.
    #[test]
    fn an_id_of_a_vm_that_lives_is_passed_over() {
        let parent = tempfile::tempdir().unwrap();
        let contexts = LocalContexts::below(parent.path()).unwrap();
        let first = contexts.allocate().unwrap();
        // As other processes take them.
        let others = cids::after(Some(first.cid())).take(3);
        let others: Vec<_> =
            others.filter_map(|cid| Some((cid, Taken::take(cid).ok()??))).collect();
        let next = contexts.allocate().unwrap();
        assert!(next.is_alone() && others.iter().all(|&(cid, _)| cid != next.cid()));
        // Behind the end it begins again, and passes over those too.
        contexts.last.store(*CIDS.end(), Ordering::Relaxed);
        let wrapped = contexts.allocate().unwrap();
        assert!(wrapped.cid() < *CIDS.end() && ![first.cid(), next.cid()].contains(&wrapped.cid()));
    }
}
