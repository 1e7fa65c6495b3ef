// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Register ids of GET_ONE_REG and SET_ONE_REG.
//!
//! An id has the architecture in bits 63:56, log2 of the size in bytes in 55:52, the class in
//! 27:16 and an index in 15:0. Core registers are indexed by their byte offset in the register
//! file, divided by 4.

/// Architecture field of arm64.
pub const ARCH_ARM64: u64 = 0x60 << 56;
/// Mask of the architecture field.
pub const ARCH_MASK: u64 = 0xff << 56;
/// Lowest bit of the size field.
pub const SIZE_SHIFT: u32 = 52;
/// Mask of the size field, in its place as the posted header has it.
pub const SIZE_MASK: u64 = 0xf << SIZE_SHIFT;
/// Size field of a 64-bit register.
pub const SIZE_U64: u64 = 3 << SIZE_SHIFT;
/// Lowest bit of the class field.
pub const CLASS_SHIFT: u32 = 16;
/// Mask of the class field, after shifting.
pub const CLASS_MASK: u64 = 0xfff;
/// Class of core registers.
pub const CLASS_CORE: u64 = 0x10;
/// Class of system registers.
pub const CLASS_SYSREG: u64 = 0x13;
/// Mask of the index.
pub const INDEX_MASK: u64 = 0xffff;

const fn core(byte_offset: u64) -> u64 {
    ARCH_ARM64 | SIZE_U64 | (CLASS_CORE << CLASS_SHIFT) | (byte_offset / 4)
}

/// General-purpose register Xn; `n` is 0 to 30.
pub const fn x(n: u64) -> u64 {
    assert!(n <= 30);
    core(8 * n)
}

/// The program counter.
pub const PC: u64 = core(256);
/// The processor state (SPSR format).
pub const PSTATE: u64 = core(264);
/// The EL0 stack pointer.
pub const SP_EL0: u64 = core(248);
/// The EL1 stack pointer.
pub const SP_EL1: u64 = core(272);
/// The EL1 exception link register.
pub const ELR_EL1: u64 = core(280);
/// The EL1 saved processor state (SPSR index 0).
pub const SPSR_EL1: u64 = core(288);

const _: () = {
    assert!(x(0) == 0x6030_0000_0010_0000);
    assert!(x(30) == 0x6030_0000_0010_003c);
    assert!(SP_EL0 == 0x6030_0000_0010_003e);
    assert!(PC == 0x6030_0000_0010_0040);
    assert!(PSTATE == 0x6030_0000_0010_0042);
    assert!(SP_EL1 == 0x6030_0000_0010_0044);
    assert!(ELR_EL1 == 0x6030_0000_0010_0046);
    assert!(SPSR_EL1 == 0x6030_0000_0010_0048);
};
