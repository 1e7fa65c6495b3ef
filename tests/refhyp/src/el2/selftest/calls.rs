// SPDX-License-Identifier: Apache-2.0
//! Host calls with good and bad arguments.

use super::el1::{hvc, load, print, status, Report};
use super::vmm::{audit, fill, Vm, BACKING, BUFFER, GUEST_BASE, GUEST_PAGES, RUN_PAGES};
use super::ALIAS;
use gzvm_abi::hvc::{self as id, tuple};
use gzvm_abi::{cap, ext, uapi, BLOCK_SIZE, PAGE_SIZE};

/// An address of the hypervisor's own.
const OWN: u64 = 0x4020_0000;
/// Rounds of the garbage test.
const ROUNDS: u32 = 20_000;

/// All tests of this file.
pub fn run(report: &mut Report, strict: bool) {
    identity(report, strict);
    let before = audit();
    report.equal("audit at the start", before, (!strict).then_some([0, 0, 0]));
    many_vms(report);
    vcpus(report, strict);
    regions(report);
    mapping(report);
    population(report, strict);
    report.equal("audit after tests of calls", audit(), before);
    garbage(report);
    report.equal("audit after garbage", audit(), before);
    own_memory(report);
}

fn cap_call(arguments: &[u64]) -> [u64; 4] {
    hvc(u64::from(id::ENABLE_CAP), arguments)
}

fn identity(report: &mut Report, strict: bool) {
    let probe = [0, 16, 0, 0];
    report.equal("PROBE", hvc(u64::from(id::PROBE), &[16, 0, 0]), probe);
    report.equal("PROBE, 32-bit id", hvc(u64::from(id::ID_BASE_SMC32 + 12), &[16, 0, 0]), probe);
    for (name, index) in [("index 6", 6), ("index 7", 7), ("index 20", 20), ("index 999", 999)] {
        report.equal(name, status(id::ID_BASE + index, &[]), id::ERR_NOT_IMPLEMENTED);
    }
    report.equal("another owner's call", hvc(0x8400_0000, &[])[0], u64::MAX);
    report.equal("QUERY_HYP_BATCH_PAGES", cap_call(&[0, cap::QUERY_HYP_BATCH_PAGES])[1], 64);
    let destroy = cap_call(&[0, cap::QUERY_DESTROY_BATCH_PAGES]);
    report.equal("QUERY_DESTROY_BATCH_PAGES", destroy[1], 128);
    let unknown = status(id::ENABLE_CAP, &[0, 0x7777]);
    report.equal("unknown capability", unknown, id::ERR_INVALID_ARGS);
    let discover = cap_call(&[0, ext::DISCOVER]);
    // CAST: the low half is the status.
    let refused = discover[0] as i32 == id::ERR_INVALID_ARGS;
    let offered = discover[2] == ext::MAGIC && discover[1] & ext::WAKE_MASK != 0;
    report.check("DISCOVER", if strict { refused } else { offered });
    if !strict {
        let limits = cap_call(&[0, ext::QUERY_LIMITS])[1];
        report.equal("QUERY_LIMITS", limits, 1 << 40 | 40 << 32 | 256 << 16 | 16);
    }
}

fn many_vms(report: &mut Report) {
    report.equal("VM type", status(id::CREATE_VM, &[1]), id::ERR_INVALID_ARGS);
    let mut ids = [0u64; 64];
    let mut distinct = true;
    for n in 0..ids.len() {
        let [status, vm, ..] = hvc(u64::from(id::CREATE_VM), &[0]);
        distinct &= status == 0 && vm != 0 && vm < 0xffff && !ids[..n].contains(&vm);
        ids[n] = vm;
    }
    report.check("64 VMs with ids of their own", distinct);
    report.equal("the 65th VM", status(id::CREATE_VM, &[0]), id::ERR_NO_MEMORY);
    report.equal("DESTROY_VM", status(id::DESTROY_VM, &[ids[5], 128]), 0);
    report.equal("DESTROY_VM again", status(id::DESTROY_VM, &[ids[5]]), id::ERR_INVALID_ARGS);
    let [_, next, ..] = hvc(u64::from(id::CREATE_VM), &[0]);
    report.check("an id is not reused at once", next != ids[5]);
    ids[5] = next;
    let destroyed = ids.iter().all(|vm| status(id::DESTROY_VM, &[*vm, 0]) == 0);
    report.check("all VMs destroyed", destroyed);
    let zero = status(id::GET_STATISTICS, &[0]);
    report.equal("VM 0 does not exist", zero, id::ERR_INVALID_ARGS);
}

