// SPDX-License-Identifier: Apache-2.0
//! A guest's registers while it does not run.

/// EL1 with its own stack pointer, all interrupts masked: what a vCPU starts in.
pub const START_PSTATE: u64 = 0x3c5;

/// Mode field of the processor state: exception level and stack pointer, and the AArch32 bit.
const MODE: u64 = 0x1f;
/// Processor state bits that a VMM may choose: flags, mask bits, mode.
const SETTABLE: u64 = 0xf << 28 | 0xf << 6 | MODE;

/// General-purpose registers and where to go on; assembly knows the layout.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Program counter (ELR_EL2).
    pub pc: u64,
    /// Processor state (SPSR_EL2).
    pub pstate: u64,
    /// Unused; keeps the size a multiple of 16.
    pub pad: u64,
}

/// FP and SIMD registers; assembly knows the layout.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fp {
    /// q0 to q31.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u64,
    /// FPCR.
    pub fpcr: u64,
}

impl Fp {
    /// All zero.
    pub const ZERO: Self = Self { v: [0; 32], fpsr: 0, fpcr: 0 };
}

/// Number of [`Sys`] registers.
pub const SYS_COUNT: usize = 24;

/// EL1 and EL0 system registers that are switched, in the order of `world.rs`.
pub type Sys = [u64; SYS_COUNT];

/// Index of SCTLR_EL1 in [`Sys`].
pub const SYS_SCTLR: usize = 0;
/// Index of CPACR_EL1 in [`Sys`].
pub const SYS_CPACR: usize = 1;
/// Index of SP_EL0 in [`Sys`].
pub const SYS_SP_EL0: usize = 2;
/// Index of SP_EL1 in [`Sys`].
pub const SYS_SP_EL1: usize = 3;
/// Index of ELR_EL1 in [`Sys`].
pub const SYS_ELR: usize = 4;
/// Index of SPSR_EL1 in [`Sys`].
pub const SYS_SPSR: usize = 5;

/// SCTLR_EL1 at reset: reserved-one bits; MMU and caches off.
pub const SCTLR_RESET: u64 = 0x30d0_0800;

/// Whether a processor state is one that a guest may be started in: AArch64, EL1 or EL0.
pub fn pstate_allowed(pstate: u64) -> bool {
    pstate & !SETTABLE == 0 && matches!(pstate & MODE, 0b00000 | 0b00100 | 0b00101)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_start_at_el1_or_el0_only() {
        assert!(pstate_allowed(START_PSTATE));
        assert!(pstate_allowed(0));
        assert!(!pstate_allowed(0x3c9)); // EL2h
        assert!(!pstate_allowed(0x3cd)); // EL3h
        assert!(!pstate_allowed(0x1d3)); // AArch32
        assert!(!pstate_allowed(1 << 20 | START_PSTATE)); // illegal execution state
    }
}
