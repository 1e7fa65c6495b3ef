// SPDX-License-Identifier: Apache-2.0
//! The firmware on a machine in memory, with the trees that the VMM writes.

use super::*;
use core::cell::Cell;
use core::fmt;
use dtoolkit::{Node, Property};
use gzvm_abi::guest;
use gzvm_guest::fake::FakeHypervisor;
use gzvm_guest::{Error, GenieZone, SharedRange};
use gzvm_vmm::devices::pci::PciWindows;
use gzvm_vmm::fdt::{Description, Seeds};
use gzvm_vmm::layout::{Layout, MIB};

/// The page that is shared.
const PAGE: u64 = 0x7fe0_0000;
const WINDOW: usize = 2 << 20;

struct FakeBoard<'a> {
    hypervisor: &'a FakeHypervisor,
    output: String,
    page: Cell<u64>,
    /// What the host makes of the page while it is shared.
    host_writes: Option<u64>,
    device: u32,
}

impl<'a> FakeBoard<'a> {
    fn new(hypervisor: &'a FakeHypervisor) -> Self {
        let (page, device) = (Cell::new(0), 0x1043_1af4);
        Self { hypervisor, output: String::new(), page, host_writes: None, device }
    }
}

impl<'h> Board for FakeBoard<'h> {
    type Conduit = &'h FakeHypervisor;

    fn hypervisor(&self) -> &'h FakeHypervisor {
        self.hypervisor
    }

    fn open_console(&mut self) {
        assert_eq!(self.hypervisor.guarded(), [UART_PAGE], "its page first");
    }

    fn print(&mut self, text: fmt::Arguments<'_>) {
        self.output += &text.to_string();
    }

    fn read(&self, address: u64) -> u32 {
        assert!(self.hypervisor.guarded().contains(&(address & !0xfff)), "{address:#x}");
        assert_eq!(address, 0x2e00_0800);
        self.device
    }

    #[allow(unsafe_code)]
    fn share<'g>(
        &self,
        geniezone: &'g GenieZone<Self::Conduit>,
    ) -> Result<SharedRange<'g, Self::Conduit>, Error> {
        self.page.set(self.host_writes.unwrap_or(self.page.get()));
        // SAFETY: Nothing is at the address: the hypervisor is a fake.
        unsafe { geniezone.share(PAGE, 4096) }
    }

    fn fill_page(&self, value: u64) {
        self.page.set(value);
    }

    fn page_is(&self, value: u64) -> bool {
        self.page.get() == value
    }
}

/// What the VMM starts the firmware with.
fn given(bootargs: &str) -> Given {
    let layout = Layout::new(72 * MIB, Some(8 * MIB), 2, false, true).unwrap();
    let placement = layout.place_kernel(0, 3 * MIB, 4 * MIB, Some(1000)).unwrap();
    let seeds = Seeds { kaslr: 7, rng: [9; 256] };
    let pci = (PciWindows::default(), 2);
    let (layout, placement, seeds) = (&layout, &placement, &seeds);
    let tree = Description { layout, placement, vcpus: 2, bootargs, seeds, pci }.tree().unwrap();
    let mut window = gzvm_vmm::fdt::write(&tree).unwrap();
    window.resize(WINDOW, 0);
    let payload = placement.payload;
    Given { window: window.leak(), payload: payload.start, size: payload.size }
}

fn chosen(given: &Given, name: &str) -> Option<Vec<u8>> {
    let fdt = gzvm_dtcheck::parse(given.window).unwrap();
    Some(fdt.find_node("/chosen")?.property(name)?.value().to_vec())
}

#[test]
fn a_good_tree_is_patched_and_its_payload_started() {
    let hypervisor = FakeHypervisor::new(true);
    let mut board = FakeBoard::new(&hypervisor);
    let mut given = given("panic=-1");
    let handover = run(&mut board, &mut given).unwrap();
    assert_eq!(handover, Handover { entry: 0x8000_0000 });
    let start = &hypervisor.calls()[..4];
    let expected = [guest::VENDOR_HYP_UID, guest::MMIO_GUARD_ENROLL, guest::MMIO_GUARD_INFO];
    assert_eq!(start, [&expected[..], &[guest::MMIO_GUARD_MAP]].concat());
    assert!(hypervisor.guarded().is_empty() && hypervisor.shared().is_empty());
    assert_ne!(chosen(&given, "kaslr-seed").unwrap(), 7_u64.to_be_bytes());
    let seed = chosen(&given, "rng-seed").unwrap();
    assert!(seed.len() == 256 && seed != [9; 256]);
    assert_eq!(chosen(&given, "avf,strict-boot"), Some(Vec::new()));
    assert_eq!(chosen(&given, "bootargs").unwrap(), b"panic=-1\0", "nothing else has changed");
    for line in ["protected yes", "memory 0x80000000..0x84800000", "2 CPUs, 2 PCI devices"] {
        assert!(board.output.contains(&format!("pvmfw: {line}\n")), "{}", board.output);
    }
}

#[test]
fn a_payload_without_the_guard_finds_its_devices_mapped() {
    let hypervisor = FakeHypervisor::new(true);
    let mut given = given("a pvmfw.keep-mmio");
    run(&mut FakeBoard::new(&hypervisor), &mut given).unwrap();
    let pages = hypervisor.guarded();
    for page in [0, 0x2000, 0x3000, 0x2e00_0000, 0x2e00_f000, 0x2c00_0000, 0x2c0f_f000] {
        assert!(pages.contains(&page), "{page:#x}");
    }
}

/// What is refused, under which name, and in which words.
fn refused(board: &mut FakeBoard<'_>, given: &mut Given, name: &str, words: &str) {
    let refusal = run(board, given).unwrap_err();
    assert_eq!(refusal.name(), name, "{refusal}");
    assert!(board.output.contains(&format!("pvmfw: refused: {refusal}\n")), "{}", board.output);
    assert!(refusal.to_string().contains(words), "{refusal}");
    assert_eq!(board.hypervisor.guarded(), [UART_PAGE], "only the console is left");
    assert!(board.hypervisor.shared().is_empty());
}

#[test]
fn what_is_wrong_is_said_and_named() {
    let hypervisors = [(); 5].map(|()| FakeHypervisor::new(true));
    let mut boards = hypervisors.iter().map(FakeBoard::new);
    let mut next = || boards.next().unwrap();

    let mut damaged = given("");
    damaged.window[0] = 0;
    refused(&mut next(), &mut damaged, "PVM_FIRMWARE_INVALID_FDT", "device tree: not a");

    let mut moved = given("");
    moved.payload += 0x1000;
    refused(&mut next(), &mut moved, "PVM_FIRMWARE_INVALID_PAYLOAD", "0x80001000+0x300000");

    let mut board = next();
    board.host_writes = Some(1);
    refused(&mut board, &mut given(""), "PVM_FIRMWARE_INTERNAL_ERROR", "other contents");

    let mut board = next();
    board.device = u32::MAX;
    refused(&mut board, &mut given(""), "PVM_FIRMWARE_INTERNAL_ERROR", "0xffffffff");

    let mut board = next();
    board.hypervisor.set_answer(guest::MEM_SHARE, None, -1);
    refused(&mut board, &mut given(""), "PVM_FIRMWARE_INTERNAL_ERROR", "MEM_SHARE");
}

#[test]
fn another_hypervisor_is_refused_before_there_is_a_console() {
    let hypervisor = FakeHypervisor::new(true);
    hypervisor.set_uid([0; 4]);
    let mut board = FakeBoard::new(&hypervisor);
    assert!(run(&mut board, &mut given("")).is_err());
    assert!(board.output.is_empty());
}
