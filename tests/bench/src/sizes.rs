// SPDX-License-Identifier: Apache-2.0
//! B8 and B11: what a VM occupies, and what it does while it does nothing.

use std::fs;
use std::thread;
use std::time::Duration;

use gzvm_device_test::guest;
use gzvm_device_test::life::kept_by_cpus;
use gzvm_device_test::machine::{Machine, Vcpu, RAM};

use crate::cpus::Runner;
use crate::guests;
use crate::memory::Backing;
use crate::window::{Report, Row};

const MIB: u64 = 1 << 20;
/// VMs that are made to see what one occupies.
const VMS: usize = 48;
/// How long idle VMs are watched.
const IDLE_SECONDS: u64 = 10;

/// B8.
pub fn occupied(report: &mut Report) {
    per_vm(report);
    per_gib(report);
}

/// B11.
pub fn idle(report: &mut Report) {
    for count in [1, 2, 4, 8, 16, 32, 64] {
        watch(report, count, "with no timer", guest::wait());
    }
    watch(report, 8, "with a timer of 100 Hz", guests::ticker());
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {name} in /proc/meminfo")) * 1024
}

/// Has the kernel free what it frees later, and add up what each CPU counted for itself.
fn settle() {
    thread::sleep(Duration::from_millis(200));
    fs::write("/proc/sys/vm/stat_refresh", "1").expect("/proc/sys/vm/stat_refresh");
}

/// Bytes that nobody has, those included that CPUs keep for later use.
fn free() -> u64 {
    settle();
    meminfo("MemFree") + kept_by_cpus() * 1024
}

fn per_vm(report: &mut Report) {
    let make = || Machine::bare(Backing::Absent.mapping(2 * MIB));
    // What is made lazily is there afterwards.
    drop(make());
    let memories: Vec<_> = (0..VMS).map(|_| Backing::Absent.mapping(2 * MIB)).collect();
    let before = free();
    let machines: Vec<_> = memories.into_iter().map(Machine::bare).collect();
    let with_vms = free();
    report.value("B8", "kernel memory per VM", each(before, with_vms), "bytes");
    let vcpus: Vec<Vcpu> = machines.iter().map(|machine| machine.vcpu(0)).collect();
    report.value("B8", "kernel memory per vCPU", each(with_vms, free()), "bytes");
    if let Some(bytes) = driver_says("protected_hyp_mem") {
        report.value("B8", "hypervisor memory per empty VM", bytes, "bytes");
    }
    drop(vcpus);
}

fn each(before: u64, after: u64) -> u64 {
    before.saturating_sub(after) / VMS as u64
}

/// The first word of a debugfs file of the first VM there, if the driver has such a file.
fn driver_says(file: &str) -> Option<u64> {
    let vm = fs::read_dir("/sys/kernel/debug/gzvm").ok()?.next()?.ok()?.path();
    fs::read_to_string(vm.join(file)).ok()?.split_whitespace().next()?.parse().ok()
}

/// A field of the driver's debugfs file `vm_stats`.
pub fn vm_stat(name: &str) -> Option<u64> {
    let vm = fs::read_dir("/sys/kernel/debug/gzvm").ok()?.next()?.ok()?.path();
    let text = fs::read_to_string(vm.join("vm_stats")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.trim().parse().ok()
}

fn per_gib(report: &mut Report) {
    const SIZE: u64 = 256 * MIB;
    for (backing, how) in [
        (Backing::Huge, "huge pages"),
        (Backing::InOrder, "4 KiB pages in order"),
        (Backing::Scattered, "scattered 4 KiB pages"),
    ] {
        let machine = Machine::bare(backing.mapping(SIZE));
        machine.ram.load(0, guests::touch());
        machine.add_ram().expect("memory slot");
        let mut vcpu = machine.boot_vcpu(&[RAM, RAM + SIZE, 2 * MIB]);
        vcpu.report();
        if let Some(bytes) = vm_stat("record_bytes") {
            let what = format!("records of the driver per GiB of guest memory, {how}");
            report.value("B8", &what, bytes * (1024 * MIB / SIZE), "bytes");
        }
        if let Some(bytes) = driver_says("protected_hyp_mem") {
            let what = format!("hypervisor memory of a VM with 256 MiB, {how}");
            report.value("B8", &what, bytes, "bytes");
        }
    }
}

/// So many VMs that do nothing but wait.
fn watch(report: &mut Report, count: usize, how: &str, program: &[u8]) {
    let before = free();
    let machines: Vec<_> = (0..count).map(|_| Machine::new(2 * MIB, program)).collect();
    let runners: Vec<_> = machines
        .iter()
        .map(|machine| {
            let mut vcpu = machine.boot_vcpu(&[guest::counter_hz() / 100]);
            vcpu.report();
            Runner::start(vcpu, None)
        })
        .collect();
    // Until all of them sleep.
    thread::sleep(Duration::from_secs(1));
    let what = format!("a second of an idle VM {how}, {count} of them");
    report.twice(Row::new("B11", &what, IDLE_SECONDS * count as u64), || {
        thread::sleep(Duration::from_secs(IDLE_SECONDS));
    });
    let used = (before.saturating_sub(free()) / count as u64).saturating_sub(2 * MIB);
    let what = format!("memory per idle VM {how} and its thread, {count} of them");
    report.value("B11", &what, used, "bytes");
    runners.into_iter().for_each(Runner::stop);
}
