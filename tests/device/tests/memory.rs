// SPDX-License-Identifier: Apache-2.0
//! Memory slots, demand paging and what is pinned.

use gzvm_abi::uapi;
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::{memfd, Mapping, PAGE};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, follows_owner, set_region, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
/// Makes each page's content different, and different from 0.
const SALT: u64 = 0x5a5a_0000_0000_0a5a;

fn bare() -> Machine {
    Machine::bare(Mapping::anonymous(8 * MIB))
}

fn w25_overlapping_slots_exist_already() {
    let machine = bare();
    let at = machine.ram.address();
    let set = |slot, gpa, size| set_region(&machine.vm, slot, gpa, size, at);
    assert_eq!(set(0, RAM, MIB), Ok(()));
    assert_eq!(set(0, RAM, MIB), Ok(()), "the very same slot");
    assert_eq!(set(0, RAM, 2 * MIB), Err(libc::EEXIST));
    assert_eq!(set(0, RAM + MIB, MIB), Err(libc::EEXIST));
    assert_eq!(set(1, RAM + MIB - PAGE, MIB), Err(libc::EEXIST));
    assert_eq!(set(1, RAM - PAGE, MIB), Err(libc::EEXIST));
    assert_eq!(set(1, RAM, MIB), Err(libc::EEXIST));
    assert_eq!(set(1, RAM + MIB, MIB), Ok(()));
    assert_eq!(set(2, RAM - MIB, MIB), Ok(()));
}

fn garbage_slots_are_refused() {
    let machine = bare();
    let at = machine.ram.address();
    let set = |slot, gpa, size, at| set_region(&machine.vm, slot, gpa, size, at);
    assert_eq!(set(1 << 20, RAM, MIB, at), Err(libc::EINVAL));
    assert_eq!(set(0, RAM + 1, MIB, at), Err(libc::EINVAL));
    assert_eq!(set(0, RAM, MIB + 1, at), Err(libc::EINVAL));
    assert_eq!(set(0, RAM, MIB, at + 8), Err(libc::EINVAL));
    assert_eq!(set(0, u64::MAX - PAGE + 1, 2 * PAGE, at), Err(libc::EINVAL));
    assert_eq!(set(0, 1 << 52, PAGE, at), Err(libc::EINVAL));
    assert_eq!(set(0, RAM, MIB, u64::MAX - PAGE + 1), Err(libc::EINVAL));
    assert_eq!(set(0, RAM, MIB, PAGE), Err(libc::EFAULT), "nothing is mapped there");
    assert_eq!(set(0, RAM, 64 * MIB, at), Err(libc::EFAULT), "nothing is mapped behind it");
    for (flags, errno) in
        [(8, libc::EINVAL), (3, libc::EINVAL), (uapi::MEM_REGION_READONLY | 1, libc::EOPNOTSUPP)]
    {
        let mut region = uapi::UserspaceMemoryRegion {
            slot: 0,
            flags,
            guest_phys_addr: RAM,
            memory_size: MIB,
            userspace_addr: at,
        };
        assert_eq!(sys::ioctl(&machine.vm, uapi::SET_USER_MEMORY_REGION, &mut region), Err(errno));
    }
    assert_eq!(set(0, RAM, MIB, at), Ok(()), "refusals changed nothing");
}

fn w25_unused_slots_can_be_deleted() {
    let machine = bare();
    let at = machine.ram.address();
    assert_eq!(set_region(&machine.vm, 3, 0, 0, 0), Err(libc::ENOENT));
    for _ in 0..3 {
        assert_eq!(set_region(&machine.vm, 3, RAM, MIB, at), Ok(()));
        assert_eq!(set_region(&machine.vm, 3, 0, 0, 0), Ok(()));
    }
    assert_eq!(set_region(&machine.vm, 4, RAM, MIB, at + MIB), Ok(()), "another slot, same place");
}

fn w44_many_slots_with_sparse_numbers() {
    let machine = bare();
    let at = machine.ram.address();
    for index in 0..512u32 {
        let slot = (index * 37) % 512;
        let offset = u64::from(slot) * 2 * PAGE;
        match set_region(&machine.vm, slot, RAM + offset, PAGE, at + offset) {
            Ok(()) => {}
            // The driver has room for 1024; how many the hypervisor has is its own business.
            Err(libc::ENOMEM) if index >= 32 => break,
            Err(errno) => panic!("slot {slot}, number {index}: errno {errno}"),
        }
    }
}

