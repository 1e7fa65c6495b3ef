// SPDX-License-Identifier: Apache-2.0
//! Everything that can fail, made to fail in turn: each hypercall of a VM's life by the
//! hypervisor's fault plan, each allocation by the kernel's fault injection. After each, nothing is
//! left behind: not in the hypervisor, not pinned, not open.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use gzvm_abi::{ext, hvc, BLOCK_PAGES};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::life::{available, live_fully, memory, statistics, vms};
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::raw::{Audit, Raw};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, status_field};
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;
/// Where the tests have memory beside the machine's own.
const EXTRA: u64 = RAM + 512 * MIB;
/// What guests write.
const WRITTEN: u64 = 22;
const FAILSLAB: &str = "/sys/kernel/debug/failslab";

/// Statuses that the driver knows, one that it does not, and absurd ones.
const STATUSES: [i32; 8] = [
    hvc::ERR_NO_MEMORY,
    hvc::ERR_INVALID_ARGS,
    hvc::ERR_NOT_SUPPORTED,
    hvc::ERR_NOT_IMPLEMENTED,
    hvc::ERR_BUSY,
    hvc::ERR_FAULT,
    1,
    i32::MIN,
];
/// How often a function is called in a life; later calls are like earlier ones.
const CALLS: u64 = 6;

/// A plan for one function; ends with it.
struct Plan<'a> {
    raw: &'a Raw,
    function: u64,
}

impl<'a> Plan<'a> {
    /// The call number `skip`, counted from 0, and `count` - 1 more answer `status`.
    fn new(raw: &'a Raw, function: u64, skip: u64, count: u64, status: i32, mode: u64) -> Self {
        let plan = Self { raw, function };
        // CAST: sign extension; the plan reads 32 bits.
        plan.set(&[skip, count, i64::from(status) as u64, mode]);
        plan
    }

    /// Answers how often the plan before struck.
    fn set(&self, entry: &[u64]) -> u64 {
        let mut arguments = vec![0, ext::TEST_FAULT, self.function];
        arguments.extend(entry);
        let (status, [struck, ..]) = self.raw.call(hvc::ENABLE_CAP, &arguments);
        assert_eq!(status, hvc::NO_ERROR, "fault plan");
        struck
    }

    /// Ends the plan; answers how often it struck.
    fn end(self) -> u64 {
        self.set(&[0; 4])
    }
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        self.set(&[0; 4]);
    }
}

/// What must be as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Level {
    audit: Option<Audit>,
    pinned: u64,
    files: usize,
    vms: Option<usize>,
}

impl Level {
    fn now(raw: &Raw) -> Self {
        let files = fs::read_dir("/proc/self/fd").expect("/proc is mounted").count();
        Self { audit: raw.audit(), pinned: status_field("VmPin"), files, vms: vms() }
    }
}

/// Destroys VMs that nobody knows of any more. Ids go upwards, so a new one bounds them.
fn destroy_orphans(raw: &Raw, vms: u64) {
    let (status, [newest, ..]) = raw.call(hvc::CREATE_VM, &[0]);
    assert_eq!(status, hvc::NO_ERROR);
    for id in (1..=newest).rev() {
        if raw.audit().is_some_and(|audit| audit.vms <= vms) {
            return;
        }
        while raw.status(hvc::DESTROY_VM, &[id, 0]) == hvc::ERR_BUSY {}
    }
}

/// Lives of VMs, one call struck in each, until a life has no such call any more.
fn sweep(raw: &Raw, function: u32, mode: u64, protect: bool) {
    let (ram, event) = (memory(), Event::new());
    let name = hvc::name(function).unwrap_or("?");
    let before = Level::now(raw);
    let mut strikes = 0;
    // The first call with all statuses, later ones with one each.
    let later = (1..CALLS).map(|skip| (skip, STATUSES[(skip % 8) as usize]));
    for (skip, status) in STATUSES.map(|status| (0, status)).into_iter().chain(later) {
        let plan = Plan::new(raw, u64::from(function - hvc::ID_BASE), skip, 1, status, mode);
        let result = live_fully(&ram, &event, protect);
        strikes += plan.end();
        event.take();
        assert!(!matches!(result, Err(errno) if !(1..134).contains(&errno)), "{result:?}");
        let mut after = Level::now(raw);
        if function == hvc::CREATE_VM && mode == ext::TEST_FAULT_LIE {
            // The host was not told of this VM, and cannot end it.
            destroy_orphans(raw, before.audit.map_or(0, |audit| audit.vms));
            after = Level::now(raw);
        }
        assert_eq!(after, before, "{name} {skip} answers {status}, and the VMM gets {result:?}");
    }
    assert!(strikes > 0, "{name} is not a call of this life");
    assert_eq!(live_fully(&ram, &event, protect), Ok(()), "a life after the failures of {name}");
}

