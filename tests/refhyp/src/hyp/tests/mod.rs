// SPDX-License-Identifier: Apache-2.0
//! The host's calls over a machine of a few pages: the garbage that a host can send, and what one
//! guest's life looks like from outside.

#[cfg(feature = "test-hooks")]
mod faults;
mod firmware;
mod lines;
mod power;
mod ranges;

use super::*;
use crate::esr::{Access, Esr};
use crate::guest::{Next, Trap};
use crate::page::{Page, Pages};
use crate::pool::Pool;
use crate::stage2::Kind;
use crate::testing::FakeHardware;
use gzvm_abi::run::{HwState, Mmio, Run};
use gzvm_abi::{cap, guest, reg, PAGE_SIZE};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

const FIRST: u64 = 0x400;
const HOST_PAGES: u64 = 64;
const ALL_PAGES: u64 = 300;
const GUEST: u64 = 0x8000_0000;
const BUFFER: u64 = FIRST * PAGE_SIZE;
const RUN_PAGES: u64 = (FIRST + 2) * PAGE_SIZE;
const BACKING: u64 = FIRST + 16;

/// A hypervisor with everything it needs, leaked: tests are short.
fn hypervisor(options: Options) -> Hypervisor<'static, FakeHardware> {
    machine(options, HOST_PAGES)
}

/// The same with a host of so many pages.
fn machine(options: Options, host_pages: u64) -> Hypervisor<'static, FakeHardware> {
    let all = host_pages + ALL_PAGES - HOST_PAGES;
    let hw = FakeHardware::new(FIRST * PAGE_SIZE, all as usize);
    let states: Vec<Page> =
        (0..all).map(|n| if n < host_pages { Page::FREE } else { Page::Hypervisor }).collect();
    let host_end = (FIRST + host_pages) * PAGE_SIZE;
    let pool = Pool::new(host_end, (FIRST + all) * PAGE_SIZE);
    let pages = Pages::new(FIRST, states.leak());
    let mut memory = Memory::new(&hw, pages, pool, 16).expect("room");
    memory.map_identity(&hw, BUFFER, host_end, Kind::Memory).expect("identity map");
    let vms: Vec<Vm> = (0..crate::memory::MAX_VMS).map(|_| Vm::new()).collect();
    Hypervisor::new(hw, memory, vms.leak(), options, Generator::new(&[1; 32], false))
}

fn call<H: Hardware>(hyp: &Hypervisor<'_, H>, id: u32, args: &[u64]) -> [u64; 4] {
    let mut all = [0; 7];
    all[..args.len()].copy_from_slice(args);
    loop {
        match hyp.host_call(&Call { index: index(id), args: all }) {
            Answer::Done(results) => return results,
            Answer::Again => (),
            Answer::Run { .. } => panic!("not a call that these tests make"),
        }
    }
}

fn status<H: Hardware>(hyp: &Hypervisor<'_, H>, id: u32, args: &[u64]) -> i32 {
    call(hyp, id, args)[0] as i32
}

/// A VM with eight pages of memory at [`GUEST`] and one vCPU; its id.
fn vm(hyp: &Hypervisor<'_, FakeHardware>, protected: bool) -> u64 {
    let [0, id, ..] = call(hyp, hvc::CREATE_VM, &[0]) else { panic!("no VM") };
    assert_eq!(status(hyp, hvc::MEMREGION_PURPOSE, &[id, GUEST, 8 * PAGE_SIZE, 1]), 0);
    hyp.hw.write(BUFFER, 5);
    hyp.hw.write(BUFFER + 8, 8);
    hyp.hw.write(BUFFER + 16, GUEST);
    assert_eq!(status(hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
    if protected {
        let args = [id, cap::PROTECTED_VM, cap::PVM_SET_PROTECTED_VM];
        assert_eq!(status(hyp, hvc::ENABLE_CAP, &args), 0);
    }
    assert_eq!(status(hyp, hvc::CREATE_VCPU, &[id << 16, RUN_PAGES]), 0);
    assert_eq!(status(hyp, hvc::SET_ONE_REG, &[id << 16, reg::PC, GUEST]), 0);
    id
}

fn trap(esr: u64, ipa: u64) -> Trap {
    Trap { esr: Esr(esr), far: ipa & 0xfff, hpfar: (ipa >> 8) & !0xf }
}

/// A load or store of four bytes from or to x1.
fn data_abort(write: bool) -> u64 {
    0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 1 << 16 | u64::from(write) << 6 | 0x07
}

fn begin<'a>(hyp: &Hypervisor<'a, FakeHardware>, id: u64) -> Running<'a> {
    let ids = crate::hostcall::Ids { vm: id as u16, vcpu: 0 };
    let Ok(Begin::Run(running)) = hyp.begin_run(ids) else { panic!("{ids:?} does not run") };
    running
}

