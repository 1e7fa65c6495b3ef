// SPDX-License-Identifier: Apache-2.0
//! From the first Rust instruction to the first instruction of the host.

use super::console::{self, log};
use super::hardware::{self, vttbr, Real};
use super::sysreg::{self, isb, read, write};
use super::{cpu, gic, host, space, vectors};
use buddy_system_allocator::LockedHeap;
use refhyp::cmdline::Options;
use refhyp::context::{Regs, SCTLR_RESET, START_PSTATE};
use refhyp::dt::{self, Machine, Range};
use refhyp::firmware::{self, Firmware};
use refhyp::hw::PAGE_SIZE;
use refhyp::hyp::Hypervisor;
use refhyp::memory::Memory;
use refhyp::page::{Page, Pages};
use refhyp::pool::Pool;
use refhyp::stage2::{Kind, IPA_END};
use refhyp::trng::Generator;
use refhyp::vm::Vm;
use spin::Once;

/// All that the hypervisor keeps: from the start of RAM to the host's kernel.
const OWN_SIZE: u64 = 64 << 20;
const _: () = assert!(firmware::ADDRESS + firmware::WINDOW == HOST_IMAGE);
/// Where the host's kernel is put by QEMU's generic loader.
pub const HOST_IMAGE: u64 = 0x4400_0000;
/// Largest device tree that is accepted.
const MAX_DTB: u64 = 2 << 20;
/// Guests' share of the table pages: at most this part of them each.
const QUOTA_PART: u64 = 8;
/// First address of the devices above RAM (QEMU's high PCI windows).
const HIGH_DEVICES: u64 = 256 << 30;

const HEAP_SIZE: usize = 1 << 20;

static mut HEAP: [u8; HEAP_SIZE] = [0; HEAP_SIZE];

/// For the device tree, before the host runs. Nothing allocates afterwards.
#[global_allocator]
static ALLOCATOR: LockedHeap<21> = LockedHeap::empty();

static VMS: [Vm; refhyp::memory::MAX_VMS] = [const { Vm::new() }; refhyp::memory::MAX_VMS];
static HYPERVISOR: Once<Hypervisor<'static, Real>> = Once::new();

/// The hypervisor's state. The host's calls come after it was made.
pub fn hypervisor() -> &'static Hypervisor<'static, Real> {
    match HYPERVISOR.get() {
        Some(hypervisor) => hypervisor,
        None => panic!("a call before the hypervisor was set up"),
    }
}

/// Gives the allocator its memory. Once in each copy of the program.
pub fn init_heap() {
    // SAFETY: the heap's memory is used by nothing else.
    unsafe {
        let heap = &raw mut HEAP;
        ALLOCATOR.lock().init(heap as usize, HEAP_SIZE);
    }
}

/// The boot CPU's Rust entry, with the device tree's address.
pub extern "C" fn main(dtb: u64) -> ! {
    space::build();
    space::enable();
    init_heap();
    let old = device_tree(dtb);
    let machine = match Machine::read(old) {
        Ok(machine) => machine,
        Err(missing) => panic!("the device tree lacks {}", missing.0),
    };
    if let Some(uart) = machine.uart {
        console::set_uart(uart.start);
    }
    cpu::register(&machine.cpus);
    gic::find(machine.redistributors);
    let options = Options::parse(&machine.bootargs, |word| log!("unknown word refhyp.{word}"));
    let (ram, own) = ranges(&machine);
    machine.memory.iter().for_each(|memory| space::add_memory(*memory));
    let own_seed = hardware::random_seed();
    // The CPU's own generator, if it has one: what a boot loader passes, others may have seen.
    let entropy = match own_seed {
        Some(ref seed) => seed.as_slice(),
        None => machine.seed.as_slice(),
    };
    let mut generator = Generator::new(entropy, options.insecure_entropy);
    let mut seed = [0; 32];
    let seed: &[u8] = if generator.fill(&mut seed).is_ok() { &seed } else { &[] };
    let new = match dt::for_host(old, own, seed) {
        Ok(new) => new,
        Err(missing) => panic!("the device tree lacks {}", missing.0),
    };
    replace_device_tree(dtb, old.len(), &new);
    drop(new);
    let memory = take_memory(&machine, ram, own);
    let left = memory.pool_left();
    #[cfg(feature = "test-hooks")]
    if options.selftest {
        super::selftest::install_firmware();
    }
    let firmware = Firmware::find(&Real, firmware::ADDRESS);
    HYPERVISOR.call_once(|| {
        Hypervisor::new(Real, memory, &VMS, options, generator).with_firmware(firmware)
    });
    log!(
        "version 16.0.0, {} CPUs, {} MiB of RAM, {left} table pages, firmware of {} bytes{}",
        cpu::count(),
        (ram.end - ram.start) >> 20,
        firmware.map_or(0, |firmware| firmware.size),
        if options.strict { ", strict" } else { "" }
    );
    start(&options, dtb)
}

