// SPDX-License-Identifier: Apache-2.0
//! What identification registers say, with what refhyp does not virtualise taken out.
//!
//! All CPUs that refhyp runs on are alike, so a register's own value is the same everywhere.

/// A field of four bits.
const fn field(lowest: u32) -> u64 {
    0xf << lowest
}

/// Puts `value` into a field.
const fn with(register: u64, lowest: u32, value: u64) -> u64 {
    (register & !field(lowest)) | (value << lowest)
}

/// Limits a field to `most`.
const fn capped(register: u64, lowest: u32, most: u64) -> u64 {
    if (register >> lowest) & 0xf > most {
        with(register, lowest, most)
    } else {
        register
    }
}

/// ID_AA64MMFR0_EL1.PARange of 40 bits.
const PA_RANGE_40: u64 = 2;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The host: sees all but what EL2 does not switch.
    Host,
    /// A guest: sees what EL2 switches and virtualises.
    Guest,
}

/// What a read of the ID register `S3_0_C0_C<crm>_<op2>` gives, the hardware's value being `raw`.
pub fn visible(reader: Reader, (crm, op2): (u32, u32), raw: u64) -> u64 {
    match reader {
        Reader::Host => for_both((crm, op2), raw),
        Reader::Guest => for_guest((crm, op2), for_both((crm, op2), raw)),
    }
}

/// SVE, SME and memory tagging have state that the world switch does not save.
fn for_both(register: (u32, u32), raw: u64) -> u64 {
    match register {
        // ID_AA64PFR0: SVE.
        (4, 0) => raw & !field(32),
        // ID_AA64PFR1: MTE, SME.
        (4, 1) => raw & !(field(8) | field(24)),
        // ID_AA64ZFR0, ID_AA64SMFR0.
        (4, 4) | (4, 5) => 0,
        _ => raw,
    }
}

fn for_guest(register: (u32, u32), raw: u64) -> u64 {
    match register {
        // All AArch32 identification: guests are AArch64 only.
        (1..=3, _) => 0,
        // ID_AA64PFR0: EL3, EL2 absent; EL1, EL0 AArch64 only; GICv3 system registers; no RAS,
        // MPAM or AMU.
        (4, 0) => {
            let alone = with(with(raw, 0, 1), 4, 1);
            let gic = with(alone & !(field(8) | field(12)), 24, 1);
            // CSV2 without the context registers, which are not switched.
            capped(gic & !(field(28) | field(40) | field(44)), 56, 1)
        }
        // ID_AA64PFR1: BT and SSBS only.
        (4, 1) => raw & (field(0) | field(4)),
        // ID_AA64DFR0: the debug architecture, with the least breakpoints and watchpoints.
        (5, 0) => raw & field(0),
        (5, _) => 0,
        // ID_AA64ISAR0: no TME.
        (6, 0) => raw & !field(24),
        // ID_AA64ISAR1: no LS64; no pointer authentication, whose keys are not switched.
        (6, 1) => raw & !(field(60) | field(4) | field(8) | field(24) | field(28)),
        // ID_AA64ISAR2: no WFxT, MOPS, BC, pointer authentication.
        (6, 2) => raw & !(field(0) | field(8) | field(12) | field(16) | field(20)),
        // ID_AA64MMFR0: no ExS, FGT, ECV; not more address bits than stage 2 has.
        (7, 0) => capped(raw & !(field(44) | field(56) | field(60)), 0, PA_RANGE_40),
        // ID_AA64MMFR1: no VHE, LOR, HCX, TWED.
        (7, 1) => raw & !(field(8) | field(16) | field(32) | field(40)),
        // ID_AA64MMFR2: no NV, EVT.
        (7, 2) => raw & !(field(24) | field(56)),
        // ID_AA64MMFR3 and later: nothing of it.
        (7, _) => 0,
        (4, 2..) => 0,
        (6, 3..) => 0,
        _ => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_do_not_see_other_levels_or_sve() {
        // cortex-a76's value with SVE added.
        let raw = 0x1100_0001_1111_1112;
        assert_eq!(visible(Reader::Guest, (4, 0), raw), 0x1100_0000_0111_0011);
        assert_eq!(visible(Reader::Host, (4, 0), raw), 0x1100_0000_1111_1112);
    }

    #[test]
    fn guests_get_what_stage_2_and_the_world_switch_can_do() {
        assert_eq!(visible(Reader::Guest, (7, 0), 0x1126), 0x1122);
        assert_eq!(visible(Reader::Guest, (7, 0), 0x1121), 0x1121);
        assert_eq!(visible(Reader::Guest, (6, 1), 0x0110_0001_1101_1252), 0x0110_0001_0001_1002);
        assert_eq!(visible(Reader::Guest, (4, 0), 0x1200_0000_0000_0011) >> 56, 0x11);
    }

    #[test]
    fn performance_monitors_and_debug_are_hidden() {
        assert_eq!(visible(Reader::Guest, (5, 0), 0x1030_5408), 8);
        assert_eq!(visible(Reader::Host, (5, 0), 0x1030_5408), 0x1030_5408);
    }
}
