// SPDX-License-Identifier: Apache-2.0
//! Memory slots that go while the VM lives, and what the driver says about memory.

use gzvm_abi::{ext, uapi};
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, set_region, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
/// Where the tests have slots beside the machine's own.
const EXTRA: u64 = RAM + 512 * MIB;
/// What guests write.
const WRITTEN: u64 = 22;

/// A VM whose vCPU reads and writes where it is told.
fn poker() -> (Machine, Vcpu) {
    let machine = Machine::new(2 * MIB, guest::poke());
    let vcpu = machine.boot_vcpu(&[0, WRITTEN]);
    (machine, vcpu)
}

/// What the guest finds at an address, where it leaves [`WRITTEN`].
fn poke(vcpu: &mut Vcpu, gpa: u64) -> u64 {
    vcpu.answer_next_read(gpa);
    vcpu.report()
}

fn delete(machine: &Machine, slot: u32) -> sys::Result<()> {
    set_region(&machine.vm, slot, 0, 0, 0)
}

fn mapped_slots_can_be_deleted() {
    let (machine, mut vcpu) = poker();
    let extra = Mapping::anonymous(8 * MIB);
    // The program's block.
    poke(&mut vcpu, RAM + MIB);
    for round in 0..3 {
        set_region(&machine.vm, 7, EXTRA, 8 * MIB, extra.address()).expect("slot");
        let before = status_field("VmPin");
        extra.write(MIB, 100 + round);
        assert_eq!(poke(&mut vcpu, EXTRA + MIB), 100 + round);
        poke(&mut vcpu, EXTRA + 5 * MIB);
        assert!(status_field("VmPin") > before, "pages are pinned");
        assert_eq!(delete(&machine, 7), Ok(()));
        assert_eq!(status_field("VmPin"), before, "pages are unpinned");
        assert_eq!(extra.read(MIB), WRITTEN, "what the guest wrote is the owner's");
        vcpu.answer_next_read(EXTRA + MIB);
        match vcpu.run() {
            Ok(Exit::Read(mmio)) => assert_eq!(mmio.phys_addr, EXTRA + MIB),
            other => panic!("no access outside of all slots but {other:?}"),
        }
        vcpu.answer(0);
        // The guest's write of the same round, and its report.
        assert!(matches!(vcpu.run(), Ok(Exit::Write(_))));
        assert_eq!(vcpu.report(), 0);
    }
    assert_eq!(poke(&mut vcpu, RAM + MIB), WRITTEN, "the other slot is as it was");
}

fn a_deleted_slot_comes_back_with_other_memory() {
    let (machine, mut vcpu) = poker();
    let (first, second) = (Mapping::anonymous(4 * MIB), Mapping::anonymous(4 * MIB));
    first.write(PAGE, 1);
    second.write(PAGE, 2);
    set_region(&machine.vm, 7, EXTRA, 4 * MIB, first.address()).expect("first");
    assert_eq!(poke(&mut vcpu, EXTRA + PAGE), 1);
    assert_eq!(delete(&machine, 7), Ok(()));
    // Another number, another size, at another offset.
    set_region(&machine.vm, 9, EXTRA - MIB, 3 * MIB, second.address()).expect("second");
    second.write(MIB + PAGE, 3);
    assert_eq!(poke(&mut vcpu, EXTRA + PAGE), 3);
    assert_eq!((first.read(PAGE), second.read(MIB + PAGE)), (WRITTEN, WRITTEN));
}

fn slots_in_use_by_a_running_guest_can_be_deleted() {
    let machine = Machine::new(2 * MIB, guest::hammer());
    let extra = Mapping::anonymous(4 * MIB);
    set_region(&machine.vm, 7, EXTRA, 4 * MIB, extra.address()).expect("slot");
    let mut vcpu = machine.boot_vcpu(&[EXTRA, EXTRA + 4 * MIB, PAGE]);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| device_under(&mut vcpu));
        while extra.read(MIB) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(delete(&machine, 7), Ok(()));
        let words = || (0..4 * MIB).step_by(PAGE as usize).map(|at| extra.read(at));
        let seen: Vec<_> = words().collect();
        let gone = running.join().expect("the vCPU");
        assert!((EXTRA..EXTRA + 4 * MIB).contains(&gone), "{gone:#x}");
        assert!(words().eq(seen), "the guest wrote after the slot was gone");
    });
}

