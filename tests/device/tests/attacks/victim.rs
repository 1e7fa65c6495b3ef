// SPDX-License-Identifier: Apache-2.0
//! Whom the attacks are directed at: a guest with a secret in one page, and the hypervisor itself.

use gzvm_device_test::guest;
use gzvm_device_test::machine::{Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{memfd, Mapping, PAGE};
use gzvm_device_test::raw::Raw;
use std::fs::File;

/// What the attackers look for.
pub const SECRET: u64 = 0x7365_6372_6574_2121;
/// What they write.
pub const FORGED: u64 = 0x666f_7267_6564_2121;
const SIZE: u64 = 4 << 20;
/// Where the secret is; the next page is private too.
pub const AT: u64 = (2 << 20) + 3 * PAGE;

/// A VM of the driver's whose guest has written the secret.
pub struct Victim {
    /// The module.
    pub raw: Raw,
    /// The file behind the VM's memory.
    pub file: File,
    /// The VM.
    pub machine: Machine,
    vcpu: Vcpu,
    /// Address of the secret in this process.
    pub va: u64,
    /// Its physical address.
    pub pa: u64,
}

impl Victim {
    /// A new one. Without protection it shows that the attacks work.
    pub fn new(protected: bool) -> Self {
        let raw = Raw::get();
        let file = memfd(SIZE);
        let machine = Machine::with(Mapping::of_file(&file, 0, SIZE), guest::poke());
        machine.ram.write(AT, 0);
        machine.ram.write(AT + PAGE, 0);
        let va = machine.ram.address() + AT;
        let pa = raw.phys(va).expect("the page is there");
        if protected {
            machine.protect().expect("SET_PROTECTED_VM");
        }
        let vcpu = machine.boot_vcpu(&[0, SECRET]);
        let mut victim = Self { raw, file, machine, vcpu, va, pa };
        victim.poke(AT + PAGE);
        victim.poke(AT);
        assert!(victim.intact());
        victim
    }

    /// Has the guest write the secret; answers what it found there.
    fn poke(&mut self, offset: u64) -> u64 {
        self.vcpu.answer_next_read(RAM + offset);
        self.vcpu.report()
    }

    /// Whether the guest still finds the secret; it has it again afterwards.
    pub fn intact(&mut self) -> bool {
        self.poke(AT) == SECRET
    }
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Its first address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

/// What the host was told to keep away from: nodes without a mapping in its device tree.
pub fn hypervisor_memory() -> Range {
    let nodes = std::fs::read_dir("/proc/device-tree/reserved-memory").expect("reserved memory");
    let reserved = nodes.filter_map(Result::ok).find(|node| node.path().join("no-map").exists());
    let reg = std::fs::read(reserved.expect("a node for the hypervisor").path().join("reg"));
    let reg = reg.expect("reg");
    let word = |at: usize| {
        let bytes = reg.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_be_bytes(bytes.expect("two cells each"))
    };
    Range { start: word(0), size: word(8) }
}

/// Physical addresses that no host may use as memory: the hypervisor's, and those of none.
pub fn forbidden_addresses() -> Vec<u64> {
    let Range { start, size } = hypervisor_memory();
    // The last two are behind all RAM, and behind all addresses.
    let (unused, highest) = (0xff_ffff_f000, !(PAGE - 1));
    vec![start, start + size / 2, start + size - PAGE, 0x0900_0000, 0, unused, highest]
}
