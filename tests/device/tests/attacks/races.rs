// SPDX-License-Identifier: Apache-2.0
//! Pages through which host and hypervisor talk, changed while the hypervisor looks at them, and
//! answers of the host that nobody asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use gzvm_abi::run::{self, Mmio};
use gzvm_abi::{hvc, uapi};
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest::{self, REPORT};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::raw::{Block, Raw};
use gzvm_device_test::rawvm::{run_page, write_list, RawVm, GFN};
use zerocopy::IntoBytes;

use crate::victim::{hypervisor_memory, Victim, FORGED};

/// Calls per race; each either meets the good or the bad version.
const ROUNDS: u64 = 500;
/// So often they are made again where one has to meet the bad version and none has: the other CPU of
/// an emulated machine may stand still for as long as all of them take.
const PATIENCE: u64 = 1000;

/// Makes calls while another CPU calls `flip` with true and false in turns.
fn race(flip: impl Fn(bool) + Sync, call: impl FnMut(u64) -> i32) -> (u64, u64) {
    race_for(1, flip, call)
}

/// As [`race`], again up to so often until one is refused.
fn race_for(
    patience: u64,
    flip: impl Fn(bool) + Sync,
    mut call: impl FnMut(u64) -> i32,
) -> (u64, u64) {
    let done = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                flip(true);
                flip(false);
            }
        });
        for round in 0..ROUNDS * patience {
            if round >= ROUNDS && refused > 0 {
                break;
            }
            match call(round % ROUNDS) {
                hvc::NO_ERROR => good += 1,
                hvc::ERR_FAULT | hvc::ERR_INVALID_ARGS => refused += 1,
                status => panic!("status {status}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    (good, refused)
}

/// The audit after the test sees whether a call used another frame than it had checked.
pub fn a_mailbox_that_changes_during_the_call() {
    let victim = Victim::new(true);
    let raw = victim.raw.clone();
    let (page, mailbox) = (raw.alloc(PAGE), raw.alloc(PAGE));
    for bad in [hypervisor_memory().start / PAGE, victim.pa / PAGE] {
        let vm = RawVm::with_region(&raw, ROUNDS);
        assert_eq!(vm.set_mailbox(mailbox.pa), 0);
        let flip = |ok: bool| mailbox.mapping.write(0, if ok { page.pfn() } else { bad });
        let (good, refused) = race_for(PATIENCE, flip, |round| vm.map_block(GFN + round, 1));
        attempt("mailbox that changes during the call", Got::Refused(hvc::ERR_FAULT));
        assert!(refused > 0, "{good} calls succeeded, none was refused");
        flip(true);
        control("mailbox that changes during the call", Got::of_status(vm.map_block(GFN, 1)));
    }
}

pub fn a_list_that_changes_during_the_call() {
    let victim = Victim::new(true);
    let raw = victim.raw.clone();
    let page = raw.alloc(PAGE);
    for bad in [hypervisor_memory().start, victim.pa & !(PAGE - 1)] {
        let vm = RawVm::with_region(&raw, ROUNDS);
        let entry = size_of::<hvc::MemRegionHeader>() as u64;
        // Address, and for the second entry a count that makes the sum another.
        let flip = |ok: bool| {
            vm.buffer.mapping.write(entry, if ok { page.pa } else { bad });
            vm.buffer.mapping.write(entry + 8, if ok { 1 } else { 1 << 31 });
        };
        let (_, refused) = race_for(PATIENCE, flip, |round| {
            let header = hvc::MemRegionHeader {
                slot: 0,
                constituent_cnt: 1,
                total_pages: 1,
                gpa: (GFN + round) * PAGE,
            };
            vm.buffer.mapping.store(0, header.as_bytes());
            vm.set_memregion_at(vm.buffer.pa)
        });
        attempt("list that changes during the call", Got::Refused(hvc::ERR_FAULT));
        assert!(refused > 0);
        let list = [(page.pa, 1)];
        control("list that changes during the call", {
            Got::of_status(vm.set_memregion(0, GFN, 1, &list))
        });
    }
}

/// Region lists of which each slice is right, but not the same.
pub fn a_list_that_changes_between_slices() {
    let raw = Raw::get();
    let (pages, other) = (raw.alloc(1024 * PAGE), raw.alloc(2 * PAGE));
    let vm = RawVm::protected(&raw, 4096);
    // Two slices and more; meanwhile the size shrinks and the address moves.
    let flip = |ok: bool| {
        let total = if ok { 700 } else { 3 };
        write_list(&other, 0, GFN + if ok { 0 } else { 2048 }, total, &[(pages.pa, total as u32)]);
    };
    flip(true);
    let (good, refused) = race(flip, |_| vm.set_memregion_at(other.pa));
    attempt("list that changes between slices", Got::Refused(hvc::ERR_INVALID_ARGS));
    assert_eq!(good + refused, ROUNDS);
    vm.destroy();
    for page in 0..700 {
        pages.mapping.write(page * PAGE, FORGED);
        assert_eq!(pages.mapping.read(page * PAGE), FORGED, "page {page} is the host's again");
    }
}

/// A VM whose guest runs a program in one page.
struct Solo {
    vm: RawVm,
    vcpu: Block,
    _code: Block,
}

impl Solo {
    fn new(raw: &Raw, program: &[u8]) -> Self {
        let (code, vcpu) = (raw.alloc(PAGE), raw.alloc(2 * PAGE));
        code.mapping.load(0, program);
        let vm = RawVm::protected(raw, 4);
        assert_eq!(vm.map(code.pfn(), GFN, 1), 0);
        vm.boot_vcpu(&vcpu, &[0]);
        Self { vm, vcpu, _code: code }
    }
}

/// The answer to a load goes to the load's register, whatever the page says; everything else in the
/// page is nothing but a report.
pub fn a_forged_run_page_changes_nothing_but_the_answer() {
    let raw = Raw::get();
    let solo = Solo::new(&raw, guest::echo());
    for value in 1..200u64 {
        assert_eq!(solo.vm.run_on(), run::EXIT_MMIO);
        let mmio: Mmio = run_page(&solo.vcpu).payload();
        assert_eq!((mmio.phys_addr, mmio.size, mmio.is_write), (REPORT, 8, 0));
        let mut forged = run::Run { exit_reason: run::EXIT_HYPERCALL, ..Default::default() };
        forged.set_payload(&Mmio {
            phys_addr: GFN * PAGE,
            data: value.to_le_bytes(),
            size: value % 9,
            // The register with the report address, the program counter's place, and no register.
            reg_nr: [20, 31, 32, u32::MAX][(value % 4) as usize],
            is_write: 1,
            padding: [0xff; 3],
        });
        solo.vcpu.mapping.store(0, forged.as_bytes());
        solo.vcpu.mapping.store(PAGE, &[0xff; PAGE as usize]);
        assert_eq!(solo.vm.run_on(), run::EXIT_MMIO);
        let mmio: Mmio = run_page(&solo.vcpu).payload();
        assert_eq!((mmio.phys_addr, mmio.is_write), (REPORT + 8, 1), "the guest is where it was");
        attempt("run page with another register", {
            Got::of_value(u64::from(u64::from_le_bytes(mmio.data) != value), 1)
        });
        // After a store there is nothing to answer.
        solo.vcpu.mapping.store(0, &[0xff; 64]);
    }
}

pub fn a_run_page_that_changes_while_the_guest_runs() {
    let raw = Raw::get();
    let solo = Solo::new(&raw, guest::echo());
    let flip = |ok: bool| {
        for offset in (0..PAGE / 2).step_by(8) {
            solo.vcpu.mapping.write(offset, if ok { 0 } else { u64::MAX });
            solo.vcpu.mapping.write(PAGE + offset, if ok { FORGED } else { 0 });
        }
    };
    let mut other = 0;
    race(flip, |_| {
        let (status, reason) = solo.vm.run(0);
        let expected = [run::EXIT_MMIO, run::EXIT_IRQ].map(u64::from);
        other += u64::from(!expected.contains(&reason));
        status
    });
    attempt("run page that changes during RUN", Got::of_value(u64::from(other != 0), 1));
}

/// Registration and population meet on two CPUs, with protection in between.
pub fn one_page_raced_for_by_two_vms() {
    let raw = Raw::get();
    let page = raw.alloc(PAGE);
    for _ in 0..40 {
        let vms = [true, false].map(|protected| {
            let vm = RawVm::with_region(&raw, 4);
            assert!(!protected || vm.protect() == 0);
            assert_eq!(vm.region(1, 2 * GFN, 4, uapi::MEM_REGION_GUEST_MEM), 0);
            vm
        });
        let taken: Vec<i32> = std::thread::scope(|scope| {
            let threads = vms.each_ref().map(|vm| scope.spawn(|| vm.map(page.pfn(), GFN, 1)));
            threads.into_iter().map(|thread| thread.join().expect("a call")).collect()
        });
        assert!(taken.contains(&0), "one of them gets it: {taken:?}");
        let both = taken == [0, 0];
        attempt("one page raced for by two VMs", Got::of_value(u64::from(both), 1));
    }
}
