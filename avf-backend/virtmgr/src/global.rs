// SPDX-License-Identifier: Apache-2.0
//! The global service, for as long as this process lives: when the service's process has ended, the
//! next call looks for the one that came in its place.

use crate::errors::failed;
use anyhow::anyhow;
use avf_aidl::aidl::virtualizationservice_internal::{
    AtomVmExited::AtomVmExited, IVirtualizationServiceInternal::IVirtualizationServiceInternal,
};
use binder::{DeathRecipient, ExceptionCode, Exceptions, IBinder, Interface, Status};
use binder::{ProcessState, StatusCode, StatusCodes, Strong};
use com_android_gzvm::aidl::com::android::gzvm::{
    IGzvmBackend::IGzvmBackend, IGzvmRegistry::IGzvmRegistry,
};
use std::fmt;
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The global service's name.
const SERVICE: &str = "android.system.virtualizationservice";
/// That of its registry of backends.
const REGISTRY: &str = "com.android.gzvm";
/// Between two looks for a service manager that has gone.
const INTERVAL: Duration = Duration::from_secs(1);

type Service = Strong<dyn IVirtualizationServiceInternal>;
type Backend = Strong<dyn IGzvmBackend>;

/// The service.
#[derive(Clone)]
pub struct Global {
    service: Arc<Mutex<Service>>,
    uid: u32,
}

impl fmt::Debug for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Global")
    }
}

impl Global {
    /// The service that is there now, or why there is none; `uid` is the user whose VMs it is told
    /// about.
    pub fn find(uid: u32) -> Result<Self, String> {
        binder::connect_kernel()?;
        ProcessState::start_thread_pool();
        let service = check().map_err(|e| format!("no {SERVICE}: {e}"))?;
        Ok(Self { service: Arc::new(Mutex::new(service)), uid })
    }

    /// Calls it.
    pub fn ask<T>(&self, call: impl Fn(&Service) -> binder::Result<T>) -> binder::Result<T> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match call(&service) {
            Err(e) if is_gone(&e) => {}
            answer => return answer,
        }
        service = check().map_err(|e| {
            failed(&anyhow!("the global service has ended, and there is no other {SERVICE}: {e}"))
        })?;
        self.service.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&service);
        call(&service)
    }

    /// The user whose VMs it is told about.
    pub fn uid(&self) -> i32 {
        i32::try_from(self.uid).unwrap_or(i32::MAX)
    }

    /// Statistics are nobody's business to wait for, or to fail for.
    pub fn report(&self, tell: impl Fn(&Service) -> binder::Result<()>) {
        if let Err(e) = self.ask(tell) {
            log::info!("the global service is not told: {e}");
        }
    }

    /// Statistics with the user's id filled in.
    pub fn atom_vm_exited(&self) -> AtomVmExited {
        AtomVmExited { uid: self.uid(), ..Default::default() }
    }
}

fn check() -> Result<Service, StatusCode> {
    binder::check_interface(SERVICE)
}

fn is_gone(status: &Status) -> bool {
    status.exception_code() == ExceptionCode::TRANSACTION_FAILED
        && status.transaction_error() == StatusCode::DEAD_OBJECT
}

/// Has this process's backend found in the service's registry, also in that of a service that comes
/// later. Android's own service has none.
pub fn offer(backend: Backend) {
    let Ok(registry) = binder::check_interface(REGISTRY) else { return };
    let mut registered = register(registry, &backend);
    thread::spawn(move || loop {
        let Some(Registered { gone, _registry, _recipient }) = registered else { return };
        // The sender is the recipient's: it comes, or the registry's process lives on.
        let _ = gone.recv();
        registered = register(wait(), &backend);
    });
}

struct Registered {
    /// Something comes when the registry's process is gone.
    gone: Receiver<()>,
    /// Nobody is told of the end of what nobody refers to.
    _registry: Strong<dyn IGzvmRegistry>,
    _recipient: DeathRecipient,
}

/// The next registry.
fn wait() -> Strong<dyn IGzvmRegistry> {
    loop {
        match binder::wait_for_interface(REGISTRY) {
            Ok(registry) => return registry,
            // There is no service manager either.
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

fn register(registry: Strong<dyn IGzvmRegistry>, backend: &Backend) -> Option<Registered> {
    let (sender, gone) = channel();
    let dead = sender.clone();
    let mut recipient = DeathRecipient::new(move || {
        // Who does not wait any more need not know.
        let _ = dead.send(());
    });
    let told = registry.as_binder().link_to_death(&mut recipient).map_err(Status::from);
    match told.and_then(|()| registry.addBackend(backend)) {
        Ok(()) => {}
        Err(e) if is_gone(&e) => drop(sender.send(())),
        Err(e) => {
            log::warn!("statistics of these VMs will not be found: {e}");
            return None;
        }
    }
    Some(Registered { gone, _registry: registry, _recipient: recipient })
}
