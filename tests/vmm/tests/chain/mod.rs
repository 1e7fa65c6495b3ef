// SPDX-License-Identifier: Apache-2.0
//! All of the chain, as real processes over the kernel's binder: `vm`, virtmgr, the global service and
//! the VMM. Each test program uses a part of it.

#![allow(dead_code)]

pub mod inventory;
pub mod run;
pub mod services;

/// Whether the hypervisor is the strict one. Services do not see what it offers: one test of a kind is
/// enough there.
pub fn is_strict() -> bool {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "refhyp.strict")
}