fn slots_may_go_while_the_guest_faults_in_them() {
    // Some faults are to come between the slot's going from the hypervisor and from the driver:
    // with a single page to take from the guest, that is about when the guest notices.
    const ROUNDS: usize = 1000;
    let machine = Machine::new(2 * MIB, guest::hammer());
    let extra = Mapping::anonymous(PAGE);
    let mut vcpu = machine.boot_vcpu(&[EXTRA, EXTRA + PAGE, PAGE]);
    for round in 0..ROUNDS {
        extra.write(0, 0);
        set_region(&machine.vm, 7, EXTRA, PAGE, extra.address()).expect("slot");
        std::thread::scope(|scope| {
            let running = scope.spawn(|| device_under(&mut vcpu));
            while extra.read(0) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(delete(&machine, 7), Ok(()));
            let gone = running.join().unwrap_or_else(|_| panic!("the vCPU in round {round}"));
            assert_eq!(gone, EXTRA);
        });
    }
}

/// Runs a guest until the slot that it uses goes: it sees a device there. Answers the address.
fn device_under(vcpu: &mut Vcpu) -> u64 {
    match vcpu.run() {
        Ok(Exit::Read(mmio)) => {
            vcpu.answer(0);
            mmio.phys_addr
        }
        Ok(Exit::Write(mmio)) => mmio.phys_addr,
        other => panic!("{other:?}"),
    }
}

fn protected_vms_keep_what_is_mapped() {
    let machine = Machine::new(4 * MIB, guest::poke());
    machine.protect().expect("protected VM");
    let empty = Mapping::anonymous(MIB);
    set_region(&machine.vm, 7, EXTRA, MIB, empty.address()).expect("slot");
    let mut vcpu = machine.boot_vcpu(&[0, WRITTEN]);
    poke(&mut vcpu, RAM + MIB);
    assert_eq!(delete(&machine, 0), Err(libc::EBUSY));
    assert_eq!(poke(&mut vcpu, RAM + MIB), WRITTEN, "the guest goes on");
    assert_eq!(delete(&machine, 7), Ok(()), "nothing is mapped there");
}

fn mapped_slots_cannot_be_deleted_without_unmap() {
    let (machine, mut vcpu) = poker();
    poke(&mut vcpu, RAM + MIB);
    assert_eq!(delete(&machine, 0), Err(libc::EOPNOTSUPP));
    assert_eq!(poke(&mut vcpu, RAM + MIB), WRITTEN, "the guest goes on");
}

fn w44_more_slots_than_anybody_needs() {
    // With the machine's own 512, more than fifty times as many as the C driver had.
    const SLOTS: u64 = 511;
    let (machine, mut vcpu) = poker();
    let extra = Mapping::anonymous(2 * SLOTS * PAGE);
    let at = |index| (EXTRA + 2 * index * PAGE, extra.address() + 2 * index * PAGE);
    let set = |slot: u64, (gpa, address), pages| {
        set_region(&machine.vm, u32::try_from(slot).expect("number"), gpa, pages * PAGE, address)
    };
    for index in 0..SLOTS {
        // In an order that is neither that of numbers nor that of addresses.
        let index = (index * 37) % SLOTS;
        assert_eq!(set(1 + index, at(SLOTS - 1 - index), 1), Ok(()), "slot {index}");
    }
    for index in 0..SLOTS {
        assert_eq!(set(1023, at(index), 1), Err(libc::EEXIST), "overlap at {index}");
        assert_eq!(set(1 + index, at(index), 2), Err(libc::EEXIST), "other slot {index}");
    }
    for index in (0..SLOTS).step_by(9) {
        extra.write(2 * index * PAGE, 1000 + index);
        assert_eq!(poke(&mut vcpu, at(index).0), 1000 + index);
    }
    for index in 0..SLOTS {
        assert_eq!(delete(&machine, 1 + u32::try_from(index).expect("number")), Ok(()));
    }
    assert_eq!(set(1, at(0), 2 * SLOTS), Ok(()), "one slot in place of all");
    assert_eq!(poke(&mut vcpu, at(9).0), WRITTEN);
}

