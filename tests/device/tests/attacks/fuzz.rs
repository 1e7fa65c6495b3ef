// SPDX-License-Identifier: Apache-2.0
//! Hypercalls with arguments at random, and more of everything than there is.

use gzvm_abi::{cap, ext, hvc, reg, uapi};
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest;
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::random::Random;
use gzvm_device_test::raw::{Block, Raw};
use gzvm_device_test::rawvm::{RawVm, GFN};

use crate::victim::{forbidden_addresses, Victim};

/// What random arguments are made of. Frames and counts are chosen so that no page of the host's
/// own is within reach: it would give its own kernel away.
struct Palette {
    random: Random,
    words: Vec<u64>,
    frames: Vec<u64>,
}

/// Pages of the fuzzer's memory, and of those that are named; 513 from the last one are in it.
const POOL: u64 = 1024;
const NAMED: u64 = 511;

impl Palette {
    fn new(seed: u64, pool: &Block, vms: &[RawVm]) -> Self {
        let forbidden = forbidden_addresses();
        let mut frames: Vec<u64> = forbidden.iter().map(|pa| pa / PAGE).collect();
        frames.extend([0, 1, NAMED / 2, NAMED - 1].map(|page| pool.pfn() + page));
        let mut words: Vec<u64> = frames.iter().map(|frame| frame * PAGE).collect();
        words.extend(frames.iter().map(|frame| frame * PAGE + 8));
        words.extend([0, 1, 2, 3, 7, 8, 16, 64, 255, 256, 511, 512, 513, 4096, 8192, u64::MAX]);
        words.extend([1 << 31, 1 << 32, 1 << 40, 1 << 52, 1 << 63, u64::MAX << 12]);
        words.extend([GFN, GFN + 1, GFN + 511, GFN * PAGE, (GFN + 511) * PAGE, 64 * PAGE]);
        words.extend([reg::PC, reg::PSTATE, reg::x(0), reg::x(30), reg::SP_EL1, 0x3c5]);
        words.extend([cap::PROTECTED_VM, cap::BLOCK_BASED_DEMAND_PAGING, cap::ENABLE_IDLE]);
        words.extend([gzvm_abi::BLOCK_SIZE, ext::DISCOVER, ext::QUERY_LIMITS, ext::UNMAP_RANGE]);
        words.extend([ext::REMOVE_REGION, ext::QUERY_RANGE_STATE, 0x9204, 0x9205]);
        for vm in vms {
            words.extend([vm.arg(), vm.vcpu_arg(0), vm.vcpu_arg(1), vm.vcpu_arg(15)]);
        }
        Self { random: Random::new(seed), words, frames }
    }

    fn one_of(&mut self, values: &[u64]) -> u64 {
        let index = self.random.below(values.len() as u64);
        values[index as usize]
    }

    fn word(&mut self) -> u64 {
        let index = self.random.below(self.words.len() as u64);
        self.words[index as usize]
    }

    fn frame(&mut self) -> u64 {
        let index = self.random.below(self.frames.len() as u64);
        self.frames[index as usize]
    }

    fn guest_frame(&mut self) -> u64 {
        GFN + self.random.below(NAMED)
    }

