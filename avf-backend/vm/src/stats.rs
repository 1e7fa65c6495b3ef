// SPDX-License-Identifier: Apache-2.0
//! What services tell this user about VMs, for `vm stats`.

use binder::Strong;
use com_android_gzvm::aidl::com::android::gzvm::{
    GzvmVmStats::GzvmVmStats, IGzvmBackend::IGzvmBackend, IGzvmRegistry::IGzvmRegistry,
};
use gzvm_ctl::Served;
use std::iter;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// The name of the registry of services.
const REGISTRY: &str = "com.android.gzvm";
/// How long a service may take. One that is stopped never answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of them; none where there is no global service. VMs may end meanwhile, and services with them.
pub fn served() -> Vec<Served> {
    let backends = binder::connect_kernel().ok().and_then(|()| {
        let registry = binder::check_interface::<dyn IGzvmRegistry>(REGISTRY).ok()?;
        registry.getBackends().ok()
    });
    let asked = backends.unwrap_or_default().into_iter().map(|backend| move || vms(&backend));
    let (answers, missing) = ask_all(asked.collect(), PATIENCE);
    if missing != 0 {
        log::warn!("{missing} services do not answer: what they know of their VMs is missing");
    }
    answers.into_iter().flatten().collect()
}

/// Asks all at the same time; what they answer, and how many do not in time.
fn ask_all<T: Send + 'static>(
    all: Vec<impl FnOnce() -> T + Send + 'static>,
    patience: Duration,
) -> (Vec<T>, usize) {
    let deadline = Instant::now() + patience;
    let (sender, receiver) = channel();
    let asked = all.len();
    for ask in all {
        let sender = sender.clone();
        // Nobody waits for one that comes too late.
        thread::spawn(move || drop(sender.send(ask())));
    }
    let next = || receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
    let answers: Vec<_> = iter::from_fn(next).take(asked).collect();
    let missing = asked - answers.len();
    (answers, missing)
}

/// Those of one service.
fn vms(backend: &Strong<dyn IGzvmBackend>) -> Vec<Served> {
    let cids = backend.listVms().unwrap_or_default();
    let stats = cids.into_iter().filter_map(|cid| backend.getVmStats(cid).ok());
    stats.filter_map(|stats| served_vm(&stats)).collect()
}

fn served_vm(stats: &GzvmVmStats) -> Option<Served> {
    Some(Served {
        pid: stats.pid,
        resident: u64::try_from(stats.residentBytes).ok()?,
        guest_ns: u64::try_from(stats.guestTimeNanos).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn nobody_waits_for_a_service_that_is_stopped() {
        static STOPPED: Mutex<()> = Mutex::new(());
        let stopped = STOPPED.lock().unwrap();
        let ask = |number: usize| {
            move || {
                let _wait = (number == 1).then(|| STOPPED.lock());
                number
            }
        };
        assert_eq!(ask_all(vec![ask(1)], Duration::ZERO), (vec![], 1));
        drop(stopped);
        let (mut answers, missing) = ask_all(vec![ask(1), ask(2)], Duration::from_secs(600));
        answers.sort_unstable();
        assert_eq!((answers, missing), (vec![1, 2], 0));
    }
}
