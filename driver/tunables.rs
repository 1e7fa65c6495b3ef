// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/gzvm`: what an administrator may see and set.

use crate::{
    device::Gzvm,
    kx::sysfs::Attribute,
    model::{
        tunables,
        version::Version, //
    }, //
};
use core::fmt::Write;
use kernel::sync::atomic::Relaxed;

/// The directory's files.
pub(crate) static ATTRIBUTES: [Attribute<Gzvm>; 3] = [
    Attribute {
        name: c"demand_paging_batch_pages",
        show: |gzvm, text| write!(text, "{}", gzvm.demand_pages()),
        store: Some(|gzvm, text| {
            gzvm.demand_batch.store(tunables::demand_batch(text)?, Relaxed);
            Ok(())
        }),
    },
    Attribute {
        name: c"destroy_batch_pages",
        show: |gzvm, text| write!(text, "{}", gzvm.destroy_pages()),
        store: Some(|gzvm, text| {
            gzvm.destroy_batch.store(tunables::destroy_batch(text)?, Relaxed);
            Ok(())
        }),
    },
    Attribute {
        name: c"hypervisor_version",
        show: |gzvm, text| {
            let Version { major, minor, sub } = gzvm.version;
            write!(text, "{major}.{minor}.{sub}")
        },
        store: None,
    },
];
