// SPDX-License-Identifier: Apache-2.0
//! Random numbers from below: Arm's True Random Number Generator firmware interface (DEN0098).

use crate::error::{Error, Status};
use crate::hvc::{call32, call64, Hvc};
use gzvm_abi::guest::SMCCC_VERSION;

/// TRNG_VERSION.
pub(crate) const TRNG_VERSION: u32 = 0x8400_0050;
/// TRNG_FEATURES.
pub(crate) const TRNG_FEATURES: u32 = 0x8400_0051;
/// TRNG_RND64.
pub(crate) const TRNG_RND64: u32 = 0xc400_0053;

/// The most that one TRNG_RND64 answers: 192 bits in x1 to x3 (DEN0098 2.3).
const BYTES_PER_CALL: usize = 24;
/// TRNG_RND64: no entropy at the moment (DEN0098 2.1).
const NO_ENTROPY: Status = Status(-3);
/// Calls in a row that may answer "no entropy at the moment" before that is an error.
const MAX_TRIES: u32 = 1000;

/// A source of entropy for a guest, checked to be there.
#[derive(Clone, Copy, Debug)]
pub struct Trng<H> {
    hvc: H,
}

impl<H: Hvc> Trng<H> {
    /// Checks for SMCCC 1.1 (before it, asking could kill the guest), the interface's version 1 and
    /// its 64-bit call, as AVF's guests do.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn new(hvc: H) -> Result<Self, Error> {
        let smccc = version(&hvc, SMCCC_VERSION)?;
        if smccc < (1, 1) {
            return Err(too_old(SMCCC_VERSION, smccc));
        }
        let trng = version(&hvc, TRNG_VERSION)?;
        if trng.0 != 1 {
            return Err(too_old(TRNG_VERSION, trng));
        }
        call32(&hvc, TRNG_FEATURES, [u64::from(TRNG_RND64), 0, 0])?;
        Ok(Self { hvc })
    }

    /// Fills `buffer` with random bytes.
    ///
    /// # Errors
    ///
    /// The source's refusal, or that it had no entropy for a thousand calls in a row. The buffer is
    /// then partly filled and must not be used.
    pub fn fill(&self, buffer: &mut [u8]) -> Result<(), Error> {
        for chunk in buffer.chunks_mut(BYTES_PER_CALL) {
            let bytes = self.draw()?;
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }

    /// Draws 192 bits.
    fn draw(&self) -> Result<[u8; BYTES_PER_CALL], Error> {
        // CAST: 24 * 8 fits in any integer.
        let bits = BYTES_PER_CALL as u64 * 8;
        let mut tries = 0;
        let [_, high, middle, low] = loop {
            match call64(&self.hvc, TRNG_RND64, [bits, 0, 0]) {
                Err(Error::Refused { status: NO_ENTROPY, .. }) if tries < MAX_TRIES => tries += 1,
                answer => break answer?,
            }
        };
        let mut bytes = [0; BYTES_PER_CALL];
        for (part, word) in bytes.chunks_exact_mut(8).zip([low, middle, high]) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        Ok(bytes)
    }
}

/// Asks for a version: major in bits 30:16, minor in 15:0.
fn version<H: Hvc>(hvc: &H, function: u32) -> Result<(u16, u16), Error> {
    let version = call32(hvc, function, [0; 3])?[0];
    // CAST: the fields are 15 and 16 bits wide.
    Ok(((version >> 16) as u16, version as u16))
}

/// The error for a version that will not do.
fn too_old(function: u32, (major, minor): (u16, u16)) -> Error {
    Error::BadVersion { function, major, minor }
}
