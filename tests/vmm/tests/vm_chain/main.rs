// SPDX-License-Identifier: Apache-2.0
//! All of the chain, as real processes over the kernel's binder: `vm`, virtmgr, the global service, the
//! VMM and its guest.

#![forbid(unsafe_code)]

#[path = "../chain/mod.rs"]
mod chain;
mod policy;
mod restarts;
mod together;
mod users;

use chain::services;
use gzvm_vmm_test::tests;
use policy::*;
use restarts::*;
use together::*;
use users::*;

fn main() {
    // What another user tries is tried by a process of that user.
    if let Some(attempt) = users::attempt() {
        std::process::exit(attempt);
    }
    if chain::is_strict() {
        tests![after services::end; protected_linux_and_a_second_vm];
    }
    tests![
        after services::end;
        protected_linux_and_a_second_vm,
        a_console_of_its_own,
        another_user_sees_nothing,
        who_has_no_permission_is_refused,
        a_user_has_own_vms,
        vms_outlive_the_service,
        context_ids_wrap,
        the_debug_policy_is_followed,
        clients_find_the_next_service,
        dead_clients_are_forgotten,
    ]
}
