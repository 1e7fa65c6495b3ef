// SPDX-License-Identifier: Apache-2.0
//! Protected VMs: what the host cannot see any more, and what comes back.

use gzvm_abi::{cap, reg, uapi};
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::{sys, tests};

const MIB: u64 = 1 << 20;
const SECRET: u64 = 0x7365_6372_6574_2121;

/// A protected VM that writes the secret to the addresses it is told.
fn protected() -> (Machine, Vcpu) {
    let machine = Machine::new(8 * MIB, guest::poke());
    machine.protect().expect("SET_PROTECTED_VM");
    let vcpu = machine.boot_vcpu(&[0, SECRET]);
    (machine, vcpu)
}

/// Has the guest write the secret; answers what was there.
fn poke(vcpu: &mut Vcpu, offset: u64) -> u64 {
    vcpu.answer_next_read(RAM + offset);
    vcpu.report()
}

fn what_was_loaded_before_is_there() {
    let machine = Machine::new(8 * MIB, guest::poke());
    machine.ram.write(4 * MIB, 42);
    machine.protect().expect("SET_PROTECTED_VM");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    assert_eq!(poke(&mut vcpu, 4 * MIB), 42);
    assert_eq!(poke(&mut vcpu, 4 * MIB), SECRET);
}

fn the_host_cannot_read_a_private_page() {
    let (machine, mut vcpu) = protected();
    let at = 4 * MIB + 3 * PAGE;
    poke(&mut vcpu, at);
    // In a child process: the mapping is shared with it as far as the page itself goes.
    let status = sys::in_child(|| u8::from(machine.ram.read(at) == SECRET));
    assert!(
        status == -libc::SIGBUS || status == 0,
        "the child saw the secret or died of something else: {status}"
    );
    assert_eq!(poke(&mut vcpu, at), SECRET, "the guest's copy is intact");
}

fn user_access_to_a_private_page_is_sigbus() {
    let file = gzvm_device_test::mapping::memfd(8 * MIB);
    let machine = Machine::with(Mapping::of_file(&file, 0, 8 * MIB), guest::poke());
    machine.protect().expect("SET_PROTECTED_VM");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    let at = 4 * MIB + 3 * PAGE;
    poke(&mut vcpu, at);
    assert_eq!(sys::in_child(|| u8::from(machine.ram.read(at) == SECRET)), -libc::SIGBUS);
    let write = || {
        machine.ram.write(at, 1);
        0
    };
    assert_eq!(sys::in_child(write), -libc::SIGBUS);
    // The host lives on, and so does the guest.
    assert_eq!(poke(&mut vcpu, at), SECRET);
}

fn kernel_access_to_a_private_page_shows_zeros() {
    let file = gzvm_device_test::mapping::memfd(8 * MIB);
    let machine = Machine::with(Mapping::of_file(&file, 0, 8 * MIB), guest::poke());
    machine.protect().expect("SET_PROTECTED_VM");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    let at = 4 * MIB + 3 * PAGE;
    poke(&mut vcpu, at);
    let mut word = [0xff; 8];
    if std::os::unix::fs::FileExt::read_exact_at(&file, &mut word, at).is_ok() {
        assert_eq!(u64::from_le_bytes(word), 0, "what the kernel reads");
    }
    assert_eq!(poke(&mut vcpu, at), SECRET);
}

fn private_pages_come_back_wiped() {
    let file = gzvm_device_test::mapping::memfd(8 * MIB);
    let at = 4 * MIB + 3 * PAGE;
    {
        let machine = Machine::with(Mapping::of_file(&file, 0, 8 * MIB), guest::poke());
        machine.protect().expect("SET_PROTECTED_VM");
        let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
        poke(&mut vcpu, at);
    }
    let ram = Mapping::of_file(&file, 0, 8 * MIB);
    for offset in (0..8 * MIB).step_by(8) {
        assert_ne!(ram.read(offset), SECRET, "the secret at {offset:#x}");
    }
    ram.write(at, 5);
    assert_eq!(ram.read(at), 5, "the host owns the page again");
}

fn unprotected_pages_are_shared() {
    // The attacks of this file do find what is not protected.
    let machine = Machine::new(8 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    let at = 4 * MIB + 3 * PAGE;
    poke(&mut vcpu, at);
    assert_eq!(sys::in_child(|| u8::from(machine.ram.read(at) == SECRET)), 1);
}

fn the_shared_pool_stays_shared() {
    let machine = Machine::new(4 * MIB, guest::poke());
    let pool = Mapping::anonymous(MIB);
    let mut region = uapi::UserspaceMemoryRegion {
        slot: 1,
        flags: uapi::MEM_REGION_STATIC_SWIOTLB,
        guest_phys_addr: RAM + 4 * MIB,
        memory_size: MIB,
        userspace_addr: pool.address(),
    };
    sys::ioctl(&machine.vm, uapi::SET_USER_MEMORY_REGION, &mut region).expect("pool");
    machine.protect().expect("SET_PROTECTED_VM");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    pool.write(0x800, 9);
    assert_eq!(poke(&mut vcpu, 4 * MIB + 0x800), 9);
    assert_eq!(pool.read(0x800), SECRET);
}

fn relinquished_pages_come_back_wiped() {
    let machine = Machine::new(8 * MIB, guest::relinquish());
    machine.protect().expect("SET_PROTECTED_VM");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    let mut give_back = || {
        vcpu.answer_next_read(RAM + 4 * MIB);
        assert_eq!(vcpu.report(), 0, "result of the call");
        vcpu.report()
    };
    give_back();
    assert_eq!(give_back(), 0, "what was in the page after it had been given back");
}

fn protection_comes_before_the_first_run() {
    let machine = Machine::new(4 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    poke(&mut vcpu, MIB);
    assert!(machine.protect().is_err());
    assert_eq!(poke(&mut vcpu, MIB), SECRET, "the VM goes on unprotected");
}

fn registers_are_private_after_the_first_run() {
    let (_machine, mut vcpu) = protected();
    poke(&mut vcpu, MIB);
    assert!(vcpu.set_reg(reg::x(1), 0).is_err());
    assert_eq!(poke(&mut vcpu, MIB), SECRET);
}

fn the_firmware_size_is_written_back() {
    let machine = Machine::new(MIB, guest::spin());
    let args = [cap::PVM_GET_PVMFW_SIZE, u64::MAX, 0, 0, 0];
    let mut request = uapi::EnableCap { cap: cap::PROTECTED_VM, args };
    if sys::ioctl(&machine.vm, uapi::ENABLE_CAP, &mut request).is_ok() {
        assert_ne!(request.args[1], u64::MAX);
    }
}

fn main() {
    tests![
        Needs::Device => [unprotected_pages_are_shared],
        Needs::Protected => [
            what_was_loaded_before_is_there,
            the_host_cannot_read_a_private_page,
            user_access_to_a_private_page_is_sigbus,
            kernel_access_to_a_private_page_shows_zeros,
            private_pages_come_back_wiped,
            the_shared_pool_stays_shared,
            relinquished_pages_come_back_wiped,
            protection_comes_before_the_first_run,
            registers_are_private_after_the_first_run,
            the_firmware_size_is_written_back,
        ],
    ]
}
