// SPDX-License-Identifier: Apache-2.0
//! Who keeps whom alive: files closed in any order, processes killed, modules unloaded.

use std::time::Duration;

use gzvm_abi::uapi;
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, ioctl_fd};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;

/// Directories in debugfs: one for each VM of this process.
fn vms_in_debugfs() -> Option<usize> {
    let prefix = format!("{}-", std::process::id());
    let dir = std::fs::read_dir("/sys/kernel/debug/gzvm").ok()?;
    let of_us = |name: std::ffi::OsString| name.to_string_lossy().starts_with(&prefix);
    Some(dir.filter_map(Result::ok).filter(|entry| of_us(entry.file_name())).count())
}

fn w27_vm_ids_are_given_back() {
    let device = sys::open_device().expect("/dev/gzvm");
    // More than any hypervisor has room for at once.
    for round in 0..3000 {
        let vm = ioctl_fd(&device, uapi::CREATE_VM, 0);
        assert!(vm.is_ok(), "VM number {round}: errno {vm:?}");
    }
}

fn vms_side_by_side_have_their_own_memory() {
    let mut guests: Vec<_> = (0..4)
        .map(|index| {
            let machine = Machine::new(4 * MIB, guest::poke());
            let vcpu = machine.boot_vcpu(&[0, 100 + index]);
            (machine, vcpu)
        })
        .collect();
    for _ in 0..2 {
        for (machine, vcpu) in &mut guests {
            machine.ram.read(0);
            vcpu.answer_next_read(RAM + 2 * MIB);
            vcpu.report();
        }
    }
    for (index, (machine, _)) in guests.iter().enumerate() {
        assert_eq!(machine.ram.read(2 * MIB), 100 + index as u64);
    }
}

fn w02_a_vcpu_keeps_its_vm() {
    let machine = Machine::new(4 * MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    assert_eq!(vcpu.report(), 0);
    let Machine { device, vm, ram } = machine;
    drop(vm);
    drop(device);
    for expected in 1..50 {
        assert_eq!(vcpu.report(), expected);
    }
    if let Some(vms) = vms_in_debugfs() {
        assert_eq!(vms, 1);
    }
    drop(vcpu);
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
    drop(ram);
}

fn w02_files_are_closed_in_any_order() {
    for order in 0..6 {
        let machine = Machine::new(4 * MIB, guest::count());
        machine.add_gic(2);
        let mut first = machine.boot_vcpu(&[0]);
        let second = machine.vcpu(1);
        first.report();
        let Machine { device, vm, ram: _ram } = machine;
        let mut files: [Option<std::os::fd::OwnedFd>; 3] =
            [Some(vm), Some(first.fd), Some(second.fd)];
        drop(device);
        for position in [order % 3, (order + 1 + order / 3) % 3, (order + 2 - order / 3) % 3] {
            files[position] = None;
        }
    }
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
}

fn memory_may_go_before_the_vm() {
    let machine = Machine::new(4 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, 7]);
    vcpu.answer_next_read(RAM + MIB);
    vcpu.report();
    let Machine { device: _device, vm: _vm, ram } = machine;
    drop(ram);
    // The guest keeps the pages, which stay pinned.
    vcpu.answer_next_read(RAM + MIB);
    assert_eq!(vcpu.report(), 7);
}

fn a_process_killed_while_running_leaves_nothing() {
    for round in 0..20u64 {
        // SAFETY: the child runs a guest until it is killed, and touches nothing else.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let machine = Machine::new(16 * MIB, guest::check_pages());
            let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + 16 * MIB, PAGE, 0]);
            loop {
                let _ = vcpu.run();
            }
        }
        std::thread::sleep(Duration::from_micros(1500 * round));
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!(sys::wait_for(child), -libc::SIGKILL);
    }
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
}

fn w03_the_module_stays_while_files_are_open() {
    let unload = || {
        // SAFETY: asks to unload the module; this process keeps using it only if that fails.
        let result =
            unsafe { libc::syscall(libc::SYS_delete_module, c"gzvm".as_ptr(), libc::O_NONBLOCK) };
        if result == 0 {
            Ok(())
        } else {
            Err(sys::errno())
        }
    };
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    // Not a module here, or not allowed: nothing to prove.
    if matches!(unload(), Err(libc::ENOENT | libc::EPERM | libc::ENOSYS)) {
        return;
    }
    assert_eq!(unload(), Err(libc::EAGAIN), "all files open");
    let Machine { device, vm, ram: _ram } = machine;
    drop(device);
    assert_eq!(unload(), Err(libc::EAGAIN), "VM and vCPU open");
    drop(vm);
    assert_eq!(unload(), Err(libc::EAGAIN), "vCPU open");
    assert_eq!(vcpu.report(), 0, "the guest runs");
}

fn main() {
    tests![
        Needs::Device => [
            w27_vm_ids_are_given_back,
            vms_side_by_side_have_their_own_memory,
            w02_a_vcpu_keeps_its_vm,
            w02_files_are_closed_in_any_order,
            memory_may_go_before_the_vm,
            a_process_killed_while_running_leaves_nothing,
            w03_the_module_stays_while_files_are_open,
        ],
    ]
}
