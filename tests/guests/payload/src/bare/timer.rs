// SPDX-License-Identifier: Apache-2.0
//! The virtual timer and its interrupt.

use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicV3, InterruptGroup};
use arm_gic::{wfi, IntId, UniqueMmioPointer};
use arm_sysregs::el0::accessors::{
    read_cntfrq_el0, read_cntvct_el0, write_cntv_ctl_el0, write_cntv_cval_el0,
};
use arm_sysregs::el0::registers::{CntvCtlEl0, CntvCvalEl0};
use core::ptr::{with_exposed_provenance_mut, NonNull};
use payload::machine::Gic;

/// The virtual timer's PPI (Arm's Base System Architecture): interrupt 27.
const TIMER: IntId = IntId::ppi(11);
/// The middle of the range; there is nothing to compare with.
const PRIORITY: u8 = 0x80;

/// The virtual timer, with its interrupt set up at the GIC.
pub(super) struct Timer;

impl Timer {
    /// Sets up the GIC for `cpus` CPUs, as the boot CPU. To be called once.
    pub(super) fn new(gic: Gic, cpus: usize) -> Option<Self> {
        // CAST: usize has 64 bits here.
        let [distributor, redistributors] = [gic.distributor as usize, gic.redistributors as usize];
        let distributor = NonNull::new(with_exposed_provenance_mut::<Gicd>(distributor))?;
        let redistributors = NonNull::new(with_exposed_provenance_mut::<GicrSgi>(redistributors))?;
        let mut gic =
            // SAFETY: The device tree says that the GIC's registers are there, the page table maps them
            // as device memory, and only this function uses them, once.
            unsafe { GicV3::new(UniqueMmioPointer::new(distributor), redistributors, cpus, false) };
        gic.setup(0);
        GicCpuInterface::set_priority_mask(0xff);
        gic.set_interrupt_priority(TIMER, Some(0), PRIORITY).ok()?;
        gic.enable_interrupt(TIMER, Some(0), true).ok()?;
        Some(Self)
    }

    /// Sleeps until the timer's interrupt. Returns false if it has not come a second after it was
    /// due.
    pub(super) fn sleep(&mut self, milliseconds: u64) -> bool {
        let due = counter() + milliseconds * counter_frequency() / 1000;
        write_cntv_cval_el0(CntvCvalEl0::from_bits_retain(due));
        write_cntv_ctl_el0(CntvCtlEl0::ENABLE);
        let came = loop {
            match GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1) {
                Some(TIMER) => break true,
                Some(other) => GicCpuInterface::end_interrupt(other, InterruptGroup::Group1),
                None if counter() > due + counter_frequency() => break false,
                // Wakes up although interrupts are masked.
                None => wfi(),
            }
        };
        // Off before the end of the interrupt: its line is level-sensitive.
        write_cntv_ctl_el0(CntvCtlEl0::empty());
        if came {
            GicCpuInterface::end_interrupt(TIMER, InterruptGroup::Group1);
        }
        came
    }
}

/// The virtual counter, in ticks.
pub(super) fn counter() -> u64 {
    read_cntvct_el0().bits()
}

/// Ticks of the counter in a second.
pub(super) fn counter_frequency() -> u64 {
    read_cntfrq_el0().bits()
}
