// SPDX-License-Identifier: Apache-2.0
//! The payload's programs on a machine that exists in memory only.

use crate::machine::{Gic, Machine, MachineError};
use crate::mode::Mode;
use crate::{hello, secret, Platform};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use guest_bare::page::{Page, PAGE_SIZE};
use gzvm_abi::guest;
use gzvm_guest::fake::FakeHypervisor;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// A machine whose time passes only in sleep, and in calls of the hypervisor.
struct FakeMachine<'a> {
    hypervisor: &'a FakeHypervisor,
    output: Vec<u8>,
    input: VecDeque<u8>,
    /// What happens when the guest has slept this often.
    on_sleep: Box<dyn FnMut(usize) -> Option<&'static [u8]> + 'a>,
    sleeps: usize,
    timer_works: bool,
    cpus_that_start: usize,
}

/// Ticks of the fake machine's counter in a second.
const FREQUENCY: u64 = 62_500_000;

impl<'a> FakeMachine<'a> {
    fn new(hypervisor: &'a FakeHypervisor) -> Self {
        Self {
            hypervisor,
            output: Vec::new(),
            input: VecDeque::new(),
            on_sleep: Box::new(|_| None),
            sleeps: 0,
            timer_works: true,
            cpus_that_start: 0,
        }
    }

    fn lines(&self) -> Vec<&str> {
        str::from_utf8(&self.output).unwrap().lines().collect()
    }

    fn line(&self, prefix: &str) -> &str {
        let mut lines = self.lines().into_iter();
        lines.find_map(|line| line.strip_prefix(prefix)).unwrap_or_else(|| panic!("no {prefix}"))
    }
}

impl<'a> Platform for FakeMachine<'a> {
    type Conduit = &'a FakeHypervisor;

    fn hypervisor(&self) -> Self::Conduit {
        self.hypervisor
    }

    fn put(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    fn get(&mut self) -> Option<u8> {
        self.input.pop_front()
    }

    fn sleep(&mut self, _: u64) -> bool {
        self.sleeps += 1;
        self.input.extend((self.on_sleep)(self.sleeps).into_iter().flatten());
        self.timer_works
    }

    fn counter(&self) -> u64 {
        // The fake hypervisor's clock answers this counter value.
        let asleep = u64::try_from(self.sleeps).unwrap() * FREQUENCY;
        0x77_0000_0088 + asleep
    }

    fn counter_frequency(&self) -> u64 {
        FREQUENCY
    }

    fn start_cpus(&mut self) -> usize {
        self.cpus_that_start
    }
}

fn property<T: dtoolkit::ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).unwrap()
}

/// A device tree like the VMM's.
fn device_tree(cpus: u32, command_line: &str) -> DeviceTree {
    let node = |name: &str| DeviceTreeNode::new(name).unwrap();
    let mut tree = DeviceTree::new();
    for (name, value) in [("#address-cells", 2_u32), ("#size-cells", 2)] {
        tree.root.add_property(property(name, value));
    }
    let mut memory = node("memory");
    memory.add_property(property("device_type", "memory"));
    memory.add_property(property("reg", [0_u32, 0x8000_0000, 0, 16 << 20]));
    let mut parent = node("cpus");
    parent.add_property(property("#address-cells", 1_u32));
    parent.add_property(property("#size-cells", 0_u32));
    for id in 0..cpus {
        let mut cpu = node(&format!("cpu@{id:x}"));
        cpu.add_property(property("reg", id));
        parent.add_child(cpu);
    }
    let mut gic = node("intc");
    gic.add_property(property("compatible", "arm,gic-v3"));
    let (distributor, redistributor) =
        ([0_u32, 0x3fff_0000, 0, 0x1_0000], [0_u32, 0x3ffd_0000, 0, 0x2_0000]);
    gic.add_property(property("reg", [distributor, redistributor].concat()));
    for address in [0x2e8, 0x3f0] {
        let mut uart = node(&format!("U6_16550A@{address:x}"));
        uart.add_property(property("compatible", "ns16550a"));
        uart.add_property(property("reg", [0_u32, address, 0, 8]));
        tree.root.add_child(uart);
    }
    let mut chosen = node("chosen");
    chosen.add_property(property("stdout-path", "/U6_16550A@3f0:115200"));
    chosen.add_property(property("bootargs", command_line));
    for node in [memory, parent, gic, chosen] {
        tree.root.add_child(node);
    }
    tree
}

fn page() -> &'static Page {
    Box::leak(Box::new(Page::zeroed()))
}

#[test]
fn the_machine_is_read_from_the_device_tree() {
    let dtb = device_tree(3, "panic=-1 mode=secret").to_dtb();
    let machine = Machine::from_device_tree(&dtb).unwrap();
    assert_eq!(machine.memory, 0x8000_0000..0x8100_0000);
    assert_eq!(machine.cpus.ids(), [0, 1, 2]);
    assert_eq!(machine.uart, 0x3f0);
    let gic = Gic { distributor: 0x3fff_0000, redistributors: 0x3ffd_0000 };
    assert_eq!(machine.gic, Some(gic));
    assert_eq!(Mode::from_command_line(machine.command_line), Ok(Mode::Secret));
}

