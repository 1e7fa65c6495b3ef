// SPDX-License-Identifier: Apache-2.0
//! Memory that is not the host's, given to the hypervisor as the host's: to map into another VM, or
//! as one of the pages through which host and hypervisor talk.

use gzvm_abi::{hvc, uapi, PAGE_SIZE};
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::raw::{Block, Raw};
use gzvm_device_test::rawvm::{write_list, RawVm, GFN};
use zerocopy::IntoBytes;

use crate::victim::{forbidden_addresses, Victim};

/// Uses of an address, as a second VM's.
type Use = (&'static str, fn(&RawVm, u64) -> i32);

const USES: &[Use] = &[
    ("map into a second VM", |vm, pa| vm.map(pa / PAGE, GFN, 1)),
    ("map into a second VM by list", |vm, pa| vm.set_memregion(0, GFN, 1, &[(pa, 1)])),
    ("map into a second VM by mailbox", |vm, pa| {
        let mailbox = vm.raw.alloc(PAGE);
        mailbox.mapping.write(0, pa / PAGE);
        assert_eq!(vm.set_mailbox(mailbox.pa), 0, "mailbox");
        let status = vm.map_block(GFN, 1);
        // The mailbox is pinned until the VM's end.
        vm.destroy();
        status
    }),
    ("run pages", |vm, pa| vm.create_vcpu(0, pa)),
    ("mailbox", RawVm::set_mailbox),
    ("SET_MEMREGION's buffer", RawVm::set_memregion_at),
    ("CREATE_DEVICE's buffer", RawVm::create_device_at),
];

/// Two pages that are right for all uses.
fn good(raw: &Raw) -> Block {
    let block = raw.alloc(2 * PAGE);
    write_list(&block, 0, GFN + 8, 1, &[]);
    block
}

fn good_device(raw: &Raw) -> Block {
    let block = raw.alloc(2 * PAGE);
    let device = uapi::CreateDevice {
        dev_type: uapi::DEV_TYPE_VGIC_V3_DIST,
        dev_addr: 0x3fff_0000,
        dev_reg_size: uapi::VGIC_DIST_SIZE,
        ..Default::default()
    };
    block.mapping.store(0, device.as_bytes());
    block
}

fn controls(raw: &Raw, protected: bool) {
    for (name, attack) in USES {
        let block = if name.starts_with("CREATE") { good_device(raw) } else { good(raw) };
        let vm = RawVm::with_region(raw, 4);
        if protected {
            assert_eq!(vm.protect(), 0);
        }
        control(name, Got::of_status(attack(&vm, block.pa)));
    }
}

/// All uses of an address by a fresh VM; answers the statuses.
fn try_all(raw: &Raw, pa: u64, protected: bool) -> Vec<i32> {
    let mut statuses = Vec::new();
    for (name, attack) in USES {
        let vm = RawVm::with_region(raw, 4);
        if protected {
            assert_eq!(vm.protect(), 0);
        }
        let status = attack(&vm, pa);
        attempt(name, Got::of_status(status));
        statuses.push(status);
    }
    statuses
}

pub fn a_private_page_given_to_a_second_vm() {
    let mut victim = Victim::new(true);
    let page = victim.pa & !(PAGE_SIZE - 1);
    let raw = victim.raw.clone();
    for protected in [false, true] {
        // Not for what is in the page: nobody looked at that.
        assert_eq!(try_all(&raw, page, protected), [hvc::ERR_FAULT; USES.len()]);
        controls(&raw, protected);
    }
    assert!(victim.intact());
}

pub fn the_hypervisor_s_memory_given_to_a_vm() {
    let raw = Raw::get();
    for pa in forbidden_addresses() {
        // SET_PROTECTED_VM later would donate what was shared.
        for protected in [false, true] {
            try_all(&raw, pa, protected);
        }
    }
    for protected in [false, true] {
        controls(&raw, protected);
    }
}

pub fn one_page_given_twice() {
    let raw = Raw::get();
    let block = raw.alloc(2 * PAGE);
    let vm = RawVm::protected(&raw, 8);
    assert_eq!(vm.map(block.pfn(), GFN, 1), 0);
    attempt("a VM's own page at a second address", Got::of_status(vm.map(block.pfn(), GFN + 1, 1)));
    let other = block.pfn() + 1;
    attempt("another page at the same address", Got::of_status(vm.map(other, GFN, 1)));
    // Idempotent, as the ABI says.
    assert_eq!(vm.map(block.pfn(), GFN, 1), 0);
    let open = RawVm::with_region(&raw, 8);
    assert_eq!(open.map(other, GFN, 1), 0);
    control("a VM's own page at a second address", Got::of_status(open.map(other, GFN + 1, 1)));
    attempt("a shared page given away", Got::of_status(vm.map(other, GFN + 2, 1)));
    open.destroy();
    control("a shared page given away", Got::of_status(vm.map(other, GFN + 2, 1)));
}

/// What the hypervisor reads itself must not be what a guest can write.
pub fn pages_in_use_by_the_hypervisor_given_to_a_vm() {
    let raw = Raw::get();
    let (pages, mailbox) = (raw.alloc(2 * PAGE), raw.alloc(PAGE));
    let owner = RawVm::with_region(&raw, 4);
    assert_eq!(owner.create_vcpu(0, pages.pa), 0);
    assert_eq!(owner.set_mailbox(mailbox.pa), 0);
    for protected in [false, true] {
        let vm = RawVm::with_region(&raw, 4);
        if protected {
            assert_eq!(vm.protect(), 0);
        }
        for pfn in [pages.pfn(), pages.pfn() + 1, mailbox.pfn()] {
            attempt("a page in use, into a VM", Got::of_status(vm.map(pfn, GFN, 1)));
        }
    }
    assert_eq!(raw.status(hvc::DESTROY_VCPU, &[owner.vcpu_arg(0)]), 0);
    let vm = RawVm::protected(&raw, 4);
    control("a page in use, into a VM", Got::of_status(vm.map(pages.pfn(), GFN, 1)));
}

/// A region that reaches behind the end, or whose numbers overflow.
pub fn ranges_that_overflow() {
    let raw = Raw::get();
    let block = raw.alloc(16 * PAGE);
    let vm = RawVm::with_region(&raw, 8);
    let name = "map with numbers that overflow";
    let (pfn, top) = (block.pfn(), u64::MAX);
    for (pfn, gfn, pages) in [
        (pfn, GFN, 9),
        (pfn, GFN, 513),
        (pfn, GFN, top),
        (pfn, GFN + 8, 1),
        (pfn, GFN - 1, 2),
        (pfn, top, 2),
        (pfn, top - 7, 8),
        (top, GFN, 2),
        (pfn | 1 << 52, GFN, 1),
        (pfn, GFN | 1 << 52, 1),
        (pfn, GFN | 1 << 63, 1),
    ] {
        attempt(name, Got::of_status(vm.map(pfn, gfn, pages)));
    }
    let list: &[&[(u64, u32)]] = &[
        &[(block.pa, 9)],
        &[(block.pa, u32::MAX)],
        &[(block.pa + 1, 8)],
        &[(u64::MAX - PAGE + 1, 8)],
        &[(block.pa, 4), (block.pa + 4 * PAGE, u32::MAX)],
    ];
    for constituents in list {
        attempt(name, Got::of_status(vm.set_memregion(0, GFN, 8, constituents)));
    }
    control(name, Got::of_status(vm.map(pfn, GFN, 4)));
    let list = [(block.pa + 4 * PAGE, 2), (block.pa + 8 * PAGE, 2)];
    control(name, Got::of_status(vm.set_memregion(0, GFN + 4, 4, &list)));
}
