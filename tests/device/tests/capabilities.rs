// SPDX-License-Identifier: Apache-2.0
//! What driver and hypervisor offer, asked and then tried: what is offered works, and what is not offered is
//! refused with the error that says so. Ends with a table, for who brings up a device.

use gzvm_abi::{cap, ext, reg, run, uapi};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{self, REPORT};
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::matrix::{self, row};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, check_extension, set_region, Result};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
/// vCPUs and shared interrupts of a VM where nobody says how many there can be: those of the posted driver.
const VCPUS: u64 = 8;
const SPIS: u64 = 32;
/// A private interrupt that is no timer's, numbered from 0.
const PPI: u32 = 4;

/// Whether the hypervisor has an extension.
fn has(machine: &Machine, extension: u64) -> bool {
    let all = check_extension(&machine.device, ext::DISCOVER).unwrap_or(0);
    all & extension != 0
}

/// What is offered as a word.
fn word(offered: bool) -> &'static str {
    if offered {
        "yes"
    } else {
        "no"
    }
}

/// An answer is a success where a thing is offered, and says so where it is not.
fn as_offered<T: std::fmt::Debug>(offered: bool, answer: Result<T>) {
    match answer {
        Ok(_) if offered => (),
        Err(libc::EOPNOTSUPP) if !offered => (),
        answer => panic!("offered: {}; answer: {answer:?}", word(offered)),
    }
}

/// A limit as the hypervisor says it, at these bits of the answer; 0 there is unsaid too.
fn limit(machine: &Machine, shift: u32, unsaid: u64) -> u64 {
    let all = check_extension(&machine.device, ext::QUERY_LIMITS).unwrap_or(0);
    match all >> shift & 0xffff {
        0 => unsaid,
        limit => limit,
    }
}

fn unprotected_vms() {
    let row = row("unprotected VMs", "yes");
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[5]);
    assert_eq!([vcpu.report(), vcpu.report()], [5, 6]);
    row.works();
}

fn protected_vms() {
    let machine = Machine::new(8 * MIB, guest::poke());
    let offered = check_extension(&machine.device, cap::PROTECTED_VM) == Ok(1);
    let row = row("protected VMs", word(offered));
    if offered {
        machine.protect().expect("SET_PROTECTED_VM");
        let mut vcpu = machine.boot_vcpu(&[0, 0x5345_4352]);
        let at = 4 * MIB;
        vcpu.answer_next_read(RAM + at);
        vcpu.report();
        let seen = sys::in_child(|| u8::from(machine.ram.read(at) != 0));
        assert!([0, -libc::SIGBUS].contains(&seen), "the host sees the guest's page: {seen}");
    } else {
        machine.protect().expect_err("a VM was made protected all the same");
    }
    row.works();
}

fn firmware_for_protected_vms() {
    let machine = Machine::new(MIB, guest::spin());
    let args = [cap::PVM_GET_PVMFW_SIZE, 0, 0, 0, 0];
    let mut request = uapi::EnableCap { cap: cap::PROTECTED_VM, args };
    let size = sys::ioctl(&machine.vm, uapi::ENABLE_CAP, &mut request).map(|_| request.args[1]);
    let said = size.map_or_else(|errno| format!("errno {errno}"), |size| format!("{size} bytes"));
    let row = row("firmware (pvmfw)", said);
    if check_extension(&machine.device, cap::PROTECTED_VM) == Ok(1) {
        size.expect("a hypervisor with protected VMs says how large its firmware is");
    }
    row.works();
}

fn guest_addresses() {
    let machine = Machine::new(MIB, guest::spin());
    let bits = check_extension(&machine.device, cap::VM_GPA_SIZE).expect("VM_GPA_SIZE");
    let row = row("guest addresses", format!("{bits} bits"));
    let more = Mapping::anonymous(MIB);
    let set = |at: u64| set_region(&machine.vm, 3, at, MIB, more.address());
    set(1 << bits).expect_err("memory above the largest address");
    set((1 << bits) - MIB).expect("memory at the largest address");
    row.works();
}

fn vcpus_of_a_vm() {
    let machine = Machine::new(MIB, guest::spin());
    let most = limit(&machine, 0, VCPUS);
    let row = row("vCPUs of a VM", most);
    let index = |index: u64| usize::try_from(index).expect("a small number");
    let all: Vec<_> =
        (0..most).map(|number| Vcpu::new(&machine.vm, index(number)).expect("a vCPU")).collect();
    let answer = Vcpu::new(&machine.vm, index(most)).map(|_| ());
    assert_eq!(answer, Err(libc::EINVAL), "one more than {}", all.len());
    row.works();
}

