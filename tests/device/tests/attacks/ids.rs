// SPDX-License-Identifier: Apache-2.0
//! Ids that are not the caller's to use: of no VM, of one that is gone, of one that is dying.

use gzvm_abi::{cap, hvc, reg, run};
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest;
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::raw::{pin_to_cpu, Raw};
use gzvm_device_test::rawvm::{RawVm, GFN};

/// Calls on a VM that has a region and vCPU 0, each good for once, in an order that works; x1 is
/// the VM's id, or with `true` the vCPU's.
fn calls(page: u64) -> Vec<(&'static str, u32, bool, Vec<u64>)> {
    vec![
        ("SET_ONE_REG", hvc::SET_ONE_REG, true, vec![reg::x(3), 7]),
        ("IRQ_LINE", hvc::IRQ_LINE, true, vec![1, 1]),
        ("INFORM_EXIT", hvc::INFORM_EXIT, false, vec![]),
        ("GET_STATISTICS", hvc::GET_STATISTICS, false, vec![]),
        ("MEMREGION_PURPOSE", hvc::MEMREGION_PURPOSE, false, vec![GFN * PAGE * 2, PAGE, 1]),
        ("SET_DTB_CONFIG", hvc::SET_DTB_CONFIG, false, vec![GFN * PAGE, 64]),
        ("MAP_GUEST", hvc::MAP_GUEST, false, vec![0, page, GFN, 1]),
        ("ENABLE_CAP idle", hvc::ENABLE_CAP, false, vec![cap::ENABLE_IDLE]),
        ("ENABLE_CAP protect", hvc::ENABLE_CAP, false, vec![cap::PROTECTED_VM, 2]),
        ("RUN", hvc::RUN, true, vec![]),
        ("DESTROY_VCPU", hvc::DESTROY_VCPU, true, vec![]),
    ]
}

/// All calls with a forged x1.
fn forge(raw: &Raw, page: u64, vm: u64, vcpu: u64, why: &str) {
    for (name, function, of_vcpu, arguments) in calls(page) {
        let mut all = vec![if of_vcpu { vcpu } else { vm }];
        all.extend(arguments);
        let status = raw.status(function, &all);
        assert_ne!(status, hvc::ERR_BUSY, "{name}: {why}");
        attempt("call with a forged id", Got::of_status(status));
    }
}

pub fn forged_ids_are_refused() {
    let raw = Raw::get();
    let (page, vcpu) = (raw.alloc(PAGE), raw.alloc(2 * PAGE));
    page.mapping.load(0, guest::count());
    let gone = RawVm::with_region(&raw, 4);
    gone.destroy();
    let vm = RawVm::with_region(&raw, 4);
    vm.boot_vcpu(&vcpu, &[]);
    for id in [0, 0xffff, gone.id, vm.id ^ 0x4000] {
        forge(&raw, page.pfn(), u64::from(id), hvc::tuple(id, 0), "no such VM");
    }
    // Bits above an id of a VM count, in contrast to those above the two ids of a vCPU.
    for (function, of_vcpu) in
        calls(0).iter().map(|(_, function, of_vcpu, _)| (*function, *of_vcpu))
    {
        if !of_vcpu {
            let status = raw.status(function, &[vm.arg() | 1 << 16, GFN * PAGE, 64]);
            attempt("call with a forged id", Got::of_status(status));
        }
    }
    for index in [1, 15, 16, 64, 0x8000, 0xffff] {
        for function in [hvc::RUN, hvc::DESTROY_VCPU, hvc::SET_ONE_REG] {
            let arguments = [hvc::tuple(vm.id, index), reg::x(0), 1];
            attempt("call with a forged id", Got::of_status(raw.status(function, &arguments)));
        }
    }
    assert_ne!(vm.create_vcpu(16, vcpu.pa), 0);
    for (name, function, of_vcpu, arguments) in calls(page.pfn()) {
        let mut all = vec![if of_vcpu { vm.vcpu_arg(0) } else { vm.arg() }];
        all.extend(arguments);
        assert_eq!(raw.status(function, &all), 0, "{name} with the right id");
        control("call with a forged id", Got::Through);
    }
}