    /// A call that is more or less right.
    fn call(&mut self, vms: &[RawVm], buffer: u64) -> [u64; 8] {
        let vm = &vms[self.random.below(vms.len() as u64) as usize];
        let index = self.random.below(u64::from(hvc::NR_FUNCTIONS) + 2) as u32;
        let base = self.one_of(&[hvc::ID_BASE_SMC32, hvc::ID_BASE].map(u64::from));
        let mut registers = [(); 8].map(|()| self.word());
        registers[0] = base + u64::from(index);
        if self.random.below(8) != 0 {
            let of_vcpu = [2, 3, 5, 8, 9, 10].contains(&index);
            registers[1] = if of_vcpu { vm.vcpu_arg(0) } else { vm.arg() };
        }
        match hvc::ID_BASE + index {
            // VMs that nobody would destroy.
            hvc::CREATE_VM => registers[1] |= 1,
            // Not too often, or all that follows meets no VM.
            hvc::DESTROY_VM if self.random.below(16) != 0 => registers[1] = 0x7777,
            hvc::SET_MEMREGION => {
                registers[2] = self.one_of(&[8192, 8192, 8192, 0, u64::MAX]);
                registers[3] = self.one_of(&[buffer, buffer, buffer, buffer + 8, 0x4000_0000]);
            }
            hvc::MEMREGION_PURPOSE => {
                registers[3] = self.sizes().wrapping_mul(PAGE) | self.one_of(&[0, 0, 1]);
            }
            hvc::MAP_GUEST => {
                registers[2] = self.random.below(2);
                registers[3] = self.frame();
                registers[4] = self.guest_frame();
                registers[5] = self.sizes();
            }
            hvc::MAP_GUEST_BLOCK => {
                registers[2] = self.random.below(2);
                registers[3] = self.guest_frame();
                registers[4] = self.random.below(8);
            }
            // The plan of faults would strike whoever comes next.
            hvc::ENABLE_CAP if registers[2] == ext::TEST_FAULT => registers[2] = 0,
            _ => {}
        }
        registers
    }

    /// A number of pages: right, at the edge, or absurd, but none that reaches behind the pool.
    fn sizes(&mut self) -> u64 {
        let few = self.random.below(8);
        self.one_of(&[few, few, few, 512, 513, 1 << 52, u64::MAX])
    }

    /// Fills a page that the hypervisor reads as a list, or as a device.
    fn write_buffer(&mut self, block: &Block) {
        let gpa = (self.guest_frame() * PAGE) | self.one_of(&[0, 0, 0, 1]);
        let count = self.one_of(&[0, 1, 2, 3, 511, 0xffff_ffff]);
        let header = [self.random.below(2) | count << 32, self.sizes(), gpa];
        let entries = [(); 4].map(|()| {
            let address = self.frame() * PAGE + self.one_of(&[0, 0, 0, 8]);
            [address, self.one_of(&[0, 1, 2, 3, 512, 513, 0xffff_ffff])]
        });
        let words = header.iter().chain(entries.iter().flatten());
        for (index, word) in (0..).zip(words) {
            block.mapping.write(8 * index, *word);
        }
    }
}

fn fuzz(seed: u64, rounds: u32) -> u32 {
    let raw = Raw::get();
    let pool = raw.alloc(POOL * PAGE);
    let (buffer, mailbox) = (raw.alloc(2 * PAGE), raw.alloc(PAGE));
    let vms = [0, 1].map(|_| {
        let vm = RawVm::with_region(&raw, NAMED);
        assert_eq!(vm.region(1, 3 * GFN, NAMED, uapi::MEM_REGION_STATIC_SWIOTLB), 0);
        assert_eq!(vm.set_mailbox(mailbox.pa), 0);
        vm
    });
    let mut palette = Palette::new(seed, &pool, &vms);
    let mut good = 0;
    for _ in 0..rounds {
        palette.write_buffer(&buffer);
        mailbox.mapping.write(0, palette.frame());
        let call = palette.call(&vms, buffer.pa);
        let [x0, ..] = raw.hvc(call);
        // CAST: the status is the low half.
        match x0 as i32 {
            hvc::NO_ERROR => good += 1,
            status => attempt("hypercall at random", Got::Refused(status)),
        }
    }
    good
}

pub fn hypercalls_at_random() {
    let mut victim = Victim::new(true);
    for seed in 1..=8 {
        let good = fuzz(seed, 800);
        assert!(good > 20, "{good} calls succeeded: they are not near what is right");
        control("hypercall at random", Got::Through);
        assert!(victim.intact(), "seed {seed}");
    }
}