fn vcpus(report: &mut Report, strict: bool) {
    let vm = Vm::new();
    let create = |index: u16, pa: u64| status(id::CREATE_VCPU, &[tuple(vm.id, index), pa]);
    report.equal("vCPU pages unaligned", create(0, RUN_PAGES + 8), id::ERR_INVALID_ARGS);
    report.equal("vCPU pages of the hypervisor", create(0, OWN), id::ERR_FAULT);
    report.equal("vCPU pages that are devices", create(0, 0x900_0000), id::ERR_FAULT);
    report.equal("vCPU pages nowhere", create(0, !0xfff), id::ERR_FAULT);
    report.equal("vCPU 16", create(16, RUN_PAGES), id::ERR_INVALID_ARGS);
    report.equal("vCPU 15", create(15, RUN_PAGES), 0);
    report.equal("vCPU 15 again", create(15, RUN_PAGES + 0x2000), id::ERR_INVALID_ARGS);
    report.equal("a run page cannot become guest memory", vm.map(GUEST_BASE, RUN_PAGES), {
        id::ERR_FAULT
    });
    let run = |x1: u64| status(id::RUN, &[x1]);
    report.equal("RUN of no vCPU", run(tuple(vm.id, 3)), id::ERR_INVALID_ARGS);
    report.equal("RUN of no VM", run(tuple(0xfffe, 0)), id::ERR_INVALID_ARGS);
    let set =
        |register: u64, value: u64| status(id::SET_ONE_REG, &[tuple(vm.id, 15), register, value]);
    report.equal("PSTATE of EL1", set(gzvm_abi::reg::PSTATE, 0x3c5), 0);
    let el2 = set(gzvm_abi::reg::PSTATE, 0x3c9);
    report.equal("PSTATE of EL2", el2, id::ERR_INVALID_ARGS);
    let between = set(gzvm_abi::reg::x(0) + 1, 0);
    report.equal("a register between two", between, id::ERR_INVALID_ARGS);
    let get = hvc(u64::from(id::GET_ONE_REG), &[tuple(vm.id, 15), gzvm_abi::reg::PSTATE]);
    report.equal("GET_ONE_REG", get[1], if strict { 0 } else { 0x3c5 });
    report.equal("DESTROY_VCPU", status(id::DESTROY_VCPU, &[tuple(vm.id, 15)]), 0);
    vm.destroy();
}

