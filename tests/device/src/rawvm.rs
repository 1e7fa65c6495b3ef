// SPDX-License-Identifier: Apache-2.0
//! VMs that a hostile kernel makes by raw hypercalls, past the driver.
//!
//! Blocks that a VM has must outlive it: declare them before it.

use gzvm_abi::run::{self, Mmio, Run};
use gzvm_abi::{cap, hvc, reg, uapi};
use zerocopy::{FromBytes, IntoBytes};

use crate::guest::REPORT;
use crate::mapping::PAGE;
use crate::raw::{Block, Raw};

/// Guest frame where the tests have memory.
pub const GFN: u64 = 0x8_0000;
/// EL1h, interrupts masked.
const PSTATE: u64 = 0x3c5;

/// A VM.
pub struct RawVm {
    /// The module.
    pub raw: Raw,
    /// The VM's id.
    pub id: u16,
    /// SET_MEMREGION's and CREATE_DEVICE's buffer.
    pub buffer: Block,
}

impl RawVm {
    /// A VM without anything.
    pub fn new(raw: &Raw) -> Self {
        Self::try_new(raw).unwrap_or_else(|status| panic!("CREATE_VM: {status}"))
    }

    /// As [`Self::new`], or the status.
    pub fn try_new(raw: &Raw) -> Result<Self, i32> {
        let buffer = raw.alloc(2 * PAGE);
        match raw.call(hvc::CREATE_VM, &[0]) {
            (hvc::NO_ERROR, [id, ..]) => {
                let id = u16::try_from(id).expect("a VM id has 16 bits");
                Ok(Self { raw: raw.clone(), id, buffer })
            }
            (status, _) => Err(status),
        }
    }

    /// A VM with one region of so many pages at [`GFN`], slot 0.
    pub fn with_region(raw: &Raw, pages: u64) -> Self {
        let vm = Self::new(raw);
        assert_eq!(vm.region(0, GFN, pages, uapi::MEM_REGION_GUEST_MEM), 0, "region");
        vm
    }

    /// As [`Self::with_region`], protected.
    pub fn protected(raw: &Raw, pages: u64) -> Self {
        let vm = Self::with_region(raw, pages);
        assert_eq!(vm.protect(), 0, "SET_PROTECTED_VM");
        vm
    }

    /// x1 of calls.
    pub fn arg(&self) -> u64 {
        u64::from(self.id)
    }

    /// x1 of calls about a vCPU.
    pub fn vcpu_arg(&self, vcpu: u16) -> u64 {
        hvc::tuple(self.id, vcpu)
    }

    /// Announces and registers a region.
    pub fn region(&self, slot: u32, gfn: u64, pages: u64, purpose: u32) -> i32 {
        let arguments = [self.arg(), gfn * PAGE, pages * PAGE, u64::from(purpose)];
        match self.raw.status(hvc::MEMREGION_PURPOSE, &arguments) {
            hvc::NO_ERROR => self.set_memregion(slot, gfn, pages, &[]),
            status => status,
        }
    }

    /// SET_MEMREGION with a list of host address and pages.
    pub fn set_memregion(&self, slot: u32, gfn: u64, pages: u64, list: &[(u64, u32)]) -> i32 {
        write_list(&self.buffer, slot, gfn, pages, list);
        self.set_memregion_at(self.buffer.pa)
    }

    /// SET_MEMREGION with its buffer at some address.
    pub fn set_memregion_at(&self, buffer: u64) -> i32 {
        let arguments = [self.arg(), hvc::MEM_REGION_BUFFER_SIZE, buffer];
        self.raw.status(hvc::SET_MEMREGION, &arguments)
    }

    /// MAP_GUEST in slot 0.
    pub fn map(&self, pfn: u64, gfn: u64, pages: u64) -> i32 {
        self.raw.status(hvc::MAP_GUEST, &[self.arg(), 0, pfn, gfn, pages])
    }

    /// SET_PROTECTED_VM.
    pub fn protect(&self) -> i32 {
        let arguments = [self.arg(), cap::PROTECTED_VM, cap::PVM_SET_PROTECTED_VM];
        self.raw.status(hvc::ENABLE_CAP, &arguments)
    }

    /// Sets the mailbox.
    pub fn set_mailbox(&self, pa: u64) -> i32 {
        let cap = cap::BLOCK_BASED_DEMAND_PAGING;
        self.raw.status(hvc::ENABLE_CAP, &[self.arg(), cap, gzvm_abi::BLOCK_SIZE, pa])
    }

    /// MAP_GUEST_BLOCK in slot 0.
    pub fn map_block(&self, gfn: u64, pages: u64) -> i32 {
        self.raw.status(hvc::MAP_GUEST_BLOCK, &[self.arg(), 0, gfn, pages])
    }

