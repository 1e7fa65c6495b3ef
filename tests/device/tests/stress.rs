// SPDX-License-Identifier: Apache-2.0
//! Storms: many VMs at once, killed and starved, with nothing left behind.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::life::{live, memory, vms};
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::random::Random;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
const FAILSLAB: &str = "/sys/kernel/debug/failslab";

fn w27_failing_allocations_leave_nothing() {
    let set = |name: &str, value: &str| fs::write(format!("{FAILSLAB}/{name}"), value);
    // Opened before, because opening allocates.
    let Ok(switch) = fs::File::options().write(true).open("/proc/self/make-it-fail") else {
        return;
    };
    let may_fail = |value: &str| while switch.write_at(value.as_bytes(), 0).is_err() {};
    if set("task-filter", "Y").is_err() {
        return;
    }
    let (ram, event) = (memory(), Event::new());
    let pinned = status_field("VmPin");
    for (name, value) in [
        ("ignore-gfp-wait", "N"),
        ("probability", "3"),
        ("interval", "1"),
        ("times", "-1"),
        ("verbose", "0"),
    ] {
        set(name, value).expect(name);
    }
    let (mut failed, mut lived) = (0, 0);
    for _ in 0..400 {
        may_fail("1");
        let result = live(&ram, &event);
        // What is closed while allocations fail must be closed all the same.
        may_fail("0");
        match result {
            Ok(()) => lived += 1,
            Err(_) => failed += 1,
        }
    }
    set("probability", "0").expect("probability");
    assert!(failed > 20, "{failed} lives failed, {lived} did not");
    assert_eq!(vms().unwrap_or(0), 0);
    assert_eq!(status_field("VmPin"), pinned);
    assert_eq!(live(&ram, &event), Ok(()), "a life without failures");
}

fn w20_storms_of_processes_leave_nothing() {
    let end = Instant::now() + Duration::from_secs(8);
    let mut children = Vec::new();
    let mut random = Random::new(1);
    while Instant::now() < end {
        while children.len() < 6 {
            // SAFETY: the child makes VMs until it is killed, and touches nothing else.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let (ram, event) = (memory(), Event::new());
                loop {
                    let _ = live(&ram, &event);
                }
            }
            children.push(child);
        }
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        let victim = children.swap_remove(usize::try_from(random.below(6)).expect("index"));
        // SAFETY: our own child.
        unsafe { libc::kill(victim, libc::SIGKILL) };
        sys::wait_for(victim);
    }
    for victim in children {
        // SAFETY: our own child.
        unsafe { libc::kill(victim, libc::SIGKILL) };
        sys::wait_for(victim);
    }
    assert_eq!(vms().unwrap_or(0), 0);
    assert_eq!(live(&memory(), &Event::new()), Ok(()), "a life after the storm");
}

fn vcpus_fault_in_parallel() {
    // Two vCPUs touch the same memory in opposite halves of it, then all of it.
    let machine = Machine::new(32 * MIB, guest::check_pages());
    for offset in (PAGE..32 * MIB).step_by(PAGE as usize) {
        machine.ram.write(offset, RAM + offset);
    }
    let mut first = machine.boot_vcpu(&[RAM + PAGE, RAM + 32 * MIB, PAGE, 0]);
    let others: Vec<_> = (0..3).map(|_| Machine::new(8 * MIB, guest::check_pages())).collect();
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| {
                let mut vcpu = other.boot_vcpu(&[RAM + PAGE, RAM + 8 * MIB, PAGE, RAM]);
                // Fresh memory is zeros: every page but those of address RAM is wrong.
                assert_eq!(vcpu.report(), 8 * MIB / PAGE - 1);
            });
        }
        assert_eq!(first.report(), 0);
    });
}

fn main() {
    tests![
        Needs::Device => [
            vcpus_fault_in_parallel,
            w20_storms_of_processes_leave_nothing,
            w27_failing_allocations_leave_nothing,
        ],
    ]
}
