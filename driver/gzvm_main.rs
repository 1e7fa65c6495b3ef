// SPDX-License-Identifier: GPL-2.0

//! GenieZone (gzvm): virtual machines under MediaTek's hypervisor, behind `/dev/gzvm`.
//!
//! This file only says what the module consists of. `abi` and `model` are shared with user-space
//! builds; `kx` is the only place with unsafe code.
//!
//! References are owned and point one way: vCPU file, VM, hypervisor (`device::Gzvm`), module.

#[path = "abi/src/mod.rs"]
#[expect(unreachable_pub, dead_code, reason = "also a Cargo crate")]
#[forbid(unsafe_code)]
mod abi;
#[path = "model/mod.rs"]
#[expect(unreachable_pub, reason = "also a Cargo crate")]
mod model;

mod kx;

#[forbid(unsafe_code)]
mod backing;
#[forbid(unsafe_code)]
mod debug;
#[forbid(unsafe_code)]
mod device;
#[forbid(unsafe_code)]
mod hyp;
#[forbid(unsafe_code)]
mod ioeventfd;
#[forbid(unsafe_code)]
mod irqfd;
#[forbid(unsafe_code)]
mod machine;
#[forbid(unsafe_code)]
mod mapping;
#[forbid(unsafe_code)]
mod memory;
#[forbid(unsafe_code)]
mod pages;
#[forbid(unsafe_code)]
mod record;
#[forbid(unsafe_code)]
mod registry;
#[forbid(unsafe_code)]
mod stats;
#[forbid(unsafe_code)]
mod store;
#[forbid(unsafe_code)]
mod tunables;
#[forbid(unsafe_code)]
mod uio;
#[forbid(unsafe_code)]
mod unmapping;
#[forbid(unsafe_code)]
mod vcpu;
#[forbid(unsafe_code)]
mod vm;
#[forbid(unsafe_code)]
mod wake;
#[forbid(unsafe_code)]
mod watching;

use kernel::prelude::*;
use kx::module::PlatformModule;

module! {
    type: PlatformModule,
    name: "gzvm",
    authors: ["The gzvm authors"],
    description: "Virtual machines under the GenieZone hypervisor",
    license: "GPL",
}