fn w07_slots_may_be_parts_of_mappings_or_span_them() {
    let ram = Mapping::anonymous(8 * MIB);
    ram.split(2 * MIB, MIB);
    ram.replace_page(5 * MIB);
    let machine = Machine::bare(ram);
    machine.ram.load(MIB, guest::check_pages());
    let start = machine.ram.address() + MIB;
    assert_eq!(set_region(&machine.vm, 0, RAM, 6 * MIB, start), Ok(()));
    for offset in (MIB..6 * MIB).step_by(PAGE as usize) {
        machine.ram.write(MIB + offset, (RAM + offset) ^ SALT);
    }
    let mut vcpu = machine.boot_vcpu(&[RAM + MIB, RAM + 6 * MIB, PAGE, SALT]);
    assert_eq!(vcpu.report(), 0, "pages with wrong content");
}

/// Lets the guest check and answer every page of its memory.
fn check_all_pages(machine: &Machine, step: u64) {
    let size = machine.ram.size();
    for offset in (PAGE..size).step_by(step as usize) {
        machine.ram.write(offset, (RAM + offset) ^ SALT);
    }
    let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + size, step, SALT]);
    assert_eq!(vcpu.report(), 0, "pages with wrong content, as the guest sees them");
    for offset in (PAGE..size).step_by(step as usize) {
        assert_eq!(machine.ram.read(offset + 8), !((RAM + offset) ^ SALT), "page at {offset:#x}");
    }
}

fn demand_paging_brings_the_right_pages() {
    check_all_pages(&Machine::new(16 * MIB, guest::check_pages()), PAGE);
}

fn demand_paging_from_a_memfd() {
    let file = memfd(12 * MIB);
    // Pages of the file come in another order than those of the guest.
    let ram = Mapping::of_file(&file, 0, 12 * MIB);
    for offset in (0..12 * MIB).step_by(3 * PAGE as usize).collect::<Vec<_>>().into_iter().rev() {
        ram.write(offset, 1);
    }
    check_all_pages(&Machine::with(ram, guest::check_pages()), PAGE);
}

fn w24_slots_that_start_and_end_inside_blocks() {
    let ram = Mapping::anonymous(6 * MIB);
    ram.load(0, guest::check_pages());
    let machine = Machine::bare(ram);
    // 1.5 MiB in front of and behind a block boundary, with another slot right behind.
    let at = machine.ram.address();
    set_region(&machine.vm, 0, RAM, MIB / 2, at).expect("program");
    set_region(&machine.vm, 1, RAM + MIB / 2, 3 * MIB, at + MIB / 2).expect("middle");
    set_region(&machine.vm, 2, RAM + 7 * MIB / 2, 5 * MIB / 2, at + 7 * MIB / 2).expect("end");
    check_all_pages(&machine, PAGE);
}

fn w05_w24_a_page_changed_by_the_vmm_is_the_guests_where_it_follows() {
    let machine = Machine::new(4 * MIB, guest::poke());
    let target = 2 * MIB + 5 * PAGE;
    machine.ram.write(target, 11);
    let mut vcpu = machine.boot_vcpu(&[0, 22]);
    vcpu.answer_next_read(RAM + target);
    assert_eq!(vcpu.report(), 11);
    assert_eq!(machine.ram.read(target), 22);
    // The VMM's page is another one from now on. The guest gets it, or keeps its own for good, which
    // stays pinned.
    machine.ram.replace_page(target);
    machine.ram.write(target, 33);
    let follows = follows_owner(&machine.vm);
    let mut expected = if follows { 33 } else { 22 };
    for _ in 0..3 {
        vcpu.answer_next_read(RAM + target);
        assert_eq!(vcpu.report(), expected);
        expected = 22;
    }
    assert_eq!(machine.ram.read(target), if follows { 22 } else { 33 });
}

fn w05_a_page_that_comes_back_brings_in_no_other() {
    let machine = Machine::new(4 * MIB, guest::relinquish_and_read());
    let kept = 2 * MIB + 5 * PAGE;
    machine.ram.write(kept, 11);
    let mut vcpu = machine.boot_vcpu(&[]);
    let mut round = |given: u64| {
        vcpu.answer_next_read(RAM + given);
        vcpu.answer_next_read(RAM + kept);
        vcpu.report()
    };
    assert_eq!(round(2 * MIB + 7 * PAGE), 11);
    // A fault of a neighbour in the same block must not look the page up again, nor pin it again.
    let pinned = status_field("VmPin");
    for page in 8..12 {
        assert_eq!(round(2 * MIB + page * PAGE), 11);
        assert_eq!(status_field("VmPin"), pinned, "one page went, one came");
    }
    // Where the guest keeps its page although the VMM has another one from now on, it is the one that
    // was pinned; else the new one, which it gets by its own fault.
    machine.ram.replace_page(kept);
    machine.ram.write(kept, 33);
    let expected = if follows_owner(&machine.vm) { 33 } else { 11 };
    for page in 8..12 {
        assert_eq!(round(2 * MIB + page * PAGE), expected);
    }
    assert_eq!(machine.ram.read(kept), 33);
    assert_eq!(status_field("VmPin"), pinned);
}