fn hvc_call(hyp: &Hypervisor<'_, FakeHardware>, run: &mut Running<'_>, x: &[u64]) -> Next {
    run.vcpu.regs.x[..x.len()].copy_from_slice(x);
    hyp.guest_trap(run, trap(0x16 << 26, 0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_breaks_anything(
        calls in prop::collection::vec((0u32..22, prop::array::uniform7(prop_oneof![
            Just(0u64), Just(1), Just(2), Just(1 << 16), Just(2 << 16), Just(4096), Just(8192),
            Just(GUEST), Just(GUEST >> 12), Just(BUFFER), Just(RUN_PAGES), Just(BACKING),
            Just(cap::PROTECTED_VM), Just(0x9201), Just(reg::PC), any::<u64>(),
        ])), 1..80)
    ) {
        let hyp = hypervisor(Options::default());
        let idle = hyp.memory.lock().audit(&hyp.hw);
        vm(&hyp, false);
        for (index, args) in calls {
            for _ in 0..3 {
                if hyp.host_call(&Call { index, args }) != Answer::Again {
                    break;
                }
            }
            prop_assert_eq!(hyp.memory.lock().audit(&hyp.hw).wrong, 0);
        }
        for id in 1..400 {
            while status(&hyp, hvc::DESTROY_VM, &[id, 1]) == hvc::ERR_BUSY {}
        }
        prop_assert_eq!(hyp.memory.lock().audit(&hyp.hw), idle);
    }
}

#[test]
fn an_mmio_load_is_completed_at_the_next_run() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let mut run = begin(&hyp, id);
    let next = hyp.guest_trap(&mut run, trap(data_abort(false), 0x3f8));
    let Next::Exit(exit @ Exit::Mmio(mmio)) = next else { panic!("{next:?}") };
    assert_eq!((mmio.phys_addr, mmio.size, mmio.is_write, mmio.reg_nr), (0x3f8, 4, 0, 1));
    assert_eq!(run.vcpu.regs.pc, GUEST + 4);
    hyp.report(&run, &exit, &Default::default());
    drop(run);
    let mut page = Run::new_zeroed();
    hyp.hw.copy_in(RUN_PAGES, page.as_mut_bytes());
    assert_eq!(page.exit_reason, gzvm_abi::run::EXIT_MMIO);
    // The VMM answers, and scribbles over what is not its business.
    page.set_payload(&Mmio { data: [1, 2, 3, 4, 5, 6, 7, 8], reg_nr: 9, size: 1, ..mmio });
    hyp.hw.copy_out(RUN_PAGES, page.as_bytes());
    let run = begin(&hyp, id);
    assert_eq!(run.vcpu.regs.x[1], 0x0403_0201);
    assert_eq!(run.vcpu.regs.x[9], 0);
}

#[test]
fn faults_name_the_page_in_regions_and_are_mmio_outside() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let mut run = begin(&hyp, id);
    let fault = |ipa: u64| Next::Exit(Exit::Fault(ipa));
    let at = GUEST + 0x2008;
    assert_eq!(hyp.guest_trap(&mut run, trap(data_abort(true), at)), fault(GUEST + 0x2000));
    // A fetch outside of memory, and an access that cannot be described.
    assert_eq!(hyp.guest_trap(&mut run, trap(0x20 << 26 | 7, 0x1000)), fault(0x1000));
    let unknown = data_abort(false) & !(1 << 24);
    assert_eq!(hyp.guest_trap(&mut run, trap(unknown, 0x1008)), fault(0x1008));
    // Once the page is there, the access is tried again.
    assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 5, BACKING, (GUEST >> 12) + 2, 1]), 0);
    assert_eq!(hyp.guest_trap(&mut run, trap(data_abort(true), at)), Next::Resume);
    assert_eq!(run.vcpu.regs.pc, GUEST);
}

