// SPDX-License-Identifier: Apache-2.0
//! What the owner of a VM changes in its own mappings behind slots: the guest of an unprotected VM
//! follows, that of a protected one keeps what it has.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gzvm_abi::{ext, uapi};
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{memfd, punch, Mapping, PAGE};
use gzvm_device_test::random::Random;
use gzvm_device_test::stall::Stall;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, follows_owner, set_region, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
/// Where the tests have memory beside the machine's own.
const EXTRA: u64 = RAM + 512 * MIB;
/// What guests write.
const WRITTEN: u64 = 22;
/// Longer than anything takes on a slow machine.
const LONG: Duration = Duration::from_secs(60);

/// Memory with a file behind it, or without.
fn memory(size: u64, file: Option<&File>) -> Mapping {
    let memory = file.map_or_else(|| Mapping::anonymous(size), |f| Mapping::of_file(f, 0, size));
    memory.ask_for_small_pages();
    memory
}

/// A VM with `extra` at [`EXTRA`], whose vCPU reads and writes where it is told.
fn poker(extra: &Mapping) -> (Machine, Vcpu) {
    // A fork cuts huge pages that are pinned, which is a change of them.
    let machine = Machine::with(memory(2 * MIB, None), guest::poke());
    set_region(&machine.vm, 7, EXTRA, extra.size(), extra.address()).expect("slot");
    let mut vcpu = machine.boot_vcpu(&[0, WRITTEN]);
    // The program's own block.
    poke(&mut vcpu, RAM + MIB);
    (machine, vcpu)
}

/// What the guest finds at an address, where it leaves [`WRITTEN`].
fn poke(vcpu: &mut Vcpu, gpa: u64) -> u64 {
    vcpu.answer_next_read(gpa);
    vcpu.report()
}

/// Replaces a part of a mapping, from an offset and of a size, by zeroes.
type Way = fn(&Mapping, Option<&File>, u64, u64);

const WAYS: [Way; 4] = [
    |_, file, offset, size| file.into_iter().for_each(|file| punch(file, offset, size)),
    |memory, _, offset, size| memory.drop_pages(offset, size),
    |memory, _, offset, size| memory.replace(offset, size),
    |memory, _, offset, size| {
        memory.unmap(offset, size);
        memory.replace(offset, size);
    },
];

/// Replaces parts of memory that the guest has, and sees that the guest gets the new ones, that pins
/// go with the old ones, and that all else stays as it was. `exactly`: no page beside them is taken.
fn replaced_parts_are_taken(file: Option<&File>, way: Way, exactly: bool) {
    let memory = memory(8 * MIB, file);
    let (machine, mut vcpu) = poker(&memory);
    for at in (0..8 * MIB).step_by(PAGE as usize) {
        assert_eq!(poke(&mut vcpu, EXTRA + at), 0);
    }
    let pinned = status_field("VmPin");
    // A page, pages across a block's end, a block, the slot's end.
    for (page, pages) in [(5, 1), (500, 30), (1024, 512), (2000, 48)] {
        let (offset, size) = (page * PAGE, pages * PAGE);
        let around = [offset - PAGE, (offset + size) % (8 * MIB)];
        let before = status_field("VmPin");
        way(&memory, file, offset, size);
        let gone = before - status_field("VmPin");
        assert!(gone >= size / 1024, "{gone} kB were unpinned for {pages} pages");
        assert!(gone == size / 1024 || !exactly, "{gone} kB were unpinned for {pages} pages");
        if let Ok(state) = machine.range_state(EXTRA + offset, size) {
            assert_eq!(state, (uapi::RANGE_STATE_UNPINNED, size));
        }
        assert_eq!(memory.read(offset), 0);
        memory.write(offset, 33);
        assert_eq!(poke(&mut vcpu, EXTRA + offset), 33, "page {page}");
        assert_eq!(memory.read(offset), WRITTEN, "page {page}");
        for at in around {
            memory.write(at, 44);
            assert_eq!(poke(&mut vcpu, EXTRA + at), 44, "beside page {page}");
            assert_eq!(memory.read(at), WRITTEN, "beside page {page}");
        }
        for at in (0..size).step_by(PAGE as usize) {
            poke(&mut vcpu, EXTRA + offset + at);
        }
        assert!(status_field("VmPin") == pinned || !exactly, "all is pinned again");
    }
}

