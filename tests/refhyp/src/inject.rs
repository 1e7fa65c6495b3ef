// SPDX-License-Identifier: Apache-2.0
//! Exceptions that EL1 is made to take (Arm ARM D1.3.1 and the AArch64.TakeException pseudocode).

use crate::esr::{EC_DABT_CUR, EC_DABT_LOW, EC_IABT_CUR, EC_IABT_LOW, FSC_EXTERNAL, IL};

/// An exception for EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// The instruction is not defined.
    Undefined,
    /// A synchronous external abort of a load or store at this virtual address.
    DataAbort(u64),
    /// A synchronous external abort of a fetch at this virtual address.
    FetchAbort(u64),
}

const MODE: u64 = 0xf;
const AARCH32: u64 = 1 << 4;
const EL1H: u64 = 0b0101;
const DAIF: u64 = 0xf << 6;
const FLAGS: u64 = 0xf << 28;
const SSBS: u64 = 1 << 12;
const PAN: u64 = 1 << 22;
const DIT: u64 = 1 << 24;
const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;

/// Where and how EL1 goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Offset from VBAR_EL1.
    pub vector: u64,
    /// The new processor state.
    pub pstate: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception sets it.
    pub far: Option<u64>,
}

/// How EL1 takes `exception` in the state `pstate`, with this SCTLR_EL1.
pub fn entry(exception: Exception, pstate: u64, sctlr: u64) -> Entry {
    let same_level = pstate & MODE != 0;
    let vector = match pstate & MODE {
        0 if pstate & AARCH32 != 0 => 0x600,
        0 => 0x400,
        EL1H => 0x200,
        _ => 0x000,
    };
    let class = match (exception, same_level) {
        (Exception::Undefined, _) => 0,
        (Exception::DataAbort(_), true) => EC_DABT_CUR,
        (Exception::DataAbort(_), false) => EC_DABT_LOW,
        (Exception::FetchAbort(_), true) => EC_IABT_CUR,
        (Exception::FetchAbort(_), false) => EC_IABT_LOW,
    };
    let (status, far) = match exception {
        Exception::Undefined => (0, None),
        Exception::DataAbort(far) | Exception::FetchAbort(far) => (FSC_EXTERNAL, Some(far)),
    };
    let mut new = EL1H | DAIF | (pstate & (FLAGS | PAN | DIT));
    if sctlr & SCTLR_SPAN == 0 {
        new |= PAN;
    }
    if sctlr & SCTLR_DSSBS != 0 {
        new |= SSBS;
    }
    Entry { vector, pstate: new, esr: class << 26 | IL | status, far }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_mode_aborts_come_from_the_lower_level() {
        let entry = entry(Exception::DataAbort(0x1234), 0x6000_0000, SCTLR_SPAN);
        assert_eq!(entry.vector, 0x400);
        assert_eq!(entry.esr, 0x24 << 26 | 1 << 25 | 0x10);
        assert_eq!(entry.far, Some(0x1234));
        assert_eq!(entry.pstate, 0x6000_0000 | 0x3c5);
    }

    #[test]
    fn user_mode_in_aarch32_state_has_vectors_of_its_own() {
        let entry = entry(Exception::DataAbort(0x1234), 0x6000_0010, SCTLR_SPAN);
        assert_eq!((entry.vector, entry.esr >> 26), (0x600, 0x24));
        assert_eq!(entry.pstate, 0x6000_0000 | 0x3c5);
    }

    #[test]
    fn kernel_aborts_come_from_the_same_level() {
        let taken = entry(Exception::FetchAbort(0), EL1H, SCTLR_SPAN);
        assert_eq!((taken.vector, taken.esr >> 26), (0x200, 0x21));
        assert_eq!(entry(Exception::Undefined, 0b0100, SCTLR_SPAN).vector, 0);
    }

    #[test]
    fn pan_and_ssbs_follow_the_control_register() {
        assert_eq!(entry(Exception::Undefined, 0, 0).pstate & PAN, PAN);
        assert_eq!(entry(Exception::Undefined, 0, SCTLR_SPAN).pstate & PAN, 0);
        assert_eq!(entry(Exception::Undefined, 0, SCTLR_DSSBS).pstate & SSBS, SSBS);
    }
}