#[cfg(feature = "test-hooks")]
fn start(options: &Options, dtb: u64) -> ! {
    if options.selftest || options.linux_guest {
        super::selftest::start(options)
    }
    start_linux(dtb)
}

#[cfg(not(feature = "test-hooks"))]
fn start(options: &Options, dtb: u64) -> ! {
    if options.selftest || options.linux_guest {
        log!("no self-test in this build: build it with --features test-hooks");
    }
    start_linux(dtb)
}

fn start_linux(dtb: u64) -> ! {
    log!("starting Linux at EL1, {HOST_IMAGE:#x}");
    enter_el1(HOST_IMAGE, dtb)
}

/// A secondary CPU's Rust entry.
pub extern "C" fn secondary(index: u64) -> ! {
    space::enable();
    let (entry, context) = usize::try_from(index).map_or((0, 0), cpu::prepared);
    enter_el1(entry, context)
}

/// The boot loader's device tree.
fn device_tree(address: u64) -> &'static [u8] {
    let image = space::image();
    let header = address as *const [u8; 8];
    assert!(
        address >= image.end && address % 8 == 0 && address < (image.start | 0x3fff_ffff),
        "no device tree at {address:#x}: start the flat image, not the ELF file"
    );
    // SAFETY: in the gigabyte that is mapped, behind the image; the host does not run yet.
    let [magic @ .., s0, s1, s2, s3] = unsafe { *header };
    let size = u64::from(u32::from_be_bytes([s0, s1, s2, s3]));
    assert!(magic == [0xd0, 0x0d, 0xfe, 0xed] && size <= MAX_DTB, "no device tree at {address:#x}");
    // SAFETY: as above; the size is bounded, and nothing changes it while it is referenced.
    unsafe { core::slice::from_raw_parts(header.cast(), size as usize) }
}

/// Puts the host's device tree where the boot loader's was, and the rest of the room to zero.
fn replace_device_tree(address: u64, room: usize, new: &[u8]) {
    assert!(new.len() <= room, "the host's device tree needs {} bytes, has {room}", new.len());
    // SAFETY: the memory that `device_tree` found; its slice is not used any more.
    let place = unsafe { core::slice::from_raw_parts_mut(address as *mut u8, room) };
    let (tree, rest) = place.split_at_mut(new.len());
    tree.copy_from_slice(new);
    rest.fill(0);
}

/// All RAM, from its first to its last byte, and the hypervisor's part.
fn ranges(machine: &Machine) -> (Range, Range) {
    let image = space::image();
    let start = machine.memory.iter().map(|m| m.start).min().unwrap_or(0);
    let end = machine.memory.iter().map(|m| m.end).max().unwrap_or(0);
    let own = Range { start, end: start + OWN_SIZE };
    assert!(
        own.start <= image.start && image.end < own.end && own.end == HOST_IMAGE,
        "the hypervisor must be in the first 64 MiB of RAM"
    );
    assert!(own.end < end, "the machine needs more than 64 MiB of RAM");
    (Range { start, end }, own)
}