#[test]
fn an_enrolled_guest_shows_only_what_it_named() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let mut run = begin(&hyp, id);
    assert_eq!(hvc_call(&hyp, &mut run, &[u64::from(guest::MMIO_GUARD_ENROLL)]), Next::Resume);
    let access = trap(data_abort(true), 0x1000);
    assert!(matches!(hyp.guest_trap(&mut run, access), Next::Inject(_)));
    let map = u64::from(guest::MMIO_GUARD_MAP);
    hvc_call(&hyp, &mut run, &[map, 0x1000]);
    assert_eq!(run.vcpu.regs.x[0], 0);
    assert!(matches!(hyp.guest_trap(&mut run, access), Next::Exit(Exit::Mmio(_))));
    for bad in [0x1001, GUEST, 1 << 40] {
        hvc_call(&hyp, &mut run, &[map, bad]);
        assert_eq!(run.vcpu.regs.x[0] as i64, guest::INVALID_PARAMETER, "{bad:#x}");
    }
    hvc_call(&hyp, &mut run, &[u64::from(guest::MMIO_GUARD_UNMAP), 0x1000]);
    assert!(matches!(hyp.guest_trap(&mut run, access), Next::Inject(_)));
}

#[test]
fn sharing_waits_for_the_page_and_undoes_itself() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let mut run = begin(&hyp, id);
    run.vcpu.regs.pc = GUEST + 0x104;
    let share = [u64::from(guest::MEM_SHARE), GUEST];
    assert_eq!(hvc_call(&hyp, &mut run, &share), Next::Exit(Exit::Fault(GUEST)));
    assert_eq!(run.vcpu.regs.pc, GUEST + 0x100, "the call is made again");
    assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 5, BACKING, GUEST >> 12, 1]), 0);
    assert_eq!(hvc_call(&hyp, &mut run, &share), Next::Resume);
    assert_eq!(hyp.memory.lock().page(BACKING), Page::Guest { vm: 0, open: true });
    let hide = [u64::from(guest::MEM_UNSHARE), GUEST];
    hvc_call(&hyp, &mut run, &hide);
    assert_eq!(hyp.memory.lock().page(BACKING), Page::Guest { vm: 0, open: false });
    hvc_call(&hyp, &mut run, &hide);
    assert_eq!(run.vcpu.regs.x[0] as i64, guest::INVALID_PARAMETER);
}

#[test]
fn the_pool_of_a_protected_vm_is_shared_all_along() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let pool = GUEST + 8 * PAGE_SIZE;
    let swiotlb = u64::from(gzvm_abi::uapi::MEM_REGION_STATIC_SWIOTLB);
    assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &[id, pool, 2 * PAGE_SIZE, swiotlb]), 0);
    [6, 2, pool].iter().zip(0..).for_each(|(word, n)| hyp.hw.write(BUFFER + n * 8, *word));
    assert_eq!(status(&hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
    assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 6, BACKING, pool >> 12, 1]), 0);
    let shared = Page::Host { shares: 1, pins: 0 };
    assert_eq!(hyp.memory.lock().page(BACKING), shared);
    let mut run = begin(&hyp, id);
    // Linux shares its pool, whether a page of it is there or not, and never hides it.
    for (call, ipa) in [guest::MEM_SHARE, guest::MEM_UNSHARE]
        .into_iter()
        .flat_map(|call| [(call, pool), (call, pool + PAGE_SIZE)])
    {
        assert_eq!(hvc_call(&hyp, &mut run, &[u64::from(call), ipa]), Next::Resume);
        assert_eq!(run.vcpu.regs.x[0], 0);
    }
    assert_eq!(hyp.memory.lock().page(BACKING), shared);
    // What comes back was the host's: it is as the guest left it.
    hyp.hw.write(BACKING * PAGE_SIZE, 77);
    let next = hvc_call(&hyp, &mut run, &[u64::from(guest::MEM_RELINQUISH), pool, 0, 0]);
    assert!(matches!(next, Next::Exit(Exit::Hypercall(_))));
    assert_eq!(hyp.memory.lock().page(BACKING), Page::FREE);
    assert_eq!(hyp.hw.read(BACKING * PAGE_SIZE), 77);
}

/// Else pages that the host sees could pass for memory of the guest's own.
#[test]
fn what_regions_are_for_is_settled_with_protection() {
    let swiotlb = u64::from(gzvm_abi::uapi::MEM_REGION_STATIC_SWIOTLB);
    for protected in [false, true] {
        let hyp = hypervisor(Options::default());
        let id = vm(&hyp, protected);
        let region = |purpose| [id, GUEST, 8 * PAGE_SIZE, purpose];
        let refused = if protected { hvc::ERR_INVALID_ARGS } else { 0 };
        assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &region(swiotlb)), refused);
        assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &region(1)), 0, "the same as ever");
        assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 5, BACKING, GUEST >> 12, 1]), 0);
        let owner = if protected {
            Page::Guest { vm: 0, open: false }
        } else {
            Page::Host { shares: 1, pins: 0 }
        };
        assert_eq!(hyp.memory.lock().page(BACKING), owner);
    }
}

