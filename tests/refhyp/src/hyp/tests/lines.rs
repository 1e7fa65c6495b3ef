// SPDX-License-Identifier: Apache-2.0
//! IRQ_LINE with its kinds, and how the host hears of ends.

use super::*;
use crate::vgic::Lists;
use gzvm_abi::ext;

const DIST: u64 = 0x3fff_0000;
const REDIST: u64 = 0x3ffb_0000;

/// A VM whose vCPU 0 wants all interrupts.
fn vm_with_gic(hyp: &Hypervisor<'_, FakeHardware>) -> u64 {
    let id = vm(hyp, false);
    let vm = &hyp.vms[0];
    let mut shared = vm.shared.lock();
    assert!(shared.gic.place_distributor(DIST) && shared.gic.place_redistributors(REDIST));
    shared.gic.store(DIST, 4, 0b10);
    for frame in [DIST + 4, REDIST + 0x1_0000] {
        shared.gic.store(frame + 0x80, 4, 0xffff_ffff);
        shared.gic.store(frame + 0x100, 4, 0xffff_ffff);
    }
    id
}

fn line(hyp: &Hypervisor<'_, FakeHardware>, args: [u64; 4]) -> [u64; 2] {
    let [x0, x1, ..] = call(hyp, hvc::IRQ_LINE, &args);
    [x0, x1]
}

fn hw_state(hyp: &Hypervisor<'_, FakeHardware>) -> HwState {
    let mut state = HwState::new_zeroed();
    hyp.hw.copy_in(RUN_PAGES + PAGE_SIZE, state.as_mut_bytes());
    state
}

const REFUSED: [u64; 2] = [hvc::ERR_INVALID_ARGS as i64 as u64, 0];

#[test]
fn each_end_is_in_one_exit() {
    let hyp = hypervisor(Options::default());
    let x1 = vm_with_gic(&hyp) << 16;
    for (kind, number, intid) in
        [(ext::IRQ_KIND_SPI_LEVEL, 4, 36), (ext::IRQ_KIND_PPI_LEVEL, 22, 22)]
    {
        let report = kind | ext::IRQ_KIND_REPORT_END;
        assert_eq!(line(&hyp, [x1, number, 1, report]), [0, 1]);
        let run = begin(&hyp, x1 >> 16);
        assert_eq!(hyp.owed(&run), None);
        let mut lists = run.vm.shared.lock().gic.enter(0, 0, 4);
        assert_eq!((lists.used, lists.lr[0] as u32), (1, intid));
        // Taken and ended.
        lists.lr[0] &= !(3 << 62);
        hyp.leave(&run, &lists, 0);
        assert_eq!(hyp.owed(&run), Some(Exit::Irq));
        hyp.report(&run, &Exit::Irq, &lists);
        let state = hw_state(&hyp);
        assert_eq!((state.nr_lrs, state.lr[0]), (1, u64::from(intid) | 1 << 41));
        hyp.report(&run, &Exit::Irq, &Lists::default());
        assert_eq!((hw_state(&hyp).nr_lrs, hyp.owed(&run)), (0, None));
        // High still, so pending again, but nobody wants to know of that.
        assert!(hyp.has_pending(&run));
        assert_eq!(line(&hyp, [x1, number, 0, kind]), [0, 0]);
        assert!(!hyp.has_pending(&run));
    }
}

#[test]
fn bad_kinds_and_numbers_are_refused() {
    let hyp = hypervisor(Options::default());
    let x1 = vm_with_gic(&hyp) << 16;
    let (spi, ppi) = (ext::IRQ_KIND_SPI_LEVEL, ext::IRQ_KIND_PPI_LEVEL);
    for args in [
        [x1, 256, 1, spi],
        [x1, 256, 0, ext::IRQ_KIND_PULSE],
        [x1, 1 << 32, 1, spi],
        [x1, 15, 1, ppi],
        [x1, 32, 1, ppi],
        [x1, 27, 1, ppi],
        [x1, 30, 0, ppi],
        [x1 | 1, 22, 1, ppi],
        [x1 | 16, 22, 1, ppi],
        [x1, 4, 1, ext::IRQ_KIND_REPORT_END],
        [x1, 4, 1, 3],
        [x1, 4, 1, spi | 1 << 9],
        [0, 4, 1, spi],
    ] {
        assert_eq!(line(&hyp, args), REFUSED, "{args:x?}");
    }
}

#[test]
fn strict_mode_knows_pulses_only() {
    let hyp = hypervisor(Options { strict: true, ..Options::default() });
    let x1 = vm_with_gic(&hyp) << 16;
    let kind = ext::IRQ_KIND_SPI_LEVEL | ext::IRQ_KIND_REPORT_END;
    assert_eq!(line(&hyp, [x1, 4, 1, kind]), [0, 0]);
    // A pulse all the same: the level is not taken back, and its end is nobody's business.
    assert_eq!(line(&hyp, [x1, 4, 0, kind]), [0, 0]);
    let run = begin(&hyp, x1 >> 16);
    let mut lists = run.vm.shared.lock().gic.enter(0, 0, 4);
    assert_eq!((lists.used, lists.lr[0] as u32), (1, 36));
    lists.lr[0] &= !(3 << 62);
    hyp.leave(&run, &lists, 0);
    assert_eq!(hyp.owed(&run), None);
    hyp.report(&run, &Exit::Irq, &lists);
    assert_eq!(hw_state(&hyp).nr_lrs, 0);
}