/// The calls of a life whose failure leaves nothing.
const FUNCTIONS: &[u32] = &[
    hvc::CREATE_VM,
    hvc::CREATE_VCPU,
    hvc::DESTROY_VCPU,
    hvc::SET_MEMREGION,
    hvc::RUN,
    hvc::SET_ONE_REG,
    hvc::IRQ_LINE,
    hvc::CREATE_DEVICE,
    hvc::ENABLE_CAP,
    hvc::MEMREGION_PURPOSE,
    hvc::SET_DTB_CONFIG,
    hvc::MAP_GUEST_BLOCK,
    hvc::GET_STATISTICS,
];

fn sweep_all(mode: u64, protected: bool) {
    let raw = Raw::get();
    for function in FUNCTIONS {
        sweep(&raw, *function, mode, protected);
    }
}

fn each_hypercall_is_refused_in_turn() {
    sweep_all(ext::TEST_FAULT_REFUSE, false);
}

fn each_hypercall_lies_in_turn() {
    sweep_all(ext::TEST_FAULT_LIE, false);
}

fn each_hypercall_of_a_protected_vm_is_refused_in_turn() {
    sweep_all(ext::TEST_FAULT_REFUSE, true);
}

fn each_hypercall_of_a_protected_vm_lies_in_turn() {
    sweep_all(ext::TEST_FAULT_LIE, true);
}

/// Memory that the hypervisor does not give back stays pinned: somebody else would find it in use.
fn a_vm_that_is_not_destroyed_keeps_its_memory() {
    let raw = Raw::get();
    let before = raw.audit().expect("audit");
    for (status, mode) in [
        (hvc::ERR_INVALID_ARGS, ext::TEST_FAULT_REFUSE),
        (i32::MIN, ext::TEST_FAULT_REFUSE),
        (hvc::ERR_FAULT, ext::TEST_FAULT_LIE),
    ] {
        // In a process of its own, which takes the account of its pins with it.
        let status = sys::in_child(|| {
            let (ram, event) = (memory(), Event::new());
            let index = u64::from(hvc::DESTROY_VM - hvc::ID_BASE);
            let plan = Plan::new(&raw, index, 0, 1, status, mode);
            let lived = live_fully(&ram, &event, true);
            assert_eq!((lived, plan.end()), (Ok(()), 1));
            u8::from(status_field("VmPin") >= 4096)
        });
        assert_eq!(status, 1, "the pages stayed pinned");
        destroy_orphans(&raw, before.vms);
    }
    // For a while it is only busy.
    let index = u64::from(hvc::DESTROY_VM - hvc::ID_BASE);
    let plan = Plan::new(&raw, index, 0, 40, hvc::ERR_BUSY, ext::TEST_FAULT_REFUSE);
    let (ram, event) = (memory(), Event::new());
    let pinned = status_field("VmPin");
    assert_eq!(live_fully(&ram, &event, true), Ok(()));
    assert!(plan.end() > 0);
    assert_eq!(status_field("VmPin"), pinned);
}

/// Pages of vCPUs that the hypervisor did not give up are kept until their VM is gone, and no longer.
fn pages_of_refused_vcpus_go_with_their_vm() {
    const VMS: u64 = 512;
    const VCPUS: u64 = 8;
    // Two pages each.
    const KIB: u64 = VMS * VCPUS * 8;
    let raw = Raw::get();
    let round = || {
        for _ in 0..VMS {
            let index = u64::from(hvc::DESTROY_VCPU - hvc::ID_BASE);
            let mode = ext::TEST_FAULT_REFUSE;
            let plan = Plan::new(&raw, index, 0, VCPUS, hvc::ERR_INVALID_ARGS, mode);
            let machine = Machine::new(PAGE, guest::poke());
            (0..VCPUS).for_each(|index| drop(machine.vcpu(index as usize)));
            assert_eq!(plan.end(), VCPUS);
        }
    };
    // What caches take and give comes and goes, some of it late; what is lost is lost each time.
    let lost: Vec<_> = (0..5)
        .map(|_| {
            let before = available();
            round();
            let mut lost = before.saturating_sub(available());
            for _ in 0..20 {
                if lost < KIB / 4 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
                lost = before.saturating_sub(available());
            }
            lost
        })
        .collect();
    println!("KiB less than before: {lost:?}, those pages have {KIB}");
    assert!(lost.iter().any(|lost| *lost < KIB / 4), "{lost:?} KiB of {KIB}");
}

