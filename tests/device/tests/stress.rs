// SPDX-License-Identifier: Apache-2.0
//! Storms: many VMs at once, killed and starved, with nothing left behind.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gzvm_abi::uapi;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::life::{live, live_fully, memory, vms};
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::random::Random;
use gzvm_device_test::raw::pin_to_cpu;
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
    let end = Instant::now() + Duration::from_secs(8) * factor();
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

/// How much more than usual: `$GZVM_STRESS`, 1 if it is not set. For long runs by hand.
fn factor() -> u32 {
    let factor = std::env::var("GZVM_STRESS").ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).clamp(1, 10_000)
}

/// Asks for the module's end, which must not come while somebody has one of its files; answers the
/// errno.
fn unload() -> i32 {
    let (call, name) = (libc::SYS_delete_module, c"gzvm".as_ptr());
    // SAFETY: asks to unload the module, which this process keeps in use.
    let result = unsafe { libc::syscall(call, name, libc::O_NONBLOCK) };
    if result == 0 {
        0
    } else {
        sys::errno()
    }
}

fn w03_storms_on_all_cpus_while_the_module_is_to_go() {
    let open = sys::open_device().expect("/dev/gzvm");
    let pinned = status_field("VmPin");
    let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let storm = |cpu: usize| {
        pin_to_cpu(cpu);
        let (ram, event) = (memory(), Event::new());
        for round in 0..25 * factor() {
            let protect = round % 2 == 1;
            assert_eq!(live_fully(&ram, &event, protect), Ok(()), "CPU {cpu}, life {round}");
            event.take();
        }
    };
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    std::thread::scope(|scope| {
        let storms: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || storm(cpu))).collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Not a module here, or not allowed: nothing to prove.
                match unload() {
                    libc::EAGAIN | libc::EBUSY => asked.fetch_add(1, Ordering::Relaxed),
                    libc::ENOENT | libc::EPERM | libc::ENOSYS => return,
                    errno => panic!("unloading the module in use: {errno}"),
                };
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let results: Vec<_> = storms.into_iter().map(|storm| storm.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "a storm failed");
    });
    println!("{} attempts to unload", asked.into_inner());
    assert_eq!((vms().unwrap_or(0), status_field("VmPin")), (0, pinned));
    drop(open);
}

/// Number `which` of the orders of five things.
fn order(mut which: usize) -> [usize; 5] {
    let mut left = vec![0, 1, 2, 3, 4];
    [5, 4, 3, 2, 1].map(|count| {
        let index = which % count;
        which /= count;
        left.remove(index)
    })
}

fn w02_files_are_closed_in_all_orders() {
    for which in 0..120 {
        let machine = Machine::new(4 * MIB, guest::count());
        machine.add_gic(2);
        let event = Event::new();
        let fd = u32::try_from(event.fd()).expect("descriptor");
        let mut irqfd = uapi::Irqfd { fd, gsi: 3, ..Default::default() };
        assert_eq!(sys::ioctl(&machine.vm, uapi::IRQFD, &mut irqfd), Ok(0));
        let mut first = machine.boot_vcpu(&[0]);
        let second = machine.vcpu(1);
        assert_eq!(first.report(), 0);
        let Machine { device, vm, ram } = machine;
        let mut files: [Option<Box<dyn std::any::Any>>; 5] = [
            Some(Box::new(device)),
            Some(Box::new(vm)),
            Some(Box::new(first.fd)),
            Some(Box::new(second.fd)),
            Some(Box::new(event)),
        ];
        for index in order(which) {
            files[index] = None;
            if let Some(event) = files[4].as_ref().and_then(|file| file.downcast_ref::<Event>()) {
                // Interrupts come until the end.
                event.signal();
            }
        }
        drop(ram);
    }
    assert_eq!(vms().unwrap_or(0), 0);
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
            w02_files_are_closed_in_all_orders,
            w20_storms_of_processes_leave_nothing,
            w27_failing_allocations_leave_nothing,
        ],
        Needs::Protected => [w03_storms_on_all_cpus_while_the_module_is_to_go],
    ]
}