fn regions(report: &mut Report) {
    let vm = Vm::new();
    let purpose = |gpa: u64, size: u64, flags: u64| {
        status(id::MEMREGION_PURPOSE, &[vm.x1(), gpa, size, flags])
    };
    let bad = id::ERR_INVALID_ARGS;
    report.equal("region unaligned", purpose(0x1_0800, 0x1000, 1), bad);
    report.equal("region of no size", purpose(0x1_0000, 0, 1), bad);
    report.equal("region that wraps", purpose(!0xfff, 0x2000, 1), bad);
    report.equal("region beyond 40 bits", purpose(1 << 40, 0x1000, 1), bad);
    report.equal("region that overlaps", purpose(GUEST_BASE + 0x1000, 0x1000, 1), bad);
    report.equal("region with unknown purpose", purpose(0x1_0000, 0x1000, 8), bad);
    report.equal("the same region again", purpose(GUEST_BASE, GUEST_PAGES * PAGE_SIZE, 1), 0);
    let set = |size: u64, pa: u64| status(id::SET_MEMREGION, &[vm.x1(), size, pa]);
    report.equal("buffer of another size", set(4096, BUFFER), bad);
    report.equal("buffer of the hypervisor", set(8192, OWN), id::ERR_FAULT);
    let dtb = |gpa: u64, size: u64| status(id::SET_DTB_CONFIG, &[vm.x1(), gpa, size]);
    report.equal("SET_DTB_CONFIG", dtb(GUEST_BASE + 0x123, 77), 0);
    report.equal("SET_DTB_CONFIG nowhere", dtb(0x1234, 77), bad);
    fill(BUFFER, &[7, 0, 0x1_0000, 0, 0, 0]);
    let device = status(id::CREATE_DEVICE, &[vm.x1(), BUFFER]);
    report.equal("unknown device", device, id::ERR_NOT_SUPPORTED);
    fill(BUFFER, &[u64::from(uapi::DEV_TYPE_VGIC_V3_DIST), 0, 0x1_0000, 0, 0, 0]);
    report.equal("a second distributor", status(id::CREATE_DEVICE, &[vm.x1(), BUFFER]), bad);
    let irq = |number: u64, level: u64| status(id::IRQ_LINE, &[vm.x1() << 16, number, level]);
    report.equal("IRQ_LINE low", irq(0, 0), 0);
    report.equal("IRQ_LINE out of range", irq(256, 1), bad);
    vm.destroy();
}

fn mapping(report: &mut Report) {
    let (one, two) = (Vm::new(), Vm::new());
    let bad = id::ERR_INVALID_ARGS;
    report.equal("map outside of regions", one.map(0x1000, BACKING), bad);
    report.equal("map the hypervisor", one.map(GUEST_BASE, OWN), id::ERR_FAULT);
    report.equal("map a device", one.map(GUEST_BASE, 0x900_0000), id::ERR_FAULT);
    report.equal("map", one.map(GUEST_BASE, BACKING), 0);
    report.equal("map the same again", one.map(GUEST_BASE, BACKING), 0);
    report.equal("map another there", one.map(GUEST_BASE, BACKING + 0x1000), bad);
    report.equal("share with a second VM", two.map(GUEST_BASE, BACKING), 0);
    two.destroy();
    let three = Vm::new();
    three.protect();
    let taken = three.map(GUEST_BASE, BACKING);
    report.equal("give away what another VM shares", taken, id::ERR_FAULT);
    report.equal("give", three.map(GUEST_BASE, BACKING + 0x1000), 0);
    let again = one.map(GUEST_BASE + 0x1000, BACKING + 0x1000);
    report.equal("share what a protected VM has", again, id::ERR_FAULT);
    let four = Vm::new();
    four.protect();
    let stolen = four.map(GUEST_BASE, BACKING + 0x1000);
    report.equal("give what another protected VM has", stolen, id::ERR_FAULT);
    let pinned = status(id::CREATE_VCPU, &[tuple(four.id, 0), BACKING + 0x1000]);
    report.equal("a guest's page as run page", pinned, id::ERR_FAULT);
    let mailbox = |pa: u64| {
        let call = [four.x1(), cap::BLOCK_BASED_DEMAND_PAGING, BLOCK_SIZE, pa];
        status(id::ENABLE_CAP, &call)
    };
    report.equal("a guest's page as mailbox", mailbox(BACKING + 0x1000), id::ERR_FAULT);
    report.equal("mailbox", mailbox(BUFFER + 0x3000), 0);
    report.equal("a second mailbox", mailbox(BUFFER + 0x4000), bad);
    fill(BUFFER + 0x3000, &[(BACKING + 0x2000) >> 12, (BACKING + 0x2000) >> 12]);
    let block = |pages: u64| status(id::MAP_GUEST_BLOCK, &[four.x1(), 0, GUEST_BASE >> 12, pages]);
    report.equal("one page given twice", block(2), id::ERR_FAULT);
    report.equal("the page is still the host's", four.map(GUEST_BASE, BACKING + 0x2000), 0);
    report.equal("too many pages", block(513), bad);
    for vm in [one, three, four] {
        vm.destroy();
    }
}