#[test]
fn relinquish_succeeds_whatever_the_host_leaves_in_the_page() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 5, BACKING, GUEST >> 12, 1]), 0);
    let mut run = begin(&hyp, id);
    hyp.hw.write(BACKING * PAGE_SIZE, 77);
    let next = hvc_call(&hyp, &mut run, &[u64::from(guest::MEM_RELINQUISH), GUEST, 0, 0]);
    let Next::Exit(exit @ Exit::Hypercall(args)) = next else { panic!("{next:?}") };
    assert_eq!(args, [u64::from(guest::MEM_RELINQUISH), GUEST, 0, 0, 0, 0, 0, 0]);
    assert_eq!(hyp.memory.lock().page(BACKING), Page::FREE);
    assert_eq!(hyp.hw.read(BACKING * PAGE_SIZE), 0);
    hyp.report(&run, &exit, &Default::default());
    drop(run);
    assert_eq!(begin(&hyp, id).vcpu.regs.x[0], 0);
}

#[test]
fn idle_tells_how_long_and_other_exits_clear_it() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let mut run = begin(&hyp, id);
    run.vcpu.physical_timer = crate::timer::Timer { control: 1, compare: 1500 };
    let next = hyp.guest_trap(&mut run, trap(0x01 << 26, 0));
    assert_eq!(next, Next::Exit(Exit::Idle(500)));
    let state = |run: &Running<'_>, exit: Exit| {
        hyp.report(run, &exit, &Default::default());
        let mut state = HwState::new_zeroed();
        hyp.hw.copy_in(RUN_PAGES + PAGE_SIZE, state.as_mut_bytes());
        (state.vtimer_delay, state.vtimer_migrate)
    };
    assert_eq!(state(&run, Exit::Idle(500)), (500, 1));
    assert_eq!(state(&run, Exit::Irq), (0, 0));
}

#[test]
fn one_vcpu_runs_once_at_a_time_and_outlives_no_vm() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let ids = crate::hostcall::Ids { vm: id as u16, vcpu: 0 };
    let run = begin(&hyp, id);
    assert_eq!(hyp.begin_run(ids).err(), Some(hvc::ERR_BUSY));
    assert_eq!(status(&hyp, hvc::DESTROY_VCPU, &[id << 16]), hvc::ERR_BUSY);
    assert_eq!(status(&hyp, hvc::DESTROY_VM, &[id, 1]), hvc::ERR_BUSY);
    assert!(hyp.stopping(run.slot));
    drop(run);
    assert_eq!(hyp.begin_run(ids).err(), Some(hvc::ERR_INVALID_ARGS));
    while status(&hyp, hvc::DESTROY_VM, &[id, 1]) == hvc::ERR_BUSY {}
    assert_eq!(status(&hyp, hvc::INFORM_EXIT, &[id]), hvc::ERR_INVALID_ARGS);
}

#[test]
fn ended_vms_leave_their_slots_but_not_their_ids() {
    let hyp = hypervisor(Options::default());
    let mut seen = Vec::new();
    for _ in 0..3 {
        let ids: Vec<u64> =
            (0..hyp.vms.len()).map(|_| call(&hyp, hvc::CREATE_VM, &[0])[1]).collect();
        assert_eq!(status(&hyp, hvc::CREATE_VM, &[0]), hvc::ERR_NO_MEMORY);
        for id in &ids {
            while status(&hyp, hvc::DESTROY_VM, &[*id, 1]) == hvc::ERR_BUSY {}
        }
        seen.extend(ids);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3 * hyp.vms.len());
    assert!(!seen.contains(&0));
}

#[test]
fn a_dying_vm_keeps_its_id_until_it_is_gone() {
    let hyp = hypervisor(Options::default());
    *hyp.last_id.lock() = 0xfffd;
    let dying = vm(&hyp, false);
    assert_eq!(dying, 0xfffe);
    let run = begin(&hyp, dying);
    assert_eq!(status(&hyp, hvc::DESTROY_VM, &[dying, 1]), hvc::ERR_BUSY);
    *hyp.last_id.lock() = 0xfffd;
    let create = || call(&hyp, hvc::CREATE_VM, &[0])[1];
    assert_eq!((create(), create()), (1, 2), "neither the dying one's nor 0xffff nor 0");
    drop(run);
    while status(&hyp, hvc::DESTROY_VM, &[dying, 1]) == hvc::ERR_BUSY {}
    *hyp.last_id.lock() = 0xfffd;
    assert_eq!(create(), 0xfffe);
}