/// Makes the ownership table and the host's address space.
fn take_memory(machine: &Machine, ram: Range, own: Range) -> Memory<'static> {
    let image = space::image();
    let first = ram.start / PAGE_SIZE;
    let Ok(count) = usize::try_from(ram.end / PAGE_SIZE - first) else {
        panic!("too much RAM");
    };
    let bytes = (count * size_of::<Page>()) as u64;
    let pool = (image.end + bytes).next_multiple_of(PAGE_SIZE);
    assert!(pool < firmware::ADDRESS, "too much RAM for an ownership table in 64 MiB");
    let table = image.end as *mut Page;
    for index in 0..count {
        let pa = (first + index as u64) * PAGE_SIZE;
        let state = match pa {
            _ if pa >= own.start && pa < own.end => Page::Hypervisor,
            _ if machine.memory.iter().any(|m| pa >= m.start && pa < m.end) => Page::FREE,
            _ => Page::Absent,
        };
        // SAFETY: between the image and the pool, mapped RAM that nothing else uses.
        unsafe { table.add(index).write(state) };
    }
    // SAFETY: just initialised, and handed out once.
    let states = unsafe { core::slice::from_raw_parts_mut(table, count) };
    hardware::set_ranges(ram, Range { start: image.start, end: pool });
    let pool = Pool::new(pool, firmware::ADDRESS);
    // Each CPU's worth of the host's own tables comes first: one for every 2 MiB of RAM.
    let host_tables = (ram.end - ram.start) >> 21;
    let quota = pool.left().saturating_sub(host_tables) / QUOTA_PART;
    let built =
        Memory::new(&Real, Pages::new(first, states), pool, quota).and_then(|mut memory| {
            memory.map_identity(&Real, 0, ram.start, Kind::Device)?;
            for m in &machine.memory {
                memory.map_identity(&Real, m.start.max(own.end), m.end, Kind::Memory)?;
            }
            memory.map_identity(&Real, HIGH_DEVICES, IPA_END, Kind::Device)?;
            Ok(memory)
        });
    match built {
        Ok(memory) => memory,
        Err(error) => panic!("no host address space: {error:?}"),
    }
}

/// Sets this CPU up for the host and starts it there at EL1.
fn enter_el1(entry: u64, argument: u64) -> ! {
    init_cpu();
    let mut regs = Regs { pc: entry, pstate: START_PSTATE, ..Regs::default() };
    regs.x[0] = argument;
    if cpu::current() == 0 {
        console::hand_over();
    }
    vectors::start_host(&regs)
}

/// Sets this CPU's EL2 registers for the host.
pub fn init_cpu() {
    write!("vbar_el2", vectors::host_table());
    write!("vtcr_el2", sysreg::VTCR);
    write!("vttbr_el2", vttbr(hypervisor().memory.lock().host_space()));
    write!("hcr_el2", host::hcr());
    write!("cptr_el2", sysreg::CPTR);
    write!("hstr_el2", 0);
    write!("mdcr_el2", (read!("pmcr_el0") >> 11) & 0x1f);
    write!("cnthctl_el2", sysreg::CNTHCTL_HOST);
    write!("cntvoff_el2", 0);
    write!("cntv_ctl_el0", 0);
    write!("cnthp_ctl_el2", 0);
    write!("vpidr_el2", read!("midr_el1"));
    write!("vmpidr_el2", read!("mpidr_el1"));
    write!("sctlr_el1", SCTLR_RESET);
    if has_hcrx() {
        write!("S3_4_C1_C2_2", 0);
    }
    gic::init_cpu();
    isb();
    super::hardware::drop_stale_translations();
}

/// Whether HCRX_EL2 exists (ID_AA64MMFR1_EL1.HCX).
fn has_hcrx() -> bool {
    (read!("id_aa64mmfr1_el1") >> 40) & 0xf != 0
}
