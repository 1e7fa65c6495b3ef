// SPDX-License-Identifier: Apache-2.0
//! The stall detector of the boot CPU (`qemu,vcpu-stall-detector`).

use arm_gic::UniqueMmioPointer;
use core::ptr::{with_exposed_provenance_mut, NonNull};

/// Registers of one CPU, in words.
const STATUS: usize = 0;
const LOAD: usize = 1;
const FREQUENCY: usize = 3;

/// Ticks of the detector's counter in a second.
const HERTZ: u32 = 1000;

/// The registers of the boot CPU.
pub(super) struct StallDetector {
    registers: UniqueMmioPointer<'static, [u32; 4]>,
    ticks: u32,
}

impl StallDetector {
    /// The detector at `address`. To be called once.
    pub(super) fn new(address: u64) -> Option<Self> {
        // CAST: usize has 64 bits here.
        let registers = NonNull::new(with_exposed_provenance_mut(address as usize))?;
        // SAFETY: The device tree says that the registers are there, the page table maps them as
        // device memory, and only this value uses them.
        let registers = unsafe { UniqueMmioPointer::new(registers) };
        Some(Self { registers, ticks: 0 })
    }

    /// Starts it: from now on it wants to be reloaded in less than so many milliseconds.
    pub(super) fn start(&mut self, milliseconds: u32) {
        self.ticks = milliseconds * HERTZ / 1000;
        self.write(FREQUENCY, HERTZ);
        self.reload();
        self.write(STATUS, 1);
    }

    /// Says that this CPU is well.
    pub(super) fn reload(&mut self) {
        self.write(LOAD, self.ticks);
    }

    fn write(&mut self, register: usize, value: u32) {
        if let Some(register) = self.registers.get(register) {
            // SAFETY: a write to this device has no effect on memory.
            unsafe { register.write_unsafe(value) };
        }
    }
}