#[test]
fn device_trees_that_will_not_do_are_errors() {
    let machine = |tree: DeviceTree| Machine::from_device_tree(&tree.to_dtb()).map(|_| ());
    assert_eq!(Machine::from_device_tree(&[]), Err(MachineError::Malformed));
    assert_eq!(Machine::from_device_tree(&[0; 64]), Err(MachineError::Malformed));
    assert_eq!(machine(device_tree(0, "")), Err(MachineError::BadCpus));
    assert_eq!(machine(device_tree(17, "")), Err(MachineError::BadCpus));
    let mut tree = device_tree(1, "");
    tree.root.remove_child("memory");
    assert_eq!(machine(tree), Err(MachineError::NoMemory));
    let mut tree = device_tree(1, "");
    for child in ["intc", "chosen"] {
        tree.root.remove_child(child);
    }
    let dtb = tree.to_dtb();
    let machine = Machine::from_device_tree(&dtb).unwrap();
    assert_eq!((machine.gic, machine.uart, machine.command_line), (None, 0x3f8, ""));
}

#[test]
fn the_last_mode_of_the_command_line_counts() {
    assert_eq!(Mode::from_command_line("panic=-1 console=ttyS0"), Ok(Mode::Hello));
    assert_eq!(Mode::from_command_line("mode=secret mode=idle"), Ok(Mode::Idle));
    assert_eq!(Mode::from_command_line("mode=nonsense"), Err("nonsense"));
    for mode in [Mode::Hello, Mode::Secret, Mode::Panic, Mode::Spin, Mode::Idle] {
        assert_eq!(Mode::from_command_line(&format!("mode={}", mode.name())), Ok(mode));
    }
}

#[test]
fn hello_passes_in_a_protected_vm_and_in_another() {
    for (protected, share) in [(true, "ok"), (false, "skipped: all memory is the host's already")] {
        let hypervisor = FakeHypervisor::new(protected);
        let mut platform = FakeMachine::new(&hypervisor);
        platform.cpus_that_start = 1;
        let dtb = device_tree(2, "").to_dtb();
        let machine = Machine::from_device_tree(&dtb).unwrap();
        hello::banner(&mut platform, &machine, 1);
        assert_eq!(hello::run(&mut platform, &machine, page()), 0, "{:#?}", platform.lines());
        assert_eq!(platform.line("payload: protected "), if protected { "yes" } else { "no" });
        assert_eq!(platform.line("payload: memory "), "16 MiB at 0x80000000");
        assert_eq!(platform.line("check: share and unshare a page: "), share);
        assert_eq!(platform.lines().last(), Some(&"payload: 6 checks, 0 failed"));
        assert!(hypervisor.shared().is_empty() && hypervisor.guarded().is_empty());
    }
}

#[test]
fn hello_finds_what_is_broken() {
    let hypervisor = FakeHypervisor::new(true);
    let mut platform = FakeMachine::new(&hypervisor);
    platform.timer_works = false;
    let dtb = device_tree(2, "").to_dtb();
    let machine = Machine::from_device_tree(&dtb).unwrap();
    hypervisor.set_answer(0xc400_0053, None, 0); // Random numbers that are all zero.
    hypervisor.set_answer(guest::MEM_UNSHARE, None, -3);
    hypervisor.set_answer(guest::MMIO_GUARD_ENROLL, None, -1);
    hypervisor.set_answer(guest::PTP, None, 5); // And cycles of 0.
    assert_eq!(hello::run(&mut platform, &machine, page()), 6, "{:#?}", platform.lines());
}

/// The page that a `secret: reveal` line holds.
fn revealed(platform: &FakeMachine<'_>) -> Vec<u8> {
    let digits = platform.line("secret: reveal ").as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

#[test]
fn a_secret_is_revealed_when_a_line_comes_and_matches_its_hash() {
    let hypervisor = FakeHypervisor::new(true);
    let mut platform = FakeMachine::new(&hypervisor);
    platform.on_sleep = Box::new(|sleeps| match sleeps {
        3 => Some(b"not yet"),
        7 => Some(b"\n"),
        _ => None,
    });
    let page = page();
    assert!(secret::run(&mut platform, page).unwrap());
    assert_eq!(platform.sleeps, 7);
    let secret = revealed(&platform);
    assert_eq!(secret.len(), PAGE_SIZE);
    let hash: String = Sha256::digest(&secret).iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = format!("{hash} at IPA {:#x} size 4096", page.ipa());
    assert_eq!(platform.line("secret: hash "), expected);
    assert_eq!(platform.line("secret: own copy "), "intact");
    assert!(!platform.lines()[..2].concat().contains("reveal "), "revealed too early");
}

#[test]
fn a_secret_that_somebody_wrote_to_is_noticed() {
    let hypervisor = FakeHypervisor::new(false);
    let mut platform = FakeMachine::new(&hypervisor);
    let page = page();
    platform.on_sleep = Box::new(move |_| {
        let mut words: VecDeque<u64> = page.words().collect();
        words[100] ^= 1;
        page.fill(|| words.pop_front().ok_or(())).unwrap();
        Some(b"\r")
    });
    assert!(!secret::run(&mut platform, page).unwrap());
    assert_eq!(platform.line("secret: own copy "), "CHANGED");
}

#[test]
fn without_random_numbers_there_is_no_secret() {
    let hypervisor = FakeHypervisor::new(true);
    hypervisor.set_answer(0xc400_0053, None, -1);
    let mut platform = FakeMachine::new(&hypervisor);
    assert!(secret::run(&mut platform, page()).is_err());
    assert!(platform.output.is_empty());
}
