// SPDX-License-Identifier: Apache-2.0
//! Reading and writing system registers by name, and the values EL2 gives to its own.

/// Reads a system register.
macro_rules! read {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading a register has no effect on memory. It exists at EL2: the names are
        // literals in this package, and optional ones are guarded by identification registers.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack));
        }
        value
    }};
}

/// Writes a system register. What the write means is for the place that does it to know; those
/// that change EL2's own view of memory are in `space.rs` alone.
macro_rules! write {
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the register controls EL1, the guest or interrupts, not the memory that Rust
        // code at EL2 sees. It exists, as for `read!`.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack));
        }
    }};
}

/// Waits until earlier register writes have taken effect.
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
}

/// Waits until earlier memory accesses, cache and TLB maintenance are complete everywhere.
pub fn dsb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
}

pub(crate) use {read, write};

/// HCR_EL2 bits (Arm ARM D24.2.48).
pub mod hcr {
    /// Stage 2 on.
    pub const VM: u64 = 1 << 0;
    /// Set/way invalidation also cleans.
    pub const SWIO: u64 = 1 << 1;
    /// Physical FIQs come to EL2.
    pub const FMO: u64 = 1 << 3;
    /// Physical IRQs come to EL2, and EL1 sees virtual ones.
    pub const IMO: u64 = 1 << 4;
    /// SErrors come to EL2.
    pub const AMO: u64 = 1 << 5;
    /// TLB and cache maintenance of EL1 reaches all CPUs of the inner shareable domain.
    pub const FB: u64 = 1 << 9;
    /// Barriers of EL1 cover at least the inner shareable domain.
    pub const BSU_INNER: u64 = 1 << 10;
    /// WFI traps.
    pub const TWI: u64 = 1 << 13;
    /// Reads of feature registers trap.
    pub const TID3: u64 = 1 << 18;
    /// SMC traps.
    pub const TSC: u64 = 1 << 19;
    /// Implementation defined registers trap.
    pub const TIDCP: u64 = 1 << 20;
    /// ACTLR_EL1 traps.
    pub const TACR: u64 = 1 << 21;
    /// Set/way cache maintenance traps.
    pub const TSW: u64 = 1 << 22;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// Limited ordering registers trap.
    pub const TLOR: u64 = 1 << 35;
    /// Pointer authentication keys do not trap.
    pub const APK: u64 = 1 << 40;
    /// Pointer authentication instructions do not trap.
    pub const API: u64 = 1 << 41;

    /// While the host runs.
    pub const HOST: u64 = VM | RW | TSC | APK | API;
    /// While a guest runs.
    pub const GUEST: u64 = VM
        | SWIO
        | FMO
        | IMO
        | AMO
        | FB
        | BSU_INNER
        | TWI
        | TID3
        | TSC
        | TIDCP
        | TACR
        | TSW
        | RW
        | TLOR;
}

/// VTCR_EL2: 40-bit addresses from two concatenated roots at level 1, 4 KiB granule, cached and
/// inner shareable walks, 40-bit output, 8-bit VMIDs.
pub const VTCR: u64 = 1 << 31 | 2 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 6 | 24;

/// CPTR_EL2: SVE and SME trap, as their state is not switched; FP and SIMD do not. All other set
/// bits are reserved ones.
pub const CPTR: u64 = 0x33ff;

/// CNTHCTL_EL2 for the host: the physical counter and timer are its own.
pub const CNTHCTL_HOST: u64 = 0b11;
/// CNTHCTL_EL2 for guests: the physical counter can be read, the physical timer traps.
pub const CNTHCTL_GUEST: u64 = 0b01;

/// MDCR_EL2 bits for guests: performance monitors (TPM, TPMCR) and debug registers (TDA, TDOSA,
/// TDRA) trap, also those of statistical profiling and trace (E2PB, E2TB are 0).
pub const MDCR_GUEST: u64 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11;