pub fn calls_of_nobody_are_unknown() {
    let raw = Raw::get();
    let mut random = Random::new(5);
    for round in 0..500u64 {
        let id = match round % 4 {
            0 => u64::from(hvc::ID_BASE) + 20 + random.below(0xfe0),
            1 => 0xc600_0000 + random.below(64),
            2 => 0x8400_0000 + random.below(32),
            // Of no owner that a hypervisor has.
            _ => 0x0200_0000 + random.below(1 << 24),
        };
        let [x0, ..] = raw.hvc([id, 0, 0, 0, 0, 0, 0, 0]);
        attempt("call of an unknown function", Got::of_status(x0 as i32));
    }
}

pub fn vms_run_out_and_come_back() {
    let raw = Raw::get();
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut vms = Vec::new();
        let status = loop {
            match RawVm::try_new(&raw) {
                Ok(vm) => vms.push(vm),
                Err(status) => break status,
            }
        };
        assert_eq!(status, hvc::ERR_NO_MEMORY);
        attempt("a VM too many", Got::Refused(status));
        let ids: std::collections::HashSet<_> = vms.iter().map(|vm| vm.id).collect();
        assert_eq!(ids.len(), vms.len(), "each has its own id");
        drop(vms.pop());
        let again = RawVm::try_new(&raw).map(|vm| vms.push(vm));
        control("a VM too many", Got::of_status(again.err().unwrap_or(0)));
        rounds.push(vms.len());
    }
    assert!(rounds[0] >= 64 && rounds[0] == rounds[1], "{rounds:?} VMs at once");
}

pub fn vcpus_and_regions_run_out() {
    let raw = Raw::get();
    let pages = raw.alloc(64 * PAGE);
    let vm = RawVm::new(&raw);
    let vcpu = |index: u16| vm.create_vcpu(index, pages.pa + u64::from(index) * 2 * PAGE);
    for index in 0..16 {
        control("a vCPU too many", Got::of_status(vcpu(index)));
        attempt("a vCPU twice", Got::of_status(vcpu(index)));
    }
    attempt("a vCPU too many", Got::of_status(vcpu(16)));
    let region = |index: u64| vm.region(0, GFN + 2 * index, 1, uapi::MEM_REGION_GUEST_MEM);
    let refused = (0..1 << 16).map(region).find(|status| *status != hvc::NO_ERROR);
    attempt("a region too many", Got::of_status(refused.unwrap_or(0)));
    assert_eq!(refused, Some(hvc::ERR_NO_MEMORY));
    control("a region too many", Got::of_status(RawVm::new(&raw).region(0, GFN, 1, 1)));
}

/// One VM cannot take what the others need to live.
pub fn the_tables_of_one_vm_are_limited() {
    let raw = Raw::get();
    let page = raw.alloc(PAGE);
    let vm = RawVm::new(&raw);
    // As large as a region can be: from 4 GiB to the end of guest addresses.
    let (first, end) = (1 << 20, 1 << 28);
    assert_eq!(vm.region(0, first, end - first, uapi::MEM_REGION_GUEST_MEM), 0);
    // Each mapping needs a table of its own, and 2 MiB further still another.
    let refused = (first..end).step_by(512).find_map(|gfn| match vm.map(page.pfn(), gfn, 1) {
        hvc::NO_ERROR => None,
        status => Some(status),
    });
    assert_eq!(refused, Some(hvc::ERR_NO_MEMORY));
    attempt("tables without end", Got::Refused(hvc::ERR_NO_MEMORY));
    // Everybody else goes on.
    let code = raw.alloc(PAGE);
    code.mapping.load(0, guest::count());
    let pages = raw.alloc(2 * PAGE);
    let other = RawVm::protected(&raw, 4);
    assert_eq!(other.map(code.pfn(), GFN, 1), 0);
    other.boot_vcpu(&pages, &[7]);
    control("tables without end", Got::of_value(other.report(&pages), 7));
}
