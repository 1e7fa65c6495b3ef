// SPDX-License-Identifier: Apache-2.0
//! `IGzvmRegistry`: where the backends of all users are found.

use binder::{
    DeathRecipient, ExceptionCode, Exceptions, IBinder, Interface, Status, Strong, ThreadState,
};
use com_android_gzvm::aidl::com::android::gzvm::{
    IGzvmBackend::IGzvmBackend, IGzvmRegistry::IGzvmRegistry,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ROOT: u32 = 0;

/// The object.
#[derive(Default)]
pub struct Registry(Arc<Mutex<Backends>>);

#[derive(Default)]
struct Backends {
    next: u64,
    all: BTreeMap<u64, Backend>,
}

struct Backend {
    uid: u32,
    object: Strong<dyn IGzvmBackend>,
    /// Takes this entry away when the process is gone.
    _death: DeathRecipient,
}

impl Interface for Registry {}

fn lock(backends: &Mutex<Backends>) -> MutexGuard<'_, Backends> {
    backends.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IGzvmRegistry for Registry {
    fn addBackend(&self, backend: &Strong<dyn IGzvmBackend>) -> binder::Result<()> {
        let uid = ThreadState::get_calling_uid();
        let mut backends = lock(&self.0);
        let id = backends.next;
        let weak = Arc::downgrade(&self.0);
        let mut death = DeathRecipient::new(move || {
            // Dropped without the lock: giving a reference back is a call of its own.
            let gone = weak.upgrade().and_then(|backends| lock(&backends).all.remove(&id));
            drop(gone);
        });
        backend.as_binder().link_to_death(&mut death).map_err(|e| {
            let text = format!("the backend is none, or is gone: {e}");
            Status::from((ExceptionCode::ILLEGAL_ARGUMENT, text.as_str()))
        })?;
        backends.next += 1;
        backends.all.insert(id, Backend { uid, object: backend.clone(), _death: death });
        Ok(())
    }

    fn getBackends(&self) -> binder::Result<Vec<Strong<dyn IGzvmBackend>>> {
        let uid = ThreadState::get_calling_uid();
        let backends = lock(&self.0);
        let theirs = backends.all.values().filter(|backend| uid == ROOT || uid == backend.uid);
        Ok(theirs.map(|backend| backend.object.clone()).collect())
    }
}
