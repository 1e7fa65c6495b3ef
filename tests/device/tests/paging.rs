// SPDX-License-Identifier: Apache-2.0
//! Page faults of several vCPUs, and what they cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gzvm_device_test::guest;
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::random::Random;
use gzvm_device_test::stall::Stall;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{set_region, status_field};
use gzvm_device_test::{life, tests};

const MIB: u64 = 1 << 20;
/// Where the tests have memory beside the machine's own.
const EXTRA: u64 = RAM + 512 * MIB;
/// Makes each page's content different, and different from 0.
const SALT: u64 = 0x5a5a_0000_0000_0a5a;
/// Longer than anything takes on a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// A VM with two vCPUs that read where they are told, and other memory at [`EXTRA`].
fn two_readers(extra: &Mapping) -> (Machine, Vcpu, Vcpu) {
    let machine = Machine::new(2 * MIB, guest::two_readers());
    machine.add_gic(2);
    set_region(&machine.vm, 7, EXTRA, extra.size(), extra.address()).expect("slot");
    let mut first = machine.boot_vcpu(&[RAM]);
    let mut second = machine.vcpu(1);
    assert_eq!(first.report(), 0, "CPU_ON");
    for vcpu in [&mut first, &mut second] {
        assert_eq!(read(vcpu, EXTRA + extra.size() - PAGE), 0);
    }
    (machine, first, second)
}

/// What the guest reads at an address.
fn read(vcpu: &mut Vcpu, gpa: u64) -> u64 {
    vcpu.answer_next_read(gpa);
    vcpu.report()
}

fn a_stalled_page_holds_up_nobody_else() {
    let extra = Mapping::anonymous(8 * MIB);
    let (machine, mut first, mut second) = two_readers(&extra);
    // The first block of memory is one that nobody fills for now.
    let Some(stall) = Stall::new(&extra, 0, 2 * MIB) else {
        eprintln!("no userfaultfd here");
        return;
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| {
            let value = read(&mut first, EXTRA + PAGE);
            done.store(true, Ordering::SeqCst);
            value
        });
        assert!(stall.wait(LONG), "the first vCPU's fault reaches its page");
        extra.write(4 * MIB, 44);
        assert_eq!(read(&mut second, EXTRA + 4 * MIB), 44, "a fault of the other vCPU");
        let other = Mapping::anonymous(MIB);
        let set = set_region(&machine.vm, 8, EXTRA + 64 * MIB, MIB, other.address());
        assert_eq!(set, Ok(()), "another slot");
        assert!(!done.load(Ordering::SeqCst), "the first vCPU still waits");
        drop(stall);
        assert_eq!(stalled.join().expect("the first vCPU"), 0);
    });
}

fn identical_faults_are_served_once() {
    let extra = Mapping::anonymous(64 * MIB);
    let (_machine, mut first, mut second) = two_readers(&extra);
    let before = status_field("VmPin");
    for block in 0..30 {
        let gpa = EXTRA + block * 2 * MIB + 5 * PAGE;
        extra.write(block * 2 * MIB + 5 * PAGE, 100 + block);
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(read(&mut first, gpa), 100 + block));
            assert_eq!(read(&mut second, gpa), 100 + block);
        });
    }
    let pinned = (status_field("VmPin") - before) / 4;
    assert!(pinned == 30 || pinned == 30 * 512, "{pinned} pages are pinned");
}

