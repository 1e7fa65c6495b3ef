// SPDX-License-Identifier: Apache-2.0
//! Storms: many VMs at once, killed and starved, with nothing left behind.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use gzvm_abi::{reg, uapi};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{self, REPORT};
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, ioctl, ioctl_fd, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// VMs that exist, of all processes.
fn vms() -> Option<usize> {
    Some(fs::read_dir("/sys/kernel/debug/gzvm").ok()?.count())
}

/// Makes a VM and lets it touch its memory; stops at the first refusal.
fn life(ram: &Mapping, event: &Event) -> sys::Result<()> {
    let device = sys::open_device().map_err(|error| error.raw_os_error().unwrap_or(0))?;
    let vm = ioctl_fd(&device, uapi::CREATE_VM, 0)?;
    sys::set_region(&vm, 0, RAM, ram.size(), ram.address())?;
    for (dev_type, dev_addr) in [
        (uapi::DEV_TYPE_VGIC_V3_DIST, guest::GIC_DIST),
        (uapi::DEV_TYPE_VGIC_V3_REDIST, guest::gic_redist(2)),
    ] {
        let mut device = uapi::CreateDevice {
            dev_type,
            dev_addr,
            dev_reg_size: uapi::VGIC_REDIST_SIZE,
            ..Default::default()
        };
        ioctl(&vm, uapi::CREATE_DEVICE, &mut device)?;
    }
    let fd = u32::try_from(event.fd()).expect("descriptor");
    ioctl(&vm, uapi::IRQFD, &mut uapi::Irqfd { fd, gsi: 1, ..Default::default() })?;
    let mut ioeventfd = uapi::Ioeventfd {
        datamatch: 0,
        addr: 0x1000,
        len: 4,
        fd: event.fd(),
        flags: 0,
        pad: [0; 36],
    };
    ioctl(&vm, uapi::IOEVENTFD, &mut ioeventfd)?;
    let mut vcpu = Vcpu::new(&vm, 0)?;
    let _second = Vcpu::new(&vm, 1)?;
    for (id, value) in [(reg::PSTATE, 0x3c5), (reg::PC, RAM), (reg::x(20), REPORT)] {
        vcpu.set_reg(id, value)?;
    }
    for (index, value) in [RAM + PAGE, RAM + ram.size(), PAGE, 0].into_iter().enumerate() {
        vcpu.set_reg(reg::x(index as u64), value)?;
    }
    event.signal();
    vcpu.run().map(|_| ())
}

fn program() -> Mapping {
    let ram = Mapping::anonymous(4 * MIB);
    ram.load(0, guest::check_pages());
    ram
}

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
    let (ram, event) = (program(), Event::new());
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
        let result = life(&ram, &event);
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
    assert_eq!(life(&ram, &event), Ok(()), "a life without failures");
}

fn w20_storms_of_processes_leave_nothing() {
    let end = Instant::now() + Duration::from_secs(8);
    let mut children = Vec::new();
    let mut seed = 1u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    while Instant::now() < end {
        while children.len() < 6 {
            // SAFETY: the child makes VMs until it is killed, and touches nothing else.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                let (ram, event) = (program(), Event::new());
                loop {
                    let _ = life(&ram, &event);
                }
            }
            children.push(child);
        }
        std::thread::sleep(Duration::from_micros(random(40_000)));
        let victim = children.swap_remove(usize::try_from(random(6)).expect("index"));
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
    assert_eq!(life(&program(), &Event::new()), Ok(()), "a life after the storm");
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