fn w25_a_hole_in_the_file_is_a_hole_for_the_guest() {
    let file = memfd(8 * MIB);
    replaced_parts_are_taken(Some(&file), WAYS[0], true);
}

fn w25_dropped_pages_are_taken() {
    replaced_parts_are_taken(None, WAYS[1], true);
}

fn w25_other_mappings_are_the_guests_too() {
    // A mapping that falls into parts is a change of all in the 2 MiB around its ends.
    for way in [WAYS[2], WAYS[3]] {
        replaced_parts_are_taken(None, way, false);
        replaced_parts_are_taken(Some(&memfd(8 * MIB)), way, false);
    }
}

fn w25_a_running_guest_follows() {
    const SIZE: u64 = 4 * MIB;
    let file = memfd(SIZE);
    for (file, ways) in [(Some(&file), &WAYS[..1]), (None, &WAYS[1..3])] {
        let machine = Machine::new(2 * MIB, guest::hammer());
        let memory = memory(SIZE, file);
        set_region(&machine.vm, 7, EXTRA, SIZE, memory.address()).expect("slot");
        let mut vcpu = machine.boot_vcpu(&[EXTRA, EXTRA + SIZE, PAGE]);
        let touched = |at| {
            while memory.read(at) == 0 {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            // What ends it is that nothing is mapped any more.
            let running = scope.spawn(move || match vcpu.run() {
                Ok(Exit::Exception(exception)) => exception.error_code,
                other => panic!("{other:?}"),
            });
            (0..SIZE).step_by(PAGE as usize).for_each(touched);
            for way in ways {
                for page in [1, 77, 512, 1023] {
                    way(&memory, file, page * PAGE, PAGE);
                    touched(page * PAGE);
                }
                way(&memory, file, 0, SIZE);
                (0..SIZE).step_by(PAGE as usize).for_each(touched);
            }
            memory.unmap(0, SIZE);
            assert_eq!(running.join().expect("the vCPU"), libc::EFAULT as u32);
        });
    }
}

fn w25_pages_that_were_looked_up_before_a_change_do_not_count() {
    let memory = memory(4 * MIB, None);
    let (_machine, mut vcpu) = poker(&memory);
    for at in (0..2 * MIB).step_by(PAGE as usize) {
        memory.write(at, 11);
    }
    memory.drop_pages(MIB, PAGE);
    // While the driver looks the block's pages up, it waits for this one.
    let Some(stall) = Stall::new(&memory, MIB, PAGE) else {
        eprintln!("no userfaultfd here");
        return;
    };
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| poke(&mut vcpu, EXTRA + 5 * PAGE));
        assert!(stall.wait(LONG), "the fault reaches its page");
        memory.drop_pages(5 * PAGE, PAGE);
        memory.write(5 * PAGE, 33);
        drop(stall);
        assert_eq!(stalled.join().expect("the vCPU"), 33);
    });
    assert_eq!(memory.read(5 * PAGE), WRITTEN);
    assert_eq!(poke(&mut vcpu, EXTRA + 6 * PAGE), 11);
}