fn memory_that_the_owner_may_not_write_is_not_given_to_the_guest() {
    let machine = Machine::new(2 * MIB, guest::poke());
    let extra = Mapping::anonymous(2 * MIB);
    extra.write(MIB, 5);
    extra.set_writable(false);
    set_region(&machine.vm, 7, EXTRA, 2 * MIB, extra.address()).expect("slot");
    let mut vcpu = machine.boot_vcpu(&[0, 22]);
    vcpu.answer_next_read(EXTRA + MIB);
    for _ in 0..2 {
        match vcpu.run() {
            Ok(Exit::Exception(exception)) => {
                assert_eq!(exception.error_code, libc::EFAULT as u32);
                assert_eq!(exception.fault_gpa & !(PAGE - 1), EXTRA + MIB);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(extra.read(MIB), 5);
    // The VMM may repair what is wrong; the guest then goes on.
    extra.set_writable(true);
    assert_eq!(vcpu.report(), 5);
    assert_eq!(extra.read(MIB), 22);
}

/// Pages that are pinned for the only VM, and bytes of memory that their records occupy, if the
/// kernel tells.
fn records() -> Option<(u64, u64)> {
    let stats = life::statistics("vm_stats")?;
    let field = |name: &str| -> u64 {
        let value = stats.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("{stats}"))
    };
    Some((field("pinned_pages "), field("record_bytes ")))
}

fn w30_contiguous_memory_costs_little() {
    const SIZE: u64 = 128 * MIB;
    let ram = Mapping::anonymous(SIZE);
    ram.ask_for_huge_pages();
    let machine = Machine::with(ram, guest::check_pages());
    // One fault in each block.
    let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + SIZE, 2 * MIB, 0]);
    vcpu.report();
    let Some((pages, bytes)) = records() else { return };
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    if rollup.contains("AnonHugePages:         0 kB") || rollup.is_empty() {
        eprintln!("no huge pages here");
        return;
    }
    let per_gib = bytes * (MIB * 1024 / PAGE) / pages;
    assert!(per_gib <= 64 * 1024, "{per_gib} bytes of records for a GiB of guest");
}

fn w30_scattered_memory_costs_a_word_a_page() {
    const SIZE: u64 = 16 * MIB;
    let ram = Mapping::anonymous(SIZE);
    ram.ask_for_small_pages();
    ram.scatter();
    for offset in (PAGE..SIZE).step_by(PAGE as usize) {
        ram.write(offset, (RAM + offset) ^ SALT);
    }
    let pinned = status_field("VmPin");
    let machine = Machine::with(ram, guest::check_pages());
    let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + SIZE, PAGE, SALT]);
    assert_eq!(vcpu.report(), 0, "pages with wrong content, as the guest sees them");
    for offset in (PAGE..SIZE).step_by(PAGE as usize) {
        let written = machine.ram.read(offset + 8);
        assert_eq!(written, !((RAM + offset) ^ SALT), "page at {offset:#x}");
    }
    if let Some((pages, bytes)) = records() {
        assert_eq!(pages, SIZE / PAGE);
        // Of memory that comes page by page, each is recorded by itself.
        let singly =
            life::statistics("vm_stats").is_some_and(|stats| stats.contains("paging Page"));
        assert!(bytes <= 9 * pages || singly, "{bytes} bytes of records for {pages} pages");
    }
    drop((vcpu, machine));
    assert_eq!(status_field("VmPin"), pinned, "all is unpinned");
}

fn scattered_pages_are_given_back_and_come_back() {
    let ram = Mapping::anonymous(4 * MIB);
    ram.ask_for_small_pages();
    ram.scatter();
    let machine = Machine::with(ram, guest::relinquish());
    let mut vcpu = machine.boot_vcpu(&[0, 77]);
    // The guest gives a page of the second block back and touches it again: pinned kB without it, and
    // what there is with it.
    let mut round = |page: u64| {
        let target = 2 * MIB + page * PAGE;
        vcpu.answer_next_read(RAM + target);
        assert_eq!(vcpu.report(), 0, "result of the call");
        let without = status_field("VmPin");
        machine.ram.write(target, 55);
        assert_eq!(vcpu.report(), 55, "what is in the page at {target:#x}");
        assert_eq!(machine.ram.read(target), 77, "what the guest writes to {target:#x}");
        (without, (status_field("VmPin"), records()))
    };
    // Now all of them are there.
    for page in 0..512 {
        round(page);
    }
    let (_, all) = round(7);
    let mut random = Random::new(11);
    for _ in 0..400 {
        let page = random.below(512);
        let (without, with) = round(page);
        assert_eq!(without, all.0 - 4, "pinned kB without page {page}");
        assert_eq!(with, all, "pins and records with all pages, after page {page}");
    }
}

fn main() {
    tests![
        Needs::Device => [
            a_stalled_page_holds_up_nobody_else,
            identical_faults_are_served_once,
            memory_that_the_owner_may_not_write_is_not_given_to_the_guest,
            w30_contiguous_memory_costs_little,
            w30_scattered_memory_costs_a_word_a_page,
            scattered_pages_are_given_back_and_come_back,
        ],
    ]
}
