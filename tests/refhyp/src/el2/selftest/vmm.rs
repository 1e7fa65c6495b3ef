// SPDX-License-Identifier: Apache-2.0
//! A VM with one region of memory, as the tests use it.

use super::el1::{hvc, status, store};
use gzvm_abi::hvc::{self, tuple};
use gzvm_abi::run::Run;
use gzvm_abi::{cap, uapi, PAGE_SIZE};

/// First guest address of the region.
pub const GUEST_BASE: u64 = 0x8000_0000;
/// Pages of the region.
pub const GUEST_PAGES: u64 = 64;
/// Host memory that stands behind it by default, page for page.
pub const BACKING: u64 = 0x5800_0000;
/// The vCPUs' two pages each.
pub const RUN_PAGES: u64 = 0x5700_0000;
/// A page or two for buffers.
pub const BUFFER: u64 = 0x5600_0000;
/// Where the interrupt controller is put.
pub const DISTRIBUTOR: u64 = 0x3fff_0000;
/// Where the redistributors are put.
pub const REDISTRIBUTORS: u64 = 0x3ffb_0000;

/// A VM.
#[derive(Clone, Copy)]
pub struct Vm {
    /// Its id.
    pub id: u16,
}

/// Host calls that the tests expect to succeed.
fn must(function: u32, arguments: &[u64]) -> u64 {
    let [x0, x1, ..] = hvc(u64::from(function), arguments);
    assert!(x0 == 0, "call {function:#x} {arguments:x?} gave {x0:#x}");
    x1
}

impl Vm {
    /// A VM with a registered region and an interrupt controller, without vCPUs.
    pub fn new() -> Self {
        let id = u16::try_from(must(hvc::CREATE_VM, &[0])).unwrap_or(0);
        let vm = Self { id };
        vm.add_region(0, GUEST_BASE, GUEST_PAGES, uapi::MEM_REGION_GUEST_MEM);
        vm.add_device(uapi::DEV_TYPE_VGIC_V3_DIST, DISTRIBUTOR);
        vm.add_device(uapi::DEV_TYPE_VGIC_V3_REDIST, REDISTRIBUTORS);
        vm
    }

    /// x1 of calls about the VM.
    pub fn x1(&self) -> u64 {
        u64::from(self.id)
    }

    /// Announces and registers memory, with rubbish where a population has its list.
    pub fn add_region(&self, slot: u32, gpa: u64, pages: u64, purpose: u32) {
        let size = pages * PAGE_SIZE;
        must(hvc::MEMREGION_PURPOSE, &[self.x1(), gpa, size, u64::from(purpose)]);
        fill(BUFFER, &[u64::from(slot) | 0x1234 << 32, pages, gpa, 0xdead_b000, 7]);
        must(hvc::SET_MEMREGION, &[self.x1(), hvc::MEM_REGION_BUFFER_SIZE, BUFFER]);
    }

    fn add_device(&self, kind: u32, address: u64) {
        fill(BUFFER, &[u64::from(kind), 0, address, uapi::VGIC_DIST_SIZE, 0, 0]);
        must(hvc::CREATE_DEVICE, &[self.x1(), BUFFER]);
    }

    /// Makes the VM protected.
    pub fn protect(&self) {
        let sub = cap::PVM_SET_PROTECTED_VM;
        must(hvc::ENABLE_CAP, &[self.x1(), cap::PROTECTED_VM, sub]);
    }

    /// Creates a vCPU.
    pub fn add_vcpu(&self, index: u16) -> Vcpu {
        let pages = RUN_PAGES + u64::from(index) * 2 * PAGE_SIZE;
        let vcpu = Vcpu { x1: tuple(self.id, index), pages };
        must(hvc::CREATE_VCPU, &[vcpu.x1, pages]);
        vcpu
    }

    /// Maps one host page at a guest address; the status.
    pub fn map(&self, gpa: u64, pa: u64) -> i32 {
        let (pfn, gfn) = (pa / PAGE_SIZE, gpa / PAGE_SIZE);
        status(hvc::MAP_GUEST, &[self.x1(), 0, pfn, gfn, 1])
    }

    /// Maps the default page behind a guest address of the region.
    pub fn populate(&self, gpa: u64) -> i32 {
        let offset = gpa.wrapping_sub(GUEST_BASE) & !(PAGE_SIZE - 1);
        self.map(GUEST_BASE + offset, BACKING + offset)
    }

    /// Destroys the VM; the number of calls that it took.
    pub fn destroy(self) -> u32 {
        for calls in 1.. {
            match status(hvc::DESTROY_VM, &[self.x1(), 16]) {
                0 => return calls,
                hvc::ERR_BUSY => (),
                other => panic!("DESTROY_VM gave {other}"),
            }
        }
        0
    }
}

/// A vCPU.
#[derive(Clone, Copy)]
pub struct Vcpu {
    /// x1 of calls about it.
    pub x1: u64,
    /// Its two pages.
    pub pages: u64,
}

impl Vcpu {
    /// Sets a register.
    pub fn set(&self, register: u64, value: u64) {
        must(hvc::SET_ONE_REG, &[self.x1, register, value]);
    }

    /// Runs it once: the exit reason.
    pub fn run(&self) -> u32 {
        u32::try_from(must(hvc::RUN, &[self.x1])).unwrap_or(0)
    }

    /// The run page.
    pub fn page(&self) -> Run {
        // SAFETY: the program's own memory; the hypervisor writes it only while the vCPU runs.
        unsafe { (self.pages as *const Run).read_volatile() }
    }

    /// Writes a word of the run page's union.
    pub fn set_payload(&self, word: u64, value: u64) {
        fill(self.pages + 8 + word * 8, &[value]);
    }
}

/// Stores words to memory outside of the program.
pub fn fill(address: u64, words: &[u64]) {
    for (at, word) in (address..).step_by(8).zip(words) {
        let stored = store(at, *word);
        assert!(stored.is_ok(), "store to {at:#x}: {stored:x?}");
    }
}

/// What the audit says: pages that disagree, pages in use, VMs. Nothing in strict mode.
pub fn audit() -> Option<[u64; 3]> {
    let call = u64::from(hvc::ENABLE_CAP);
    let [status, wrong, used, vms] = hvc(call, &[0, gzvm_abi::ext::TEST_AUDIT]);
    (status == 0).then_some([wrong, used, vms])
}