fn w25_changes_and_faults_race() {
    const ROUNDS: u64 = 300;
    let machine = Machine::new(2 * MIB, guest::two_readers());
    machine.add_gic(2);
    let memory = memory(4 * MIB, None);
    set_region(&machine.vm, 7, EXTRA, 4 * MIB, memory.address()).expect("slot");
    let mut first = machine.boot_vcpu(&[RAM]);
    let second = machine.vcpu(1);
    assert_eq!(first.report(), 0, "CPU_ON");
    // Rounds begun and done: a round replaces both pages and numbers them.
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let read = |mut vcpu: Vcpu, at: u64| {
        let mut seen = 0;
        while done.load(Ordering::SeqCst) < ROUNDS {
            let floor = done.load(Ordering::SeqCst);
            vcpu.answer_next_read(EXTRA + at);
            let value = vcpu.report();
            let later = begun.load(Ordering::SeqCst) > floor;
            assert!(value >= floor || (value == 0 && later), "{value} after round {floor}");
            seen += 1;
        }
        seen
    };
    let pages = [3 * PAGE, 2 * MIB - PAGE];
    std::thread::scope(|scope| {
        let readers = [(first, pages[0]), (second, pages[1])]
            .map(|(vcpu, at)| scope.spawn(move || read(vcpu, at)));
        for round in 1..=ROUNDS {
            begun.store(round, Ordering::SeqCst);
            for at in pages {
                memory.drop_pages(at, PAGE);
                memory.write(at, round);
            }
            if round % 8 == 0 {
                // The whole block.
                memory.drop_pages(PAGE, MIB);
                memory.write(pages[0], round);
            }
            done.store(round, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
        }
        for reader in readers {
            assert!(reader.join().expect("a vCPU") > 0);
        }
    });
}

fn w25_slots_come_and_go_while_their_memory_changes() {
    let memory = memory(4 * MIB, None);
    let (machine, mut vcpu) = poker(&memory);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (memory, done) = (&memory, &done);
        let changing = scope.spawn(move || {
            let mut changes = 0u64;
            while !done.load(Ordering::SeqCst) {
                memory.drop_pages(MIB, 2 * MIB);
                memory.drop_pages(5 * PAGE, PAGE);
                changes += 1;
                // Else nobody would ever find the memory at rest.
                std::thread::sleep(Duration::from_millis(1));
            }
            changes
        });
        for _ in 0..30 {
            for page in [5, 300, 512, 700] {
                poke(&mut vcpu, EXTRA + page * PAGE);
            }
            assert_eq!(set_region(&machine.vm, 7, 0, 0, 0), Ok(()), "deleted");
            let set = set_region(&machine.vm, 7, EXTRA, memory.size(), memory.address());
            assert_eq!(set, Ok(()), "set again");
            // VMs that end meanwhile.
            let (other, mut vcpu) = poker(memory);
            poke(&mut vcpu, EXTRA + 300 * PAGE);
            drop((other, vcpu));
        }
        done.store(true, Ordering::SeqCst);
        assert!(changing.join().expect("the changes") > 0);
    });
}

fn w25_pins_go_with_large_mappings() {
    const SIZE: u64 = 64 * MIB;
    let machine = Machine::new(2 * MIB, guest::check_pages());
    let memory = memory(SIZE, None);
    set_region(&machine.vm, 7, EXTRA, SIZE, memory.address()).expect("slot");
    let before = status_field("VmPin");
    let mut vcpu = machine.boot_vcpu(&[EXTRA, EXTRA + SIZE, PAGE, 0]);
    assert_eq!(vcpu.report(), SIZE / PAGE, "pages without content");
    assert!(status_field("VmPin") - before >= SIZE / 1024);
    memory.drop_pages(0, SIZE);
    // The block of the program may have come in since.
    assert!(status_field("VmPin") <= before + 2 * 1024, "pages are unpinned");
}

/// Pages that are no neighbours for the host go and come in any order.
fn w25_scattered_pages_go_and_come_back() {
    const PAGES: u64 = 2048;
    let memory = memory(PAGES * PAGE, None);
    memory.scatter();
    let (_machine, mut vcpu) = poker(&memory);
    for page in 0..PAGES {
        memory.write(page * PAGE, 100 + page);
        assert_eq!(poke(&mut vcpu, EXTRA + page * PAGE), 100 + page);
    }
    let pinned = status_field("VmPin");
    let mut random = Random::new(3);
    for round in 0..4 {
        let mut gone = vec![false; PAGES as usize];
        for longest in [1, 1, 3, 60, 700].repeat(20) {
            let pages = 1 + random.below(longest);
            let first = random.below(PAGES - pages + 1);
            memory.drop_pages(first * PAGE, pages * PAGE);
            gone[first as usize..(first + pages) as usize].fill(true);
        }
        let taken = gone.iter().filter(|gone| **gone).count() as u64;
        assert_eq!(status_field("VmPin"), pinned - 4 * taken, "{taken} pages are unpinned");
        let mut pages: Vec<_> = (0..PAGES).collect();
        while !pages.is_empty() {
            let page = pages.swap_remove(random.below(pages.len() as u64) as usize);
            let mut expected = WRITTEN;
            if gone[page as usize] {
                expected = 1000 * round + page;
                memory.write(page * PAGE, expected);
            }
            assert_eq!(poke(&mut vcpu, EXTRA + page * PAGE), expected, "page {page}");
            assert_eq!(memory.read(page * PAGE), WRITTEN, "page {page}");
        }
        assert_eq!(status_field("VmPin"), pinned, "all is pinned again");
    }
}