fn population(report: &mut Report, strict: bool) {
    let vm = Vm::new();
    vm.protect();
    let call = || status(id::SET_MEMREGION, &[vm.x1(), 8192, BUFFER]);
    let list = |total: u64, pages: u64| {
        fill(BUFFER, &[1 << 32, total, GUEST_BASE, BACKING, pages]);
    };
    list(GUEST_PAGES, GUEST_PAGES - 1);
    report.equal("a list of another sum", call(), id::ERR_INVALID_ARGS);
    list(GUEST_PAGES + 1, GUEST_PAGES + 1);
    report.equal("a list beyond the region", call(), id::ERR_INVALID_ARGS);
    list(GUEST_PAGES, GUEST_PAGES);
    report.equal("a whole region", call(), 0);
    report.equal("its pages are in use", audit().map(|[_, used, _]| used), {
        (!strict).then_some(GUEST_PAGES + 4)
    });
    let calls = vm.destroy();
    report.check("destroyed in slices", calls > 1);
    let big = Vm::new();
    big.add_region(1, 0x1_0000_0000, 2048, uapi::MEM_REGION_GUEST_MEM);
    fill(BUFFER, &[1 << 32 | 1, 2048, 0x1_0000_0000, BACKING, 2048]);
    let populated = status(id::SET_MEMREGION, &[big.x1(), 8192, BUFFER]);
    report.equal("a region of many slices", populated, 0);
    let [_, used, shared, _] = hvc(u64::from(id::GET_STATISTICS), &[big.x1()]);
    report.equal("GET_STATISTICS: shared", shared, 2048 * PAGE_SIZE);
    report.check("GET_STATISTICS: used", used > 0);
    big.destroy();
}

/// Calls with random arguments, of which some are close to right. Whatever they give, the
/// hypervisor stays whole, and in the end nothing is left of them.
fn garbage(report: &mut Report) {
    let vm = Vm::new();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let picks = [0, 1, 2, 4096, 8192, vm.x1(), vm.x1() << 16, GUEST_BASE, OWN, u64::MAX, 1 << 40];
    let mut refused = 0;
    for _ in 0..ROUNDS {
        // RUN would run rubbish, and the VM is destroyed below.
        let index = match random() % 21 {
            1 | 5 => 12,
            index => index,
        };
        let mut arguments = [0; 7];
        for argument in &mut arguments {
            let pick = usize::try_from(random() % 16).unwrap_or(0);
            *argument = picks.get(pick).copied().unwrap_or_else(&mut random);
        }
        // Never this program's own pages.
        let harmless = |a: &u64| !(0x4400_0000..0xc000_0000).contains(a) || *a == GUEST_BASE;
        if arguments.iter().all(harmless) {
            let [x0, ..] = hvc(u64::from(id::ID_BASE) + index, &arguments);
            refused += u32::from(x0 != 0);
        }
    }
    print(format_args!("# {refused} of {ROUNDS} calls with garbage refused\n"));
    report.check("garbage is mostly refused", refused > ROUNDS / 2);
    // VMs that it created: ids follow the last.
    for id in 1..=0xfffeu64 {
        while status(id::DESTROY_VM, &[id, 128]) == id::ERR_BUSY {}
    }
}

fn own_memory(report: &mut Report) {
    for (name, address) in [("image", OWN), ("tables", 0x43ff_f000)] {
        let seen = load(ALIAS + address);
        let aborted = matches!(seen, Err(esr) if esr & 0x3f == 0x10);
        report.check(name, aborted);
    }
}