/// Calls that take long are still calls; the machine's watchdogs stay quiet.
fn slow_hypercalls_are_waited_for() {
    let raw = Raw::get();
    let (ram, event) = (memory(), Event::new());
    for function in FUNCTIONS {
        let index = u64::from(function - hvc::ID_BASE);
        let plan = Plan::new(&raw, index, 0, 20, 0, ext::TEST_FAULT_DELAY);
        assert_eq!(
            live_fully(&ram, &event, false),
            Ok(()),
            "{}",
            hvc::name(*function).unwrap_or("?")
        );
        assert!(plan.end() > 0);
    }
}

/// The guest of a hypervisor that is busy for a while waits; one that is busy for ever ends in an
/// exception, and the VMM can try again.
fn a_busy_hypervisor_is_asked_again() {
    let raw = Raw::get();
    let index = u64::from(hvc::MAP_GUEST_BLOCK - hvc::ID_BASE);
    let busy = |times| Plan::new(&raw, index, 0, times, hvc::ERR_BUSY, ext::TEST_FAULT_REFUSE);
    let memory = Mapping::anonymous(2 * MIB);
    memory.write(0, 11);
    let plan = busy(40);
    let (machine, mut vcpu) = poker(&memory);
    vcpu.answer_next_read(EXTRA);
    assert_eq!((vcpu.report(), plan.end()), (11, 40));
    drop((vcpu, machine));

    memory.write(0, 11);
    let (_machine, mut vcpu) = poker(&memory);
    vcpu.answer_next_read(EXTRA);
    let plan = busy(u64::MAX);
    match vcpu.run() {
        Ok(Exit::Exception(exception)) => {
            assert_eq!(exception.fault_gpa & !0xfff, EXTRA);
            assert_eq!(exception.error_code, libc::EAGAIN as u32);
        }
        other => panic!("{other:?}"),
    }
    assert!(plan.end() > 1000);
    assert_eq!(vcpu.report(), 11, "the next RUN tries again");
}

/// What the guest finds in a page at [`EXTRA`], where it leaves [`WRITTEN`].
fn poke(vcpu: &mut Vcpu, page: u64) -> u64 {
    vcpu.answer_next_read(EXTRA + page * PAGE);
    vcpu.report()
}

/// A VM whose guest writes [`WRITTEN`] where it is told, and other memory at [`EXTRA`].
fn poker(extra: &Mapping) -> (Machine, Vcpu) {
    let machine = Machine::new(2 * MIB, guest::poke());
    sys::set_region(&machine.vm, 7, EXTRA, extra.size(), extra.address()).expect("slot");
    let vcpu = machine.boot_vcpu(&[0, WRITTEN]);
    (machine, vcpu)
}

/// How often something was mapped into the only VM, if the kernel tells.
fn mappings() -> Option<u64> {
    let stats = statistics("vm_stats")?;
    stats.lines().find_map(|line| line.strip_prefix("mappings ")?.parse().ok())
}

/// Changes of the owner's mapping during a hypercall that maps the old pages.
fn w25_a_change_waits_for_a_slow_mapping() {
    const BATCH: u64 = 64;
    const TUNABLE: &str = "/sys/kernel/gzvm/demand_paging_batch_pages";
    let raw = Raw::get();
    let memory = Mapping::anonymous(2 * MIB);
    memory.ask_for_small_pages();
    let (machine, mut vcpu) = poker(&memory);
    if !sys::follows_owner(&machine.vm) || mappings().is_none() {
        return;
    }
    let usual = fs::read_to_string(TUNABLE).expect("tunable");
    fs::write(TUNABLE, BATCH.to_string()).expect("tunable");
    let firsts = || (0..BLOCK_PAGES).step_by(BATCH as usize);
    let fill = |value| firsts().for_each(|page| memory.write(page * PAGE, value));
    for batches in 1..6 {
        memory.drop_pages(0, 2 * MIB);
        fill(11);
        let before = mappings();
        let index = u64::from(hvc::MAP_GUEST_BLOCK - hvc::ID_BASE);
        let plan = Plan::new(&raw, index, 0, 1000, 0, ext::TEST_FAULT_DELAY);
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| poke(&mut vcpu, 0));
            // Then the next batch is with the hypervisor.
            while mappings() < before.map(|count| count + batches) && !slow.is_finished() {
                std::thread::yield_now();
            }
            memory.drop_pages(0, 2 * MIB);
            fill(33);
            let found = slow.join().expect("the vCPU");
            assert!([0, 11, 33].contains(&found), "{found}");
        });
        assert!(plan.end() > 0);
        for page in firsts().skip(1) {
            assert_eq!(poke(&mut vcpu, page), 33, "page {page} after {batches} batches");
        }
    }
    fs::write(TUNABLE, usual).expect("tunable");
}