fn a_fork_and_other_rights_take_nothing() {
    let memory = memory(2 * MIB, None);
    let (_machine, mut vcpu) = poker(&memory);
    poke(&mut vcpu, EXTRA + PAGE);
    let pinned = status_field("VmPin");
    let seen = sys::in_child(|| {
        let seen = memory.read(PAGE);
        memory.write(PAGE, 55);
        u8::try_from(seen).unwrap_or(u8::MAX)
    });
    assert_eq!(seen, WRITTEN as i32, "the child has a copy");
    memory.set_writable(false);
    memory.set_writable(true);
    assert_eq!(status_field("VmPin"), pinned);
    assert_eq!(poke(&mut vcpu, EXTRA + PAGE), WRITTEN, "the child's write was the child's");
    memory.write(PAGE, 66);
    assert_eq!(poke(&mut vcpu, EXTRA + PAGE), 66, "owner and guest share the page");
}

/// Two slots may have the same memory.
fn all_slots_of_the_same_memory_follow() {
    let memory = memory(2 * MIB, None);
    let (machine, mut vcpu) = poker(&memory);
    set_region(&machine.vm, 8, EXTRA + 64 * MIB, MIB, memory.address() + MIB).expect("slot");
    let (one, other) = (EXTRA + MIB + PAGE, EXTRA + 64 * MIB + PAGE);
    poke(&mut vcpu, one);
    assert_eq!(poke(&mut vcpu, other), WRITTEN);
    memory.drop_pages(MIB + PAGE, PAGE);
    memory.write(MIB + PAGE, 33);
    assert_eq!(poke(&mut vcpu, one), 33);
    memory.write(MIB + PAGE, 44);
    assert_eq!(poke(&mut vcpu, other), 44);
}

fn protected_guests_keep_their_pages() {
    let file = memfd(4 * MIB);
    let memory = memory(4 * MIB, Some(&file));
    let machine = Machine::new(2 * MIB, guest::poke());
    set_region(&machine.vm, 7, EXTRA, 4 * MIB, memory.address()).expect("slot");
    machine.protect().expect("protected VM");
    assert!(!follows_owner(&machine.vm));
    let mut vcpu = machine.boot_vcpu(&[0, WRITTEN]);
    assert_eq!(poke(&mut vcpu, EXTRA + 5 * PAGE), 0);
    assert_eq!(poke(&mut vcpu, EXTRA + 6 * PAGE), 0);
    let pinned = status_field("VmPin");
    punch(&file, 5 * PAGE, PAGE);
    memory.drop_pages(6 * PAGE, PAGE);
    assert_eq!(status_field("VmPin"), pinned);
    if let Ok(state) = machine.range_state(EXTRA + 5 * PAGE, PAGE) {
        assert_eq!(state, (uapi::RANGE_STATE_PRIVATE, PAGE));
    }
    assert_eq!(poke(&mut vcpu, EXTRA + 5 * PAGE), WRITTEN);
    assert_eq!(poke(&mut vcpu, EXTRA + 6 * PAGE), WRITTEN);
    assert_eq!(memory.read(5 * PAGE), 0, "the owner has another page");
}

fn without_unmap_guests_keep_their_pages() {
    let file = memfd(4 * MIB);
    let memory = memory(4 * MIB, Some(&file));
    let (machine, mut vcpu) = poker(&memory);
    assert!(!follows_owner(&machine.vm) && !follows_owner(&machine.device));
    poke(&mut vcpu, EXTRA + 5 * PAGE);
    let pinned = status_field("VmPin");
    punch(&file, 5 * PAGE, PAGE);
    assert_eq!(status_field("VmPin"), pinned);
    assert_eq!(memory.read(5 * PAGE), 0);
    assert_eq!(poke(&mut vcpu, EXTRA + 5 * PAGE), WRITTEN);
}

fn main() {
    tests![
        Needs::SyncMmu => [
            w25_a_hole_in_the_file_is_a_hole_for_the_guest,
            w25_dropped_pages_are_taken,
            w25_other_mappings_are_the_guests_too,
            w25_a_running_guest_follows,
            w25_pages_that_were_looked_up_before_a_change_do_not_count,
            w25_changes_and_faults_race,
            w25_slots_come_and_go_while_their_memory_changes,
            w25_pins_go_with_large_mappings,
            w25_scattered_pages_go_and_come_back,
            all_slots_of_the_same_memory_follow,
        ],
        Needs::Device => [a_fork_and_other_rights_take_nothing],
        Needs::Extensions(ext::UNMAP) => [protected_guests_keep_their_pages],
        Needs::NoExtensions => [without_unmap_guests_keep_their_pages],
    ]
}