fn range_state_of_an_unprotected_vm() {
    let (machine, mut vcpu) = poker();
    let extra = Mapping::anonymous(8 * MIB);
    set_region(&machine.vm, 7, EXTRA, 8 * MIB, extra.address()).expect("slot");
    assert_eq!(machine.range_state(EXTRA - PAGE, 9 * MIB), Ok((uapi::RANGE_STATE_ABSENT, PAGE)));
    assert_eq!(machine.range_state(EXTRA, 9 * MIB), Ok((uapi::RANGE_STATE_UNPINNED, 8 * MIB)));
    assert_eq!(machine.range_state(EXTRA + 8 * MIB, MIB), Ok((uapi::RANGE_STATE_ABSENT, MIB)));
    poke(&mut vcpu, EXTRA + 5 * MIB);
    let (before, bytes) = machine.range_state(EXTRA, 8 * MIB).expect("state");
    assert_eq!(before, uapi::RANGE_STATE_UNPINNED);
    // A page, or the block around it.
    assert!(bytes == 5 * MIB || bytes == 4 * MIB, "{bytes:#x}");
    let mut shared = 0;
    while let Ok((uapi::RANGE_STATE_SHARED, more)) =
        machine.range_state(EXTRA + bytes + shared, 2 * MIB)
    {
        shared += more;
    }
    assert!(shared == PAGE || shared == 2 * MIB, "{shared:#x}");
    assert_eq!(machine.range_state(EXTRA + 5 * MIB, PAGE), Ok((uapi::RANGE_STATE_SHARED, PAGE)));
}

fn range_state_of_a_protected_vm() {
    let machine = Machine::new(4 * MIB, guest::relinquish());
    machine.protect().expect("protected VM");
    let mut vcpu = machine.boot_vcpu(&[0, 77]);
    let page = RAM + 2 * MIB + 3 * PAGE;
    assert_eq!(machine.range_state(page, PAGE), Ok((uapi::RANGE_STATE_UNPINNED, PAGE)));
    vcpu.answer_next_read(page);
    assert_eq!(vcpu.report(), 0, "result of the call");
    assert_eq!(machine.range_state(page, PAGE), Ok((uapi::RANGE_STATE_UNPINNED, PAGE)));
    vcpu.report();
    assert_eq!(machine.range_state(page, PAGE), Ok((uapi::RANGE_STATE_PRIVATE, PAGE)));
    vcpu.answer_next_read(page);
    assert_eq!(vcpu.report(), 0, "result of the call");
    assert_eq!(
        machine.range_state(page, PAGE),
        Ok((uapi::RANGE_STATE_UNPINNED, PAGE)),
        "given back"
    );
}

fn range_state_refuses_garbage() {
    let machine = Machine::new(MIB, guest::poke());
    for (gpa, size) in [(RAM + 1, PAGE), (RAM, PAGE + 1), (RAM, 0), (u64::MAX - PAGE + 1, 2 * PAGE)]
    {
        assert_eq!(machine.range_state(gpa, size), Err(libc::EINVAL), "{gpa:#x} {size:#x}");
    }
    for (flags, pad) in [(1, 0), (0, 1)] {
        let mut range =
            uapi::RangeState { guest_phys_addr: RAM, size: PAGE, flags, pad, ..Default::default() };
        let answer = sys::ioctl(&machine.vm, uapi::GET_RANGE_STATE, &mut range);
        assert_eq!(answer, Err(libc::EINVAL));
    }
}

fn range_state_is_refused_without_the_extension() {
    let machine = Machine::new(MIB, guest::poke());
    assert_eq!(machine.range_state(RAM, PAGE), Err(libc::EOPNOTSUPP));
}

fn main() {
    tests![
        Needs::Extensions(ext::UNMAP) => [
            mapped_slots_can_be_deleted,
            a_deleted_slot_comes_back_with_other_memory,
            slots_in_use_by_a_running_guest_can_be_deleted,
            slots_may_go_while_the_guest_faults_in_them,
            protected_vms_keep_what_is_mapped,
            w44_more_slots_than_anybody_needs,
        ],
        Needs::Extensions(ext::RANGE_STATE) => [
            range_state_of_an_unprotected_vm,
            range_state_of_a_protected_vm,
            range_state_refuses_garbage,
        ],
        Needs::NoExtensions => [
            mapped_slots_cannot_be_deleted_without_unmap,
            range_state_is_refused_without_the_extension,
        ],
    ]
}
