// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's UID: who is below this guest.

use crate::hvc::{call, Hvc};
use core::fmt;
use gzvm_abi::guest;

/// A hypervisor's UID: a UUID in the four words that the call answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uid(
    /// w0 to w3 of the answer.
    pub [u32; 4],
);

impl Uid {
    /// GenieZone's.
    pub const GENIEZONE: Self = Self(guest::GENIEZONE_UID);

    /// Asks the hypervisor. One that does not know the call leaves -1 in w0.
    pub fn query<H: Hvc>(hvc: &H) -> Self {
        // CAST: the call is a 32-bit one, its answer is in the low halves.
        Self(call(hvc, guest::VENDOR_HYP_UID, [0; 3]).map(|word| word as u32))
    }
}

impl fmt::Display for Uid {
    /// Writes the UUID; the words hold its bytes in little-endian order (SMCCC 1.4, 5.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [w0, w1, w2, w3] = self.0.map(u32::swap_bytes);
        write!(
            f,
            "{w0:08x}-{:04x}-{:04x}-{:04x}-{:04x}{w3:08x}",
            w1 >> 16,
            w1 & 0xffff,
            w2 >> 16,
            w2 & 0xffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geniezones_uid_reads_as_its_uuid() {
        assert_eq!(Uid::GENIEZONE.to_string(), "7e134ed0-3b82-488d-8cee-69c19211dbe7");
    }
}