/// A hole in a record makes two of it, for which there may be no memory: then more is taken.
fn w25_pages_are_taken_without_memory_for_a_record() {
    let Some(fail) = FailNth::open() else { return };
    let memory = Mapping::anonymous(4 * MIB);
    memory.ask_for_small_pages();
    let (machine, mut vcpu) = poker(&memory);
    if !sys::follows_owner(&machine.vm) {
        return;
    }
    for page in 0..2 * BLOCK_PAGES {
        memory.write(page * PAGE, 100 + page);
        assert_eq!(poke(&mut vcpu, page), 100 + page);
    }
    for page in (3..2 * BLOCK_PAGES).step_by(7) {
        let pinned = status_field("VmPin");
        fail.set(1);
        memory.drop_pages(page * PAGE, PAGE);
        fail.struck();
        assert!(status_field("VmPin") <= pinned - 4, "page {page} is unpinned");
        memory.write(page * PAGE, 33);
        assert_eq!(poke(&mut vcpu, page), 33, "page {page}");
        for beside in [page - 1, page + 1] {
            assert_eq!(poke(&mut vcpu, beside), WRITTEN, "beside page {page}");
        }
    }
}

/// The kernel's own counter of what fails: number `n` of this thread's next allocations.
struct FailNth(fs::File);

impl FailNth {
    fn open() -> Option<Self> {
        // With sleeping allocations, too, which are nearly all.
        fs::write(format!("{FAILSLAB}/ignore-gfp-wait"), "N").ok()?;
        // Without a trace in the log for each.
        fs::write(format!("{FAILSLAB}/verbose"), "0").ok()?;
        let file = fs::File::options().read(true).write(true).open("/proc/thread-self/fail-nth");
        Some(Self(file.ok()?))
    }

    fn set(&self, n: u32) {
        // The write itself may be what fails.
        while self.0.write_at(n.to_string().as_bytes(), 0).is_err() {}
    }

    /// Whether it came to that allocation; ends the counting.
    fn struck(&self) -> bool {
        let mut text = [0; 16];
        let read = self.0.read_at(&mut text, 0);
        self.set(0);
        let left = std::str::from_utf8(&text[..read.expect("fail-nth")]).expect("a number");
        left.trim() == "0"
    }
}

fn w27_each_allocation_fails_in_turn() {
    let Some(fail) = FailNth::open() else { return };
    let (ram, event): (Mapping, _) = (memory(), Event::new());
    for protect in [false, true] {
        // What is made once and kept is made now.
        assert_eq!(live_fully(&ram, &event, protect), Ok(()));
        let pinned = status_field("VmPin");
        let (mut errnos, mut failed, mut n) = (BTreeSet::new(), 0, 0);
        loop {
            n += 1;
            assert!(n < 20_000, "a life has no end of allocations");
            fail.set(n);
            let result = live_fully(&ram, &event, protect);
            let struck = fail.struck();
            event.take();
            if let Err(errno) = result {
                errnos.insert(errno);
                failed += 1;
            }
            if !struck {
                break assert_eq!(result, Ok(()), "without a failure");
            }
        }
        assert_eq!(vms().unwrap_or(0), 0);
        assert_eq!(status_field("VmPin"), pinned);
        println!("{n} allocations, {failed} of them fatal for the call: errnos {errnos:?}");
        assert!(failed > 20 && errnos == BTreeSet::from([libc::ENOMEM]), "{failed}: {errnos:?}");
    }
}

fn main() {
    tests![
        Needs::RawTest => [
            each_hypercall_is_refused_in_turn,
            each_hypercall_lies_in_turn,
            each_hypercall_of_a_protected_vm_is_refused_in_turn,
            each_hypercall_of_a_protected_vm_lies_in_turn,
            a_vm_that_is_not_destroyed_keeps_its_memory,
            pages_of_refused_vcpus_go_with_their_vm,
            slow_hypercalls_are_waited_for,
            a_busy_hypervisor_is_asked_again,
            w25_a_change_waits_for_a_slow_mapping,
        ],
        Needs::Device => [
            w27_each_allocation_fails_in_turn,
            w25_pages_are_taken_without_memory_for_a_record,
        ],
    ]
}
