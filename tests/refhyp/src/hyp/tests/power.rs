// SPDX-License-Identifier: Apache-2.0
//! PSCI, as guests call it.

use super::*;
use crate::hostcall::Ids;
use gzvm_abi::run::{SYSTEM_EVENT_RESET, SYSTEM_EVENT_SHUTDOWN};

const CPU_SUSPEND: u64 = 0xc400_0001;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;
const FEATURES: u64 = 0x8400_000a;
const SYSTEM_SUSPEND: u64 = 0xc400_000e;
const SYSTEM_RESET2: u64 = 0xc400_0012;

fn with_second(hyp: &Hypervisor<'_, FakeHardware>) -> u64 {
    let id = vm(hyp, true);
    let second = [id << 16 | 1, RUN_PAGES + 2 * PAGE_SIZE];
    assert_eq!(status(hyp, hvc::CREATE_VCPU, &second), 0);
    id
}

fn psci(hyp: &Hypervisor<'_, FakeHardware>, run: &mut Running<'_>, x: &[u64]) -> i64 {
    assert_eq!(hvc_call(hyp, run, x), Next::Resume, "{x:x?}");
    run.vcpu.regs.x[0] as i64
}

#[test]
fn a_vcpu_is_started_once_and_where_it_can_run() {
    let hyp = hypervisor(Options::default());
    let id = with_second(&hyp);
    let mut run = begin(&hyp, id);
    assert_eq!(psci(&hyp, &mut run, &[AFFINITY_INFO, 1, 0]), 1);
    for (args, code) in [
        ([CPU_ON, 2, GUEST, 0], -2),
        ([CPU_ON, 1 << 32, GUEST, 0], -2),
        ([CPU_ON, 1, GUEST + 2, 0], -9),
        ([CPU_ON, 1, 1 << 40, 0], -9),
        ([CPU_ON, 0, GUEST, 0], -4),
        ([AFFINITY_INFO, 1, 1, 0], -2),
        ([AFFINITY_INFO, 2, 0, 0], -2),
    ] {
        assert_eq!(psci(&hyp, &mut run, &args), code, "{args:x?}");
    }
    let on = [CPU_ON, 1, GUEST, 0x77];
    assert_eq!(hvc_call(&hyp, &mut run, &on), Next::Exit(Exit::Ipi(2)));
    assert_eq!(run.vcpu.regs.x[0], 0);
    assert_eq!(psci(&hyp, &mut run, &on), -5);
    assert_eq!(psci(&hyp, &mut run, &[AFFINITY_INFO, 1, 0]), 2);
    let ids = Ids { vm: id as u16, vcpu: 1 };
    let Ok(Begin::Run(mut second)) = hyp.begin_run(ids) else { panic!("it is on") };
    assert_eq!((second.vcpu.regs.pc, second.vcpu.regs.x[0]), (GUEST, 0x77));
    assert_eq!(psci(&hyp, &mut run, &[AFFINITY_INFO, 1, 0]), 0);
    assert!(matches!(hvc_call(&hyp, &mut second, &[CPU_OFF]), Next::Exit(Exit::Idle(_))));
    assert_eq!(psci(&hyp, &mut run, &[AFFINITY_INFO, 1, 0]), 1);
}

#[test]
fn features_and_suspension() {
    let hyp = hypervisor(Options::default());
    let id = with_second(&hyp);
    let mut run = begin(&hyp, id);
    for offered in [CPU_SUSPEND, CPU_ON, SYSTEM_OFF, SYSTEM_RESET2, 0x8400_0012, 0x8000_0000] {
        assert_eq!(psci(&hyp, &mut run, &[FEATURES, offered]), 0, "{offered:x}");
    }
    assert_eq!(psci(&hyp, &mut run, &[FEATURES, SYSTEM_SUSPEND]), -1);
    assert_eq!(psci(&hyp, &mut run, &[SYSTEM_SUSPEND]), -1);
    // Both kinds of power states keep everything.
    for state in [0, 1 << 16] {
        let suspend = [CPU_SUSPEND, state, GUEST, 0];
        assert!(matches!(hvc_call(&hyp, &mut run, &suspend), Next::Exit(Exit::Idle(_))));
        assert_eq!((run.vcpu.regs.x[0], run.vcpu.regs.x[2]), (0, GUEST));
    }
}

#[test]
fn an_ended_machine_does_not_run_on() {
    for (args, event) in [
        ([SYSTEM_OFF, 0], SYSTEM_EVENT_SHUTDOWN),
        ([SYSTEM_RESET, 0], SYSTEM_EVENT_RESET),
        ([SYSTEM_RESET2, 0], SYSTEM_EVENT_RESET),
        ([SYSTEM_RESET2, 0x8000_0001], SYSTEM_EVENT_RESET),
    ] {
        let hyp = hypervisor(Options::default());
        let id = with_second(&hyp);
        let mut run = begin(&hyp, id);
        assert_eq!(psci(&hyp, &mut run, &[SYSTEM_RESET2, 1]), -2);
        hvc_call(&hyp, &mut run, &[CPU_ON, 1, GUEST, 0]);
        let ids = Ids { vm: id as u16, vcpu: 1 };
        let Ok(Begin::Run(second)) = hyp.begin_run(ids) else { panic!("it is on") };
        assert_eq!(hvc_call(&hyp, &mut run, &args), Next::Exit(Exit::System(event)));
        // One that is in the guest comes out; neither goes in again.
        assert!(matches!(hyp.owed(&second), Some(Exit::Idle(_))));
        drop((run, second));
        for vcpu in 0..2 {
            let ids = Ids { vm: id as u16, vcpu };
            assert!(matches!(hyp.begin_run(ids), Ok(Begin::Exit(Exit::Idle(_)))));
        }
    }
}
