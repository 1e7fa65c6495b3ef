// SPDX-License-Identifier: Apache-2.0
//! What services tell this user about VMs, for `vm stats`.

use binder::Strong;
use com_android_gzvm::aidl::com::android::gzvm::{
    GzvmVmStats::GzvmVmStats, IGzvmBackend::IGzvmBackend, IGzvmRegistry::IGzvmRegistry,
};
use gzvm_ctl::Served;

/// The name of the registry of services.
const REGISTRY: &str = "com.android.gzvm";

/// All of them; none where there is no global service. VMs may end meanwhile, and services with them.
pub fn served() -> Vec<Served> {
    let backends = binder::connect_kernel().ok().and_then(|()| {
        let registry = binder::check_interface::<dyn IGzvmRegistry>(REGISTRY).ok()?;
        registry.getBackends().ok()
    });
    backends.unwrap_or_default().iter().flat_map(vms).collect()
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