pub fn dying_vms_do_nothing_more() {
    let raw = Raw::get();
    let (pages, vcpu) = (raw.alloc(256 * PAGE), raw.alloc(2 * PAGE));
    pages.mapping.load(0, guest::count());
    let vm = RawVm::protected(&raw, 512);
    assert_eq!(vm.map(pages.pfn(), GFN, 200), 0);
    vm.boot_vcpu(&vcpu, &[]);
    assert_eq!(vm.run_on(), run::EXIT_MMIO);
    assert_eq!(vm.destroy_some(1), hvc::ERR_BUSY, "more than one page");
    forge(&raw, pages.pfn() + 200, vm.arg(), vm.vcpu_arg(0), "the VM is dying");
    attempt("call with a forged id", Got::of_status(vm.create_vcpu(0, vcpu.pa)));
    attempt("call with a forged id", Got::of_status(vm.set_memregion(0, GFN, 512, &[])));
    // Its id is not another's before it is gone.
    let other = RawVm::new(&raw);
    assert_ne!(other.id, vm.id);
    vm.destroy();
    for page in 0..200 {
        assert_eq!(pages.mapping.read(page * PAGE), 0, "page {page} is the host's again, wiped");
    }
}

/// A VM whose guest counts, and reports each number.
struct Counter {
    vm: RawVm,
    _vcpu: gzvm_device_test::raw::Block,
    _code: gzvm_device_test::raw::Block,
}

impl Counter {
    fn new(raw: &Raw, program: &[u8]) -> Self {
        let (code, vcpu) = (raw.alloc(PAGE), raw.alloc(2 * PAGE));
        code.mapping.load(0, program);
        let vm = RawVm::with_region(raw, 4);
        assert_eq!(vm.map(code.pfn(), GFN, 1), 0);
        vm.boot_vcpu(&vcpu, &[0]);
        Self { vm, _vcpu: vcpu, _code: code }
    }
}

pub fn one_vcpu_on_two_cpus_at_once() {
    const ROUNDS: u32 = 3000;
    let raw = Raw::get();
    let counter = Counter::new(&raw, guest::count());
    let runner = |cpu: usize| {
        pin_to_cpu(cpu);
        let (mut exits, mut busy) = (0u64, 0u64);
        for _ in 0..ROUNDS {
            match counter.vm.run(0) {
                (hvc::NO_ERROR, reason) => exits += u64::from(reason == u64::from(run::EXIT_MMIO)),
                (hvc::ERR_BUSY, _) => busy += 1,
                other => panic!("RUN: {other:?}"),
            }
        }
        (exits, busy)
    };
    let (first, second) = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| runner(1)), scope.spawn(|| runner(2))];
        let [first, second] = threads.map(|thread| thread.join().expect("a runner"));
        (first, second)
    });
    assert!(first.0 > 0 && second.0 > 0, "both CPUs ran it: {first:?}, {second:?}");
    // Had it ever run twice at once, a number would have been reported twice.
    let reported = first.0 + second.0;
    let next = counter.vm.report(&counter._vcpu);
    for _ in 0..first.1 + second.1 {
        attempt("RUN of a vCPU that runs", Got::Refused(hvc::ERR_BUSY));
    }
    assert_eq!(next, reported, "numbers that were reported");
    control("RUN of a vCPU that runs", Got::of_status(counter.vm.run(0).0));
}

pub fn calls_on_a_running_vcpu() {
    let raw = Raw::get();
    let counter = Counter::new(&raw, guest::spin());
    let vm = &counter.vm;
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            pin_to_cpu(1);
            loop {
                match vm.run(0) {
                    (hvc::NO_ERROR, _) | (hvc::ERR_BUSY, _) => {}
                    (status, _) => return status,
                }
            }
        });
        let caller = scope.spawn(|| {
            pin_to_cpu(2);
            for function in [hvc::SET_ONE_REG, hvc::GET_ONE_REG] {
                // Between two of its runs the call may come through.
                let refused = || match raw.status(function, &[vm.vcpu_arg(0), reg::x(9), 1]) {
                    hvc::NO_ERROR => None,
                    status => Some(status),
                };
                let status = std::iter::repeat_with(refused).flatten().next();
                attempt("call on a running vCPU", Got::Refused(status.unwrap_or(0)));
            }
            // It stops the guest, and gives all back.
            vm.destroy();
        });
        caller.join().expect("the other CPU");
        assert_eq!(
            runner.join().expect("the runner"),
            hvc::ERR_INVALID_ARGS,
            "RUN at the VM's end"
        );
    });
}
