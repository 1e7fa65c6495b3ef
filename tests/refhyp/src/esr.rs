// SPDX-License-Identifier: Apache-2.0
//! Exception syndromes (ESR_ELx, Arm ARM D24.2.40) and emulated loads and stores.

/// Exception class: WFI or WFE.
pub const EC_WFX: u64 = 0x01;
/// Exception class: SIMD or floating point.
pub const EC_FP: u64 = 0x07;
/// Exception class: HVC from AArch64.
pub const EC_HVC: u64 = 0x16;
/// Exception class: SMC from AArch64.
pub const EC_SMC: u64 = 0x17;
/// Exception class: trapped system register.
pub const EC_SYSREG: u64 = 0x18;
/// Exception class: instruction abort from a lower level.
pub const EC_IABT_LOW: u64 = 0x20;
/// Exception class: instruction abort from the same level.
pub const EC_IABT_CUR: u64 = 0x21;
/// Exception class: data abort from a lower level.
pub const EC_DABT_LOW: u64 = 0x24;
/// Exception class: data abort from the same level.
pub const EC_DABT_CUR: u64 = 0x25;

/// The IL bit: a 32-bit instruction.
pub const IL: u64 = 1 << 25;
/// Fault status: synchronous external abort.
pub const FSC_EXTERNAL: u64 = 0x10;

/// A syndrome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Esr(pub u64);

impl Esr {
    /// Exception class.
    pub const fn class(self) -> u64 {
        (self.0 >> 26) & 0x3f
    }

    /// For aborts: a write (or cache maintenance).
    pub const fn write(self) -> bool {
        self.0 & (1 << 6) != 0
    }

    /// For aborts: the access was the table walk of a stage 1 translation.
    pub const fn table_walk(self) -> bool {
        self.0 & (1 << 7) != 0
    }

    /// For aborts: cache maintenance or address translation instruction.
    pub const fn cache_maintenance(self) -> bool {
        self.0 & (1 << 8) != 0
    }

    /// For aborts: a translation fault at any level.
    pub const fn translation_fault(self) -> bool {
        self.0 & 0x3c == 0x04
    }

    /// For aborts: a permission fault at any level.
    pub const fn permission_fault(self) -> bool {
        self.0 & 0x3c == 0x0c
    }

    /// For aborts: a synchronous external abort, on the access or on a table walk.
    pub const fn external_abort(self) -> bool {
        matches!(self.0 & 0x3f, 0x10 | 0x13..=0x17)
    }

    /// For data aborts: the access, if the syndrome describes it.
    pub fn access(self) -> Option<Access> {
        if self.class() != EC_DABT_LOW || self.0 & (1 << 24) == 0 || self.table_walk() {
            return None;
        }
        Some(Access {
            log2_size: ((self.0 >> 22) & 0b11) as u8,
            sign_extend: self.0 & (1 << 21) != 0,
            register: ((self.0 >> 16) & 0x1f) as u8,
            sixty_four: self.0 & (1 << 15) != 0,
            write: self.write(),
        })
    }

    /// For trapped system registers: which one, and how.
    pub fn sysreg(self) -> SysregAccess {
        SysregAccess {
            id: (self.0 & SYSREG_MASK) as u32,
            register: ((self.0 >> 5) & 0x1f) as u8,
            read: self.0 & 1 != 0,
        }
    }
}

/// A load or store of one register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// log2 of the width in bytes, 0 to 3.
    pub log2_size: u8,
    /// A load that extends the sign.
    pub sign_extend: bool,
    /// The register; 31 is the zero register.
    pub register: u8,
    /// The register is 64 bits wide.
    pub sixty_four: bool,
    /// A store.
    pub write: bool,
}

impl Access {
    /// Width in bytes.
    pub const fn size(self) -> u64 {
        1 << self.log2_size
    }

    const fn mask(self) -> u64 {
        if self.log2_size == 3 {
            u64::MAX
        } else {
            (1 << (8 << self.log2_size)) - 1
        }
    }

    /// What a store writes, given all registers.
    pub fn stored(self, registers: &[u64; 31]) -> u64 {
        registers.get(usize::from(self.register)).copied().unwrap_or(0) & self.mask()
    }

    /// Puts loaded data into its register, extended as the instruction says.
    pub fn load(self, registers: &mut [u64; 31], data: u64) {
        let mut value = data & self.mask();
        let sign = 1 << ((8 << self.log2_size) - 1);
        if self.sign_extend && value & sign != 0 {
            value |= !self.mask();
        }
        if !self.sixty_four {
            value &= 0xffff_ffff;
        }
        if let Some(register) = registers.get_mut(usize::from(self.register)) {
            *register = value;
        }
    }
}

/// Op0, Op2, Op1, CRn and CRm fields of a system register syndrome.
const SYSREG_MASK: u64 = 0x003f_fc1e;

/// The `id` of a [`SysregAccess`] to the register with these numbers.
pub const fn sysreg(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
}

/// A trapped MRS or MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysregAccess {
    /// The register, as [`sysreg`] encodes it.
    pub id: u32,
    /// The general-purpose register; 31 is the zero register.
    pub register: u8,
    /// MRS.
    pub read: bool,
}