    /// CREATE_VCPU with its pages at some address.
    pub fn create_vcpu(&self, vcpu: u16, pages: u64) -> i32 {
        self.raw.status(hvc::CREATE_VCPU, &[self.vcpu_arg(vcpu), pages])
    }

    /// CREATE_DEVICE with the description at some address.
    pub fn create_device_at(&self, description: u64) -> i32 {
        self.raw.status(hvc::CREATE_DEVICE, &[self.arg(), description])
    }

    /// Writes a register.
    pub fn set_reg(&self, vcpu: u16, id: u64, value: u64) -> i32 {
        self.raw.status(hvc::SET_ONE_REG, &[self.vcpu_arg(vcpu), id, value])
    }

    /// vCPU 0, which starts at the beginning of [`GFN`] with these arguments.
    pub fn boot_vcpu(&self, pages: &Block, arguments: &[u64]) {
        assert_eq!(self.create_vcpu(0, pages.pa), 0, "CREATE_VCPU");
        let start = [(reg::PSTATE, PSTATE), (reg::PC, GFN * PAGE), (reg::x(20), REPORT)];
        let arguments = (0..).zip(arguments).map(|(index, value)| (reg::x(index), *value));
        for (id, value) in start.into_iter().chain(arguments) {
            assert_eq!(self.set_reg(0, id, value), 0, "register {id:#x}");
        }
    }

    /// RUN: status and exit reason.
    pub fn run(&self, vcpu: u16) -> (i32, u64) {
        let (status, [reason, ..]) = self.raw.call(hvc::RUN, &[self.vcpu_arg(vcpu)]);
        (status, reason)
    }

    /// Runs vCPU 0 until something else than an interrupt of the host comes; answers the reason.
    pub fn run_on(&self) -> u32 {
        loop {
            match self.run(0) {
                (hvc::NO_ERROR, reason) if reason == u64::from(run::EXIT_IRQ) => {}
                (hvc::NO_ERROR, reason) => return u32::try_from(reason).expect("a reason"),
                (status, _) => panic!("RUN: {status}"),
            }
        }
    }

    /// Runs vCPU 0 until it stores to the report address; answers the value.
    pub fn report(&self, pages: &Block) -> u64 {
        assert_eq!(self.run_on(), run::EXIT_MMIO, "exit");
        let mmio: Mmio = run_page(pages).payload();
        assert_eq!(mmio.is_write, 1, "no report but a read");
        u64::from_le_bytes(mmio.data)
    }

    /// Runs vCPU 0 until it reads from the report address, and answers.
    pub fn answer(&self, pages: &Block, value: u64) {
        assert_eq!(self.run_on(), run::EXIT_MMIO, "exit");
        let mut run = run_page(pages);
        let mut mmio: Mmio = run.payload();
        assert_eq!(mmio.is_write, 0, "no read but a report");
        mmio.data = value.to_le_bytes();
        run.set_payload(&mmio);
        pages.mapping.store(0, run.as_bytes());
    }

    /// DESTROY_VM once, with so many pages.
    pub fn destroy_some(&self, pages: u64) -> i32 {
        self.raw.status(hvc::DESTROY_VM, &[self.arg(), pages])
    }

    /// DESTROY_VM until it is done.
    pub fn destroy(&self) {
        while self.destroy_some(0) == hvc::ERR_BUSY {
            std::thread::yield_now();
        }
    }
}

impl Drop for RawVm {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// What the hypervisor wrote into a vCPU's first page.
pub fn run_page(pages: &Block) -> Run {
    let mut bytes = [0; size_of::<Run>()];
    pages.mapping.fetch(0, &mut bytes);
    Run::read_from_bytes(&bytes).expect("the size is right")
}

/// Fills SET_MEMREGION's buffer.
pub fn write_list(buffer: &Block, slot: u32, gfn: u64, pages: u64, list: &[(u64, u32)]) {
    let constituent_cnt = u32::try_from(list.len()).expect("a short list");
    let gpa = gfn * PAGE;
    let header = hvc::MemRegionHeader { slot, constituent_cnt, total_pages: pages, gpa };
    buffer.mapping.store(0, header.as_bytes());
    let start = size_of::<hvc::MemRegionHeader>() as u64;
    let step = size_of::<hvc::Constituent>() as u64;
    for (index, (address, pg_cnt)) in (0..).zip(list) {
        let entry = hvc::Constituent { address: *address, pg_cnt: *pg_cnt, reserved: 0 };
        buffer.mapping.store(start + index * step, entry.as_bytes());
    }
}
