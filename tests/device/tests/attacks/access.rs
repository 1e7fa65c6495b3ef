// SPDX-License-Identifier: Apache-2.0
//! Loads and stores of the host to what a guest has, in every way that a kernel can be brought to.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use gzvm_device_test::aarch32;
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Exit, Machine, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::raw::Raw;
use gzvm_device_test::sys::{self, in_child};

use crate::victim::{hypervisor_memory, Victim, AT, FORGED, SECRET};

/// An attack: what it is called, and what it gets.
type Attack = (&'static str, fn(&Victim) -> Got);

const READS: &[Attack] = &[
    ("load in user mode", |victim| {
        Got::of_child(in_child(|| u8::from(victim.machine.ram.read(AT) == SECRET)))
    }),
    ("load in user mode, AArch32", |victim| match load_in_aarch32(victim) {
        Some(status) => Got::of_child(status),
        None => Got::Nothing,
    }),
    ("load through another mapping of the page", |victim| {
        let alias = victim.raw.map(victim.pa & !(PAGE - 1), PAGE);
        Got::of_child(in_child(|| u8::from(alias.read(victim.pa % PAGE) == SECRET)))
    }),
    ("load through the kernel's own map", |victim| {
        Got::of_value(victim.raw.read(victim.pa).expect("RAM"), SECRET)
    }),
    ("copy_from_user", |victim| Got::of_value(victim.raw.copy_from_user(victim.va).0, SECRET)),
    ("write to a pipe", through_a_pipe),
    ("read of /proc/self/mem", |victim| {
        let mut word = [0; 8];
        let memory = std::fs::File::open("/proc/self/mem").expect("/proc is mounted");
        match memory.read_exact_at(&mut word, victim.va) {
            Ok(()) => Got::of_value(u64::from_ne_bytes(word), SECRET),
            Err(error) => Got::Refused(error.raw_os_error().unwrap_or(0)),
        }
    }),
    ("read of the file behind it", |victim| {
        let mut word = [0; 8];
        match victim.file.read_exact_at(&mut word, AT) {
            Ok(()) => Got::of_value(u64::from_ne_bytes(word), SECRET),
            Err(error) => Got::Refused(error.raw_os_error().unwrap_or(0)),
        }
    }),
    ("load by a second VM of the driver", second_vm),
];

/// The exit status of a process that is 1 if it found something; nothing without AArch32.
fn load_in_aarch32(victim: &Victim) -> Option<i32> {
    let page = u16::try_from(AT / PAGE).expect("a small number");
    let code = [
        // mmap2(0, 4096, PROT_READ, MAP_SHARED, FD, page)
        0xe3a0_0000, // mov r0, #0
        0xe3a0_1a01, // mov r1, #4096
        0xe3a0_2001, // mov r2, #1
        0xe3a0_3001, // mov r3, #1
        aarch32::movw(4, aarch32::FD),
        aarch32::movw(5, page),
        aarch32::movw(7, 192),
        aarch32::SVC,
        0xe590_0000, // ldr r0, [r0]
        0xe350_0000, // cmp r0, #0
        0x13a0_0001, // movne r0, #1
        aarch32::movw(7, 1),
        aarch32::SVC,
    ];
    aarch32::run(&code, &[], victim.file.as_fd())
}

fn through_a_pipe(victim: &Victim) -> Got {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let (fd, from) = (raw_fd(&writer), victim.va as *const libc::c_void);
    // SAFETY: the kernel reads one word of our own mapping, or refuses to.
    let written = unsafe { libc::write(fd, from, size_of::<u64>()) };
    drop(writer);
    let mut word = [0; 8];
    if written < 0 {
        return Got::Refused(sys::errno());
    }
    reader.read_exact(&mut word).expect("what was written");
    Got::of_value(u64::from_ne_bytes(word), SECRET)
}

fn raw_fd(file: &impl std::os::fd::AsRawFd) -> i32 {
    file.as_raw_fd()
}

fn second_vm(victim: &Victim) -> Got {
    let ram = Mapping::of_file(&victim.file, 0, victim.machine.ram.size());
    let program = Mapping::anonymous(PAGE);
    program.load(0, guest::poke());
    let machine = Machine::bare(program);
    machine.add_ram().expect("program");
    let at = RAM + (64 << 20);
    sys::set_region(&machine.vm, 1, at, ram.size(), ram.address()).expect("the victim's memory");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    vcpu.answer_next_read(at + AT);
    match vcpu.run() {
        Ok(Exit::Write(mmio)) => Got::of_value(u64::from_le_bytes(mmio.data), SECRET),
        Ok(Exit::Exception(exception)) => Got::Refused(exception.error_code.cast_signed()),
        other => panic!("{other:?}"),
    }
}

const WRITES: &[Attack] = &[
    ("store in user mode", |victim| {
        let store = || {
            victim.machine.ram.write(AT, FORGED);
            0
        };
        Got::of_child(in_child(store))
    }),
    ("store through another mapping of the page", |victim| {
        let alias = victim.raw.map(victim.pa & !(PAGE - 1), PAGE);
        let store = || {
            alias.write(victim.pa % PAGE, FORGED);
            0
        };
        Got::of_child(in_child(store))
    }),
    ("store through the kernel's own map", |victim| {
        victim.raw.write(victim.pa, FORGED).expect("RAM");
        Got::Nothing
    }),
    ("copy_to_user", |victim| {
        victim.raw.copy_to_user(victim.va, FORGED);
        Got::Nothing
    }),
    ("read from a pipe", |victim| {
        let (reader, mut writer) = std::io::pipe().expect("pipe");
        writer.write_all(&FORGED.to_ne_bytes()).expect("an empty pipe");
        // SAFETY: the kernel writes one word of our own mapping, or refuses to.
        let read = unsafe { libc::read(raw_fd(&reader), victim.va as *mut libc::c_void, 8) };
        if read < 0 {
            return Got::Refused(sys::errno());
        }
        Got::Nothing
    }),
    ("write to the file behind it", |victim| {
        match victim.file.write_all_at(&FORGED.to_ne_bytes(), AT) {
            Ok(()) => Got::Nothing,
            Err(error) => Got::Refused(error.raw_os_error().unwrap_or(0)),
        }
    }),
];

/// A write got through if the guest finds another value.
fn write(victim: &mut Victim, attack: fn(&Victim) -> Got) -> Got {
    let got = attack(victim);
    if victim.intact() {
        got
    } else {
        Got::Through
    }
}

pub fn reads_of_a_private_page() {
    let (protected, open) = (Victim::new(true), Victim::new(false));
    for (name, attack) in READS {
        attempt(name, attack(&protected));
        control(name, attack(&open));
    }
    let mut protected = protected;
    assert!(protected.intact());
}

pub fn writes_to_a_private_page() {
    let (mut protected, mut open) = (Victim::new(true), Victim::new(false));
    for (name, attack) in WRITES {
        attempt(name, write(&mut protected, *attack));
        control(name, write(&mut open, *attack));
    }
}

/// User mode alone: the kernel does not map what is not its own, and an abort there is its end.
pub fn accesses_to_the_hypervisor() {
    let raw = Raw::get();
    let range = hypervisor_memory();
    let load = |alias: &Mapping| in_child(|| u8::from(alias.read(0) == alias.read(0)));
    let store = |alias: &Mapping| {
        in_child(|| {
            alias.write(8, FORGED);
            1
        })
    };
    for pa in [range.start, range.start + range.size / 2, range.start + range.size - PAGE] {
        let alias = raw.map(pa, PAGE);
        attempt("load from the hypervisor's memory", Got::of_child(load(&alias)));
        attempt("store to the hypervisor's memory", Got::of_child(store(&alias)));
        assert_eq!(raw.read(pa), Err(libc::EFAULT), "the kernel maps the hypervisor's memory");
    }
    let block = raw.alloc(PAGE);
    let alias = raw.map(block.pa, PAGE);
    control("load from the hypervisor's memory", Got::of_child(load(&alias)));
    control("store to the hypervisor's memory", Got::of_child(store(&alias)));
    assert_eq!(block.mapping.read(8), FORGED);
}