impl SysregAccess {
    /// Op0 of the register.
    pub const fn op0(self) -> u32 {
        self.id >> 20
    }

    /// Whether the register is one of the identification registers that HCR_EL2.TID3 traps:
    /// op0 = 3, op1 = 0, CRn = 0, CRm from 1 to 7.
    pub const fn is_id_group_3(self) -> bool {
        let crm = (self.id >> 1) & 0xf;
        self.id & sysreg(3, 7, 0xf, 0, 0) == sysreg(3, 0, 0, 0, 0) && crm >= 1 && crm <= 7
    }

    /// CRm and Op2 of the register.
    pub const fn crm_op2(self) -> (u32, u32) {
        ((self.id >> 1) & 0xf, (self.id >> 17) & 7)
    }

    /// What an MSR writes.
    pub fn value(self, registers: &[u64; 31]) -> u64 {
        registers.get(usize::from(self.register)).copied().unwrap_or(0)
    }

    /// Completes an MRS with zero; an MSR has no effect.
    pub fn answer_zero(self, registers: &mut [u64; 31]) {
        if self.read {
            self.answer(registers, 0);
        }
    }

    /// Completes an MRS.
    pub fn answer(self, registers: &mut [u64; 31], value: u64) {
        if let Some(register) = registers.get_mut(usize::from(self.register)) {
            *register = value;
        }
    }
}

/// The intermediate physical address of a stage 2 fault, from HPFAR_EL2 and FAR_EL2.
pub const fn fault_ipa(hpfar: u64, far: u64) -> u64 {
    ((hpfar & 0x0fff_ffff_fff0) << 8) | (far & 0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(log2_size: u8, sign_extend: bool, sixty_four: bool, data: u64) -> u64 {
        let access = Access { log2_size, sign_extend, register: 3, sixty_four, write: false };
        let mut registers = [u64::MAX; 31];
        access.load(&mut registers, data);
        registers[3]
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        assert_eq!(load(0, false, false, 0x1ff), 0xff); // ldrb
        assert_eq!(load(0, true, false, 0x80), 0xffff_ff80); // ldrsb w
        assert_eq!(load(0, true, true, 0x80), 0xffff_ffff_ffff_ff80); // ldrsb x
        assert_eq!(load(1, true, true, 0x7fff), 0x7fff); // ldrsh x
        assert_eq!(load(2, true, true, 0x8000_0000), 0xffff_ffff_8000_0000); // ldrsw
        assert_eq!(load(2, false, false, u64::MAX), 0xffff_ffff); // ldr w
        assert_eq!(load(3, false, true, u64::MAX - 1), u64::MAX - 1); // ldr x
    }

    #[test]
    fn the_zero_register_stores_zero_and_swallows_loads() {
        let access = Access { log2_size: 3, register: 31, sixty_four: true, ..Access::default() };
        let mut registers = [7; 31];
        access.load(&mut registers, 1);
        assert_eq!(registers, [7; 31]);
        assert_eq!(access.stored(&registers), 0);
    }

    #[test]
    fn stores_are_cut_to_their_width() {
        let mut registers = [0; 31];
        registers[1] = 0x1122_3344_5566_7788;
        let stored = |log2_size| {
            Access { log2_size, register: 1, write: true, ..Access::default() }.stored(&registers)
        };
        assert_eq!([stored(0), stored(1), stored(2)], [0x88, 0x7788, 0x5566_7788]);
        assert_eq!(stored(3), 0x1122_3344_5566_7788);
    }

    #[test]
    fn accesses_without_a_valid_syndrome_are_not_decoded() {
        let valid = (EC_DABT_LOW << 26) | IL | 1 << 24 | 0b10 << 22 | 5 << 16 | 1 << 6 | 0x07;
        let access = Esr(valid).access().expect("valid");
        assert_eq!((access.size(), access.register, access.write), (4, 5, true));
        assert!(Esr(valid).translation_fault());
        assert_eq!(Esr(valid & !(1 << 24)).access(), None);
        assert_eq!(Esr(valid | 1 << 7).access(), None);
        assert_eq!(Esr((EC_IABT_LOW << 26) | 1 << 24).access(), None);
    }

    #[test]
    fn system_register_numbers_are_read() {
        // msr ICC_SGI1R_EL1, x4: op0 3, op1 0, CRn 12, CRm 11, op2 5
        let id = sysreg(3, 0, 12, 11, 5);
        let access = Esr((EC_SYSREG << 26) | IL | u64::from(id) | 4 << 5).sysreg();
        assert_eq!(access, SysregAccess { id, register: 4, read: false });
        assert!(!access.is_id_group_3());
        let pfr0 = SysregAccess { id: sysreg(3, 0, 0, 4, 0), register: 0, read: true };
        assert!(pfr0.is_id_group_3());
        assert_eq!(pfr0.crm_op2(), (4, 0));
    }

    #[test]
    fn fault_addresses_keep_the_page_offset() {
        assert_eq!(fault_ipa(0x0000_0000_0900_0000 >> 8, 0xffff_1234), 0x0900_0234);
    }
}
