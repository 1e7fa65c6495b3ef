// SPDX-License-Identifier: Apache-2.0
//! The fault plan, as the host meets it.

use super::*;
use gzvm_abi::ext;

const NO_MEMORY: u64 = hvc::ERR_NO_MEMORY as i64 as u64;

/// Plans a fault; how often the one before struck.
fn plan(hyp: &Hypervisor<'_, FakeHardware>, function: u32, entry: [u64; 4]) -> [u64; 2] {
    let [skip, count, status, mode] = entry;
    let function = u64::from(index(function));
    let args = [0, ext::TEST_FAULT, function, skip, count, status, mode];
    let [x0, x1, ..] = call(hyp, hvc::ENABLE_CAP, &args);
    [x0, x1]
}

#[test]
fn refused_calls_do_nothing() {
    let hyp = hypervisor(Options::default());
    assert_eq!(plan(&hyp, hvc::CREATE_VM, [1, 2, NO_MEMORY, ext::TEST_FAULT_REFUSE]), [0, 0]);
    let create = || call(&hyp, hvc::CREATE_VM, &[0]);
    let seen: Vec<[u64; 4]> = (0..4).map(|_| create()).collect();
    let refused = [NO_MEMORY, 0, 0, 0];
    assert_eq!(seen, [[0, 1, 0, 0], refused, refused, [0, 2, 0, 0]]);
    assert_eq!(hyp.memory.lock().audit(&hyp.hw).vms, 2);
    assert_eq!(plan(&hyp, hvc::CREATE_VM, [0; 4]), [0, 2]);
    let unknown_mode = plan(&hyp, hvc::CREATE_VM, [0, 1, 0, 3]);
    assert_eq!(unknown_mode[0] as i32, hvc::ERR_INVALID_ARGS);
    let unknown_function = plan(&hyp, hvc::ID_BASE + hvc::NR_FUNCTIONS, [0; 4]);
    assert_eq!(unknown_function[0] as i32, hvc::ERR_INVALID_ARGS);
}

#[test]
fn lies_are_told_of_calls_that_were_done_to_the_end() {
    let hyp = hypervisor(Options::default());
    plan(&hyp, hvc::CREATE_VM, [0, 1, NO_MEMORY, ext::TEST_FAULT_LIE]);
    let [status, rubbish, ..] = call(&hyp, hvc::CREATE_VM, &[0]);
    assert_eq!((status, hyp.memory.lock().audit(&hyp.hw).vms), (NO_MEMORY, 1));
    assert_ne!(rubbish, 1);
    // A call in two slices is one call.
    let id = vm(&hyp, false);
    plan(&hyp, hvc::ENABLE_CAP, [0, 1, NO_MEMORY, ext::TEST_FAULT_LIE]);
    let args = [id, cap::PROTECTED_VM, cap::PVM_SET_PROTECTED_VM];
    assert_eq!(call(&hyp, hvc::ENABLE_CAP, &args)[0], NO_MEMORY);
    assert!(hyp.vms[1].state.lock().protected);
    // RUN is done elsewhere; its lie goes with it.
    plan(&hyp, hvc::RUN, [0, 1, NO_MEMORY, ext::TEST_FAULT_LIE]);
    let run = Call { index: index(hvc::RUN), args: [id << 16, 0, 0, 0, 0, 0, 0] };
    let answers = [(); 2].map(|()| hyp.host_call(&run));
    let ids = run.ids();
    let [Answer::Run { ids: first, instead: Some([NO_MEMORY, ..]) }, second] = answers else {
        panic!("{answers:?}")
    };
    assert_eq!((first, second), (ids, Answer::Run { ids, instead: None }));
}

#[test]
fn delayed_calls_take_a_million_ticks() {
    let hyp = hypervisor(Options::default());
    plan(&hyp, hvc::PROBE, [0, 1, NO_MEMORY, ext::TEST_FAULT_DELAY]);
    hyp.hw.time.set((0, 1000));
    assert_eq!(call(&hyp, hvc::PROBE, &[]), [0, 16, 0, 0]);
    assert!(hyp.hw.time.get().0 >= 1_000_000);
}

#[test]
fn the_plan_and_the_audit_cannot_be_made_to_fail() {
    let hyp = hypervisor(Options::default());
    plan(&hyp, hvc::ENABLE_CAP, [0, 5, NO_MEMORY, ext::TEST_FAULT_REFUSE]);
    assert_eq!(call(&hyp, hvc::ENABLE_CAP, &[0, ext::TEST_AUDIT])[0], 0);
    assert_eq!(call(&hyp, hvc::ENABLE_CAP, &[0, ext::DISCOVER])[0], NO_MEMORY);
    assert_eq!(plan(&hyp, hvc::ENABLE_CAP, [0; 4]), [0, 1]);
}

#[test]
fn the_command_line_plans_too_even_in_strict_mode() {
    let words = "refhyp.strict refhyp.fault=0:0:1:-5 refhyp.fault=12:0:1:-8:lie";
    let hyp = hypervisor(Options::parse(words, |word| panic!("unknown: {word}")));
    assert_eq!(call(&hyp, hvc::CREATE_VM, &[0])[0], NO_MEMORY);
    assert_eq!(call(&hyp, hvc::PROBE, &[])[0] as i32, hvc::ERR_INVALID_ARGS);
    assert_eq!(plan(&hyp, hvc::CREATE_VM, [0; 4])[0] as i32, hvc::ERR_INVALID_ARGS);
}