#[test]
fn each_call_of_a_destruction_gets_on() {
    let hyp = machine(Options::default(), 200);
    let id = vm(&hyp, true);
    let region = [id, 0x1_0000_0000, 200 * PAGE_SIZE, 1];
    assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &region), 0);
    hyp.hw.write(BUFFER + 8, 200);
    hyp.hw.write(BUFFER + 16, 0x1_0000_0000);
    assert_eq!(status(&hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
    assert_eq!(status(&hyp, hvc::MAP_GUEST, &[id, 5, BACKING, 0x10_0000, 150]), 0);
    let mut left = 150;
    // Whatever is asked for: no more than interrupts may wait for, and always something.
    for asked in [1, 0, u64::MAX, 1 << 32] {
        assert_eq!(status(&hyp, hvc::DESTROY_VM, &[id, asked]), hvc::ERR_BUSY);
        let now = hyp.memory.lock().usage(0).private;
        assert!((1..=56).contains(&(left - now)), "{left} to {now}");
        left = now;
    }
    while status(&hyp, hvc::DESTROY_VM, &[id, 1]) == hvc::ERR_BUSY {}
    assert_eq!(status(&hyp, hvc::DESTROY_VM, &[id, 1]), hvc::ERR_INVALID_ARGS);
}

#[test]
fn strict_mode_offers_no_more_than_a_phone() {
    use gzvm_abi::ext;
    let hyp = hypervisor(Options { strict: true, ..Options::default() });
    let id = vm(&hyp, false);
    for capability in [ext::DISCOVER, ext::QUERY_LIMITS, ext::TEST_AUDIT, ext::TEST_FAULT] {
        assert_eq!(status(&hyp, hvc::ENABLE_CAP, &[0, capability]), hvc::ERR_INVALID_ARGS);
    }
    for capability in [ext::UNMAP_RANGE, ext::REMOVE_REGION, ext::QUERY_RANGE_STATE] {
        // Arguments that are good for all three.
        for args in [[id, capability, GUEST >> 12, 8], [id, capability, GUEST, 8 * PAGE_SIZE]] {
            assert_eq!(status(&hyp, hvc::ENABLE_CAP, &args), hvc::ERR_INVALID_ARGS);
        }
    }
    let get = [id << 16, reg::PC];
    assert_eq!(status(&hyp, hvc::GET_ONE_REG, &get), hvc::ERR_NOT_SUPPORTED);
    assert_eq!(status(&hyp, hvc::CREATE_VCPU, &[id << 16 | 1, RUN_PAGES + 0x2000]), 0);
    let second = id << 16 | 1;
    assert_eq!(status(&hyp, hvc::SET_ONE_REG, &[second, reg::PSTATE, 0x3c5]), 0);
    assert_eq!(status(&hyp, hvc::SET_ONE_REG, &[second, reg::PC, 0]), hvc::ERR_INVALID_ARGS);
    assert_eq!(call(&hyp, hvc::IRQ_LINE, &[id << 16, 0, 1])[1], 0);
}

/// The audit is for test builds: others must refuse it.
#[test]
#[cfg(not(feature = "test-hooks"))]
fn release_builds_refuse_the_test_extension() {
    use gzvm_abi::ext;
    let hyp = hypervisor(Options::default());
    assert_eq!(hyp.extensions() & ext::TEST, 0);
    assert_eq!(status(&hyp, hvc::ENABLE_CAP, &[0, ext::TEST_AUDIT]), hvc::ERR_INVALID_ARGS);
    let fail = [0, ext::TEST_FAULT, 0, 0, 1, u64::MAX, ext::TEST_FAULT_REFUSE];
    assert_eq!(status(&hyp, hvc::ENABLE_CAP, &fail), hvc::ERR_INVALID_ARGS);
    assert_eq!(status(&hyp, hvc::CREATE_VM, &[0]), 0);
    // Nor do they take a plan from the command line, whoever made the options.
    let mut options = Options::parse("refhyp.fault=0:0:1:-5", |_| ());
    assert_eq!(options, Options::default());
    options.faults[0] = crate::plan::parse("0:0:1:-5").expect("an entry").1;
    assert_eq!(status(&hypervisor(options), hvc::CREATE_VM, &[0]), 0);
}

#[test]
fn loads_into_the_zero_register_are_completed_too() {
    let access = Access { register: 31, ..Access::default() };
    let mut registers = [1; 31];
    access.load(&mut registers, 0xff);
    assert_eq!(registers, [1; 31]);
}