fn interrupts_of_a_vm() {
    let machine = Machine::new(MIB, guest::spin());
    let most = limit(&machine, 16, SPIS);
    let row = row("shared interrupts of a VM", most);
    machine.add_gic(1);
    let _vcpu = machine.boot_vcpu(&[]);
    let last = u32::try_from(most - 1).expect("a small number");
    machine.raise(0).expect("the first");
    machine.raise(last).expect("the last");
    row.works();
}

/// What the guest writes ends in the kernel; what it reads comes to user space.
fn writes_as_events() {
    let row = row("guest writes as events (ioeventfd)", "yes");
    let machine = Machine::new(MIB, guest::echo());
    let event = Event::new();
    let (addr, len, fd) = (REPORT + 8, 8, event.fd());
    let mut argument = uapi::Ioeventfd { datamatch: 0, addr, len, fd, flags: 0, pad: [0; 36] };
    sys::ioctl(&machine.vm, uapi::IOEVENTFD, &mut argument).expect("IOEVENTFD");
    let mut vcpu = machine.boot_vcpu(&[]);
    (0..3).for_each(|value| vcpu.answer_next_read(value));
    assert_eq!(vcpu.run.exit_reason, run::EXIT_MMIO);
    assert_eq!(event.take(), 2, "writes between three reads");
    row.works();
}

fn reading_registers() {
    let machine = Machine::new(MIB, guest::spin());
    let offered = has(&machine, ext::GET_REG);
    let row = row("reading registers (GET_REG)", word(offered));
    let vcpu = machine.boot_vcpu(&[7]);
    let answer = vcpu.get_reg(reg::x(0));
    assert!(answer != Ok(0), "x0 is 7, not 0");
    as_offered(offered, answer);
    row.works();
}

fn state_of_memory() {
    let machine = Machine::new(MIB, guest::spin());
    let offered = has(&machine, ext::RANGE_STATE);
    let row = row("state of guest memory (RANGE_STATE)", word(offered));
    as_offered(offered, machine.range_state(RAM, PAGE));
    row.works();
}

fn taking_memory_away() {
    let machine = Machine::new(8 * MIB, guest::poke());
    let offered = has(&machine, ext::UNMAP);
    let row = row("taking memory from a guest (UNMAP)", word(offered));
    let mut vcpu = machine.boot_vcpu(&[0, 1]);
    vcpu.answer_next_read(RAM + 4 * MIB);
    vcpu.report();
    as_offered(offered, set_region(&machine.vm, 0, RAM, 0, 0));
    row.works();
}

/// The owner's new page is the guest's too.
fn following_the_owner() {
    let machine = Machine::new(8 * MIB, guest::poke());
    let offered = sys::follows_owner(&machine.device);
    let row = row("pages that their owner replaces (SYNC_MMU)", word(offered));
    let at = 4 * MIB;
    machine.ram.write(at, 5);
    let mut vcpu = machine.boot_vcpu(&[0, 5]);
    let read = |vcpu: &mut Vcpu| {
        vcpu.answer_next_read(RAM + at);
        vcpu.report()
    };
    assert_eq!(read(&mut vcpu), 5);
    machine.ram.replace_page(at);
    machine.ram.write(at, 7);
    assert_eq!(read(&mut vcpu), if offered { 7 } else { 5 });
    row.works();
}

fn levels_of_private_interrupts() {
    let machine = Machine::new(MIB, guest::spin());
    let offered = has(&machine, ext::IRQ_KIND);
    let row = row("levels and ends of interrupts (IRQ_KIND)", word(offered));
    machine.add_gic(1);
    let _vcpu = machine.boot_vcpu(&[]);
    as_offered(offered, machine.set_line(uapi::IRQ_TYPE_PPI, PPI, true));
    row.works();
}

fn main() {
    tests![
        after matrix::print;
        Needs::Device => [
            unprotected_vms,
            protected_vms,
            firmware_for_protected_vms,
            guest_addresses,
            vcpus_of_a_vm,
            interrupts_of_a_vm,
            writes_as_events,
            reading_registers,
            state_of_memory,
            taking_memory_away,
            following_the_owner,
            levels_of_private_interrupts,
        ],
    ]
}
