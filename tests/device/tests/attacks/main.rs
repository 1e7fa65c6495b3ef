// SPDX-License-Identifier: Apache-2.0
//! Attacks on guests and on the hypervisor, by a hostile host kernel (the test module) and by
//! hostile guests. Each attack is also made where nothing stands against it, so that it is known to
//! be one. A table at the end says what was tried and what came of it.
//!
//! Out of scope: devices that write to memory by themselves (there is no SMMU), and side channels.

mod access;
mod buffers;
mod fuzz;
mod hostile_guest;
mod ids;
mod races;
mod stale;
mod victim;

use access::{accesses_to_the_hypervisor, reads_of_a_private_page, writes_to_a_private_page};
use buffers::{
    a_private_page_given_to_a_second_vm, one_page_given_twice,
    pages_in_use_by_the_hypervisor_given_to_a_vm, ranges_that_overflow,
    the_hypervisor_s_memory_given_to_a_vm,
};
use fuzz::{
    calls_of_nobody_are_unknown, hypercalls_at_random, the_tables_of_one_vm_are_limited,
    vcpus_and_regions_run_out, vms_run_out_and_come_back,
};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::{attack, tests};
use hostile_guest::{
    a_guarded_guest_does_not_reach_the_host, a_guest_in_aarch32_state,
    a_guest_that_gives_everything_back, accesses_that_cannot_be_emulated,
    another_vm_s_memory_by_its_physical_address, cache_maintenance_anywhere,
    floods_of_random_calls, sharing_of_what_is_not_the_guest_s,
};
use ids::{
    calls_on_a_running_vcpu, dying_vms_do_nothing_more, forged_ids_are_refused,
    one_vcpu_on_two_cpus_at_once,
};
use races::{
    a_forged_run_page_changes_nothing_but_the_answer, a_list_that_changes_between_slices,
    a_list_that_changes_during_the_call, a_mailbox_that_changes_during_the_call,
    a_run_page_that_changes_while_the_guest_runs, one_page_raced_for_by_two_vms,
};
use stale::{no_translation_outlives_the_guest, stale_translations_of_a_donated_page};

fn main() {
    tests![
        after attack::print_table;
        Needs::Device => [
            accesses_that_cannot_be_emulated,
            cache_maintenance_anywhere,
        ],
        Needs::Protected => [
            floods_of_random_calls,
            sharing_of_what_is_not_the_guest_s,
            a_guest_that_gives_everything_back,
            a_guest_in_aarch32_state,
            a_guarded_guest_does_not_reach_the_host,
        ],
        Needs::Raw => [
            accesses_to_the_hypervisor,
            ranges_that_overflow,
            one_vcpu_on_two_cpus_at_once,
            calls_on_a_running_vcpu,
            calls_of_nobody_are_unknown,
            vms_run_out_and_come_back,
            vcpus_and_regions_run_out,
        ],
        Needs::RawProtected => [
            reads_of_a_private_page,
            writes_to_a_private_page,
            a_private_page_given_to_a_second_vm,
            the_hypervisor_s_memory_given_to_a_vm,
            one_page_given_twice,
            pages_in_use_by_the_hypervisor_given_to_a_vm,
            stale_translations_of_a_donated_page,
            no_translation_outlives_the_guest,
            forged_ids_are_refused,
            dying_vms_do_nothing_more,
            a_mailbox_that_changes_during_the_call,
            a_list_that_changes_during_the_call,
            a_list_that_changes_between_slices,
            a_forged_run_page_changes_nothing_but_the_answer,
            a_run_page_that_changes_while_the_guest_runs,
            one_page_raced_for_by_two_vms,
            another_vm_s_memory_by_its_physical_address,
            hypercalls_at_random,
            the_tables_of_one_vm_are_limited,
        ],
    ]
}
