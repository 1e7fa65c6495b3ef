// SPDX-License-Identifier: Apache-2.0
//! One hypervisor call: the conduit that everything else goes through.

use crate::error::{Error, Status};

/// Makes hypervisor calls by the SMC Calling Convention.
pub trait Hvc {
    /// Makes one call: `args` are x0 (the function id) to x7, the answer is x0 to x3.
    fn call(&self, args: [u64; 8]) -> [u64; 4];
}

impl<H: Hvc + ?Sized> Hvc for &H {
    fn call(&self, args: [u64; 8]) -> [u64; 4] {
        (**self).call(args)
    }
}

/// The hypervisor below this guest, by the HVC instruction.
///
/// Only for code that runs at EL1 under a hypervisor: without one the instruction is undefined.
#[cfg(target_arch = "aarch64")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Hypervisor;

#[cfg(target_arch = "aarch64")]
impl Hvc for Hypervisor {
    fn call(&self, args: [u64; 8]) -> [u64; 4] {
        let [function, rest @ ..] = args;
        let mut registers = [0; 17];
        registers[..rest.len()].copy_from_slice(&rest);
        // CAST: a function id is 32 bits wide by the calling convention.
        let answer = smccc::hvc64(function as u32, registers);
        [answer[0], answer[1], answer[2], answer[3]]
    }
}

/// Calls `function` with `args` as x1 to x3 and gives all four words of the answer.
pub(crate) fn call<H: Hvc>(hvc: &H, function: u32, args: [u64; 3]) -> [u64; 4] {
    let [x1, x2, x3] = args;
    hvc.call([u64::from(function), x1, x2, x3, 0, 0, 0, 0])
}

/// Calls a 64-bit function whose x0 is a status or a value that is not negative.
pub(crate) fn call64<H: Hvc>(hvc: &H, function: u32, args: [u64; 3]) -> Result<[u64; 4], Error> {
    let answer = call(hvc, function, args);
    let status = answer[0].cast_signed();
    if status < 0 {
        return Err(Error::Refused { function, status: Status(status) });
    }
    Ok(answer)
}

/// Calls a 32-bit function whose w0 is a status or a value that is not negative.
///
/// The upper half of x0 is not part of such an answer (SMCCC 1.4, section 2.7).
pub(crate) fn call32<H: Hvc>(hvc: &H, function: u32, args: [u64; 3]) -> Result<[u64; 4], Error> {
    let mut answer = call(hvc, function, args);
    // CAST: the low half is the answer of a 32-bit call.
    let low = answer[0] as u32;
    let status = low.cast_signed();
    if status < 0 {
        return Err(Error::Refused { function, status: Status(i64::from(status)) });
    }
    answer[0] = u64::from(low);
    Ok(answer)
}

/// Calls a 64-bit function that answers 0 or fails.
pub(crate) fn call_unit<H: Hvc>(hvc: &H, function: u32, argument: u64) -> Result<(), Error> {
    match call64(hvc, function, [argument, 0, 0])?[0] {
        0 => Ok(()),
        other => {
            // A positive answer where none is defined is kept for the message.
            Err(Error::Refused { function, status: Status(other.cast_signed()) })
        }
    }
}