fn w30_pinned_pages_are_charged_and_given_back() {
    let before = status_field("VmPin");
    let machine = Machine::new(8 * MIB, guest::check_pages());
    check_all_pages(&machine, PAGE);
    let during = status_field("VmPin") - before;
    assert!((8 * 1024 - 4..=10 * 1024).contains(&during), "{during} kB are charged");
    drop(machine);
    assert_eq!(status_field("VmPin"), before);
}

fn w30_the_locked_memory_limit_holds() {
    let status = sys::in_child(|| {
        let limit = libc::rlimit { rlim_cur: 4 << 20, rlim_max: 4 << 20 };
        let header = [0x2008_0522u32, 0];
        let none = [0u32; 6];
        // SAFETY: live structures; drops rights of this child only (capset version 3).
        unsafe {
            assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
            let dropped = libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
            assert_eq!(dropped, 0);
        }
        let machine = Machine::new(16 * MIB, guest::check_pages());
        let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + 16 * MIB, PAGE, 0]);
        match vcpu.run() {
            Ok(gzvm_device_test::machine::Exit::Exception(exception)) => {
                u8::try_from(exception.error_code).unwrap_or(u8::MAX)
            }
            _ => 0,
        }
    });
    assert_eq!(status, libc::ENOMEM);
}

fn faults_outside_of_all_slots_are_mmio() {
    let machine = Machine::new(2 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, 22]);
    vcpu.answer_next_read(RAM + 64 * MIB);
    match vcpu.run() {
        Ok(gzvm_device_test::machine::Exit::Read(mmio)) => {
            assert_eq!(mmio.phys_addr, RAM + 64 * MIB);
        }
        other => panic!("{other:?}"),
    }
}

fn w37_unmapped_user_memory_ends_in_an_exception() {
    let machine = Machine::new(8 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, 22]);
    let hole = Mapping::anonymous(2 * MIB);
    set_region(&machine.vm, 7, RAM + 512 * MIB, 2 * MIB, hole.address()).expect("slot");
    drop(hole);
    vcpu.answer_next_read(RAM + 512 * MIB);
    match vcpu.run() {
        Ok(gzvm_device_test::machine::Exit::Exception(exception)) => {
            assert_eq!(exception.error_code, libc::EFAULT as u32);
            assert_eq!(exception.fault_gpa & !(PAGE - 1), RAM + 512 * MIB);
        }
        other => panic!("{other:?}"),
    }
}

fn relinquished_pages_are_unpinned_and_come_back() {
    let machine = Machine::new(4 * MIB, guest::relinquish());
    let mut vcpu = machine.boot_vcpu(&[0, 77]);
    let target = 2 * MIB + 3 * PAGE;
    let mut give_back = || {
        vcpu.answer_next_read(RAM + target);
        assert_eq!(vcpu.report(), 0, "result of the call");
        // The guest has not touched the page again yet.
        let pinned = status_field("VmPin");
        vcpu.report();
        (pinned, status_field("VmPin"))
    };
    let (_, with_page) = give_back();
    for _ in 0..3 {
        assert_eq!(give_back(), (with_page - 4, with_page), "pinned kB without and with the page");
    }
}

fn main() {
    tests![
        Needs::Device => [
            w25_overlapping_slots_exist_already,
            garbage_slots_are_refused,
            w25_unused_slots_can_be_deleted,
            w44_many_slots_with_sparse_numbers,
            w07_slots_may_be_parts_of_mappings_or_span_them,
            demand_paging_brings_the_right_pages,
            demand_paging_from_a_memfd,
            w24_slots_that_start_and_end_inside_blocks,
            w05_w24_a_page_changed_by_the_vmm_is_the_guests_where_it_follows,
            w05_a_page_that_comes_back_brings_in_no_other,
            w30_pinned_pages_are_charged_and_given_back,
            w30_the_locked_memory_limit_holds,
            faults_outside_of_all_slots_are_mmio,
            w37_unmapped_user_memory_ends_in_an_exception,
            relinquished_pages_are_unpinned_and_come_back,
        ],
    ]
}
