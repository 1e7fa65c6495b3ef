// SPDX-License-Identifier: Apache-2.0
//! B5: what the first touch of guest memory costs.

use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};

use crate::guests;
use crate::sizes::vm_stat;
use crate::window::{Report, Row};

const MIB: u64 = 1 << 20;
/// The unit of demand paging.
const BLOCK: u64 = 2 * MIB;
const BLOCKS: u64 = 64;

/// What the host has before the guest comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Nothing.
    Absent,
    /// Consecutive pages.
    InOrder,
    /// Pages that are not consecutive.
    Scattered,
    /// Huge pages.
    Huge,
}

impl Backing {
    /// Memory of this kind. The first block is present in any case.
    pub fn mapping(self, size: u64) -> Mapping {
        let memory = Mapping::anonymous(size + BLOCK);
        match self {
            Self::Absent => memory.ask_for_small_pages(),
            Self::Scattered => {
                memory.ask_for_small_pages();
                memory.scatter();
            }
            Self::InOrder | Self::Huge => {
                memory.ask_for_huge_pages();
                memory.populate();
            }
        }
        if self == Self::InOrder {
            // The host's frames stay consecutive, but each has an entry of its own.
            for block in (0..memory.size()).step_by(BLOCK as usize) {
                memory.split(block, PAGE);
            }
        }
        memory.write(0, 1);
        memory
    }
}

const ROWS: [(Backing, bool, &str); 6] = [
    (Backing::InOrder, false, "2 MiB block, 4 KiB pages in order"),
    (Backing::Huge, false, "2 MiB block, a huge page"),
    (Backing::Scattered, false, "2 MiB block, scattered 4 KiB pages"),
    (Backing::Absent, false, "2 MiB block that the host has not got either, 4 KiB pages"),
    (Backing::InOrder, true, "2 MiB block of a protected VM, 4 KiB pages in order"),
    (Backing::Huge, true, "2 MiB block of a protected VM, a huge page"),
];

/// What is measured with the tests.
pub fn two_rows(report: &mut Report) {
    for (backing, protected, what) in ROWS.into_iter().take(2) {
        touch(report, backing, protected, what);
    }
}

/// All of them.
pub fn rows(report: &mut Report) {
    for (backing, protected, what) in ROWS {
        touch(report, backing, protected, what);
    }
}

fn touch(report: &mut Report, backing: Backing, protected: bool, what: &str) {
    for round in 0..2 {
        let machine = Machine::bare(backing.mapping(BLOCKS * BLOCK));
        machine.ram.load(0, guests::touch());
        machine.add_ram().expect("memory slot");
        if protected {
            machine.protect().expect("protection");
        }
        let mut vcpu = machine.boot_vcpu(&[RAM + BLOCK, RAM + machine.ram.size(), BLOCK]);
        report.window(Row::new("B5", what, BLOCKS), || vcpu.report());
        if let (0, Some(bytes)) = (round, vm_stat("record_bytes")) {
            let bytes = bytes * 1024 * MIB / (BLOCKS * BLOCK);
            report.value("B5", &format!("records of the driver per GiB, {what}"), bytes, "bytes");
        }
    }
}
