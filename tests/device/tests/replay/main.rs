// SPDX-License-Identifier: Apache-2.0
//! Known clients, step by step: their order of calls, their structures, their oddities.

mod client;
mod crosvm;
mod qemu;

use crosvm::{
    crosvm_adds_and_removes_regions, crosvm_asks_for_the_firmware,
    crosvm_boots_and_takes_interrupts, crosvm_kicks_its_vcpus,
};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::tests;
use qemu::{qemu_protects_its_vm, qemu_runs_until_the_guest_s_reset};

fn main() {
    tests![
        Needs::Device => [
            crosvm_boots_and_takes_interrupts,
            crosvm_adds_and_removes_regions,
            crosvm_kicks_its_vcpus,
            crosvm_asks_for_the_firmware,
            qemu_runs_until_the_guest_s_reset,
        ],
        Needs::Protected => [qemu_protects_its_vm],
    ]
}
