// SPDX-License-Identifier: Apache-2.0
//! Decoding of the host's calls.

use gzvm_abi::hvc;

/// A call of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Index of the function.
    pub index: u32,
    /// x1 to x7.
    pub args: [u64; 7],
}

/// VM id and vCPU index in one argument. Upper bits mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// VM id.
    pub vm: u16,
    /// vCPU index.
    pub vcpu: usize,
}

/// The call in registers x0 to x7, if it is one of GenieZone's, in either family. Function ids are
/// 32 bits wide (SMCCC 2.5).
pub fn decode(registers: &[u64; 31]) -> Option<Call> {
    let [x0, args @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
        *registers;
    // CAST: the upper half does not count.
    let id = x0 as u32;
    let index = [hvc::ID_BASE, hvc::ID_BASE_SMC32]
        .iter()
        .find_map(|base| id.checked_sub(*base).filter(|index| *index <= 0xfff))?;
    Some(Call { index, args })
}

/// The index that a function id of `gzvm_abi::hvc` stands for.
pub const fn index(id: u32) -> u32 {
    id - hvc::ID_BASE
}

impl Call {
    /// Argument x1 to x7, by register number.
    pub fn x(&self, register: usize) -> u64 {
        register.checked_sub(1).and_then(|i| self.args.get(i)).copied().unwrap_or(0)
    }

    /// x1 as a VM id, if it can be one.
    pub fn vm(&self) -> Option<u16> {
        u16::try_from(self.x(1)).ok().filter(|id| *id != 0)
    }

    /// x1 as VM and vCPU.
    pub fn ids(&self) -> Ids {
        let tuple = self.x(1);
        // CAST: fields of 16 bits each.
        Ids { vm: (tuple >> 16) as u16, vcpu: usize::from(tuple as u16) }
    }
}

/// What the host gets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// x0 to x3.
    Done([u64; 4]),
    /// Nothing yet: interrupts are let in, then the host makes the same call again.
    Again,
    /// The call is to run a vCPU, which is not done here.
    Run {
        /// The vCPU.
        ids: Ids,
        /// x0 to x3 to answer afterwards in the place of what came of it (test builds).
        instead: Option<[u64; 4]>,
    },
}

impl Answer {
    /// Success with up to three results.
    pub const fn ok(x1: u64, x2: u64, x3: u64) -> Self {
        Self::Done([0, x1, x2, x3])
    }

    /// Not finished: the caller goes on behind the `done` units of work.
    pub const fn busy(done: u64) -> Self {
        // CAST: sign extension.
        Self::Done([gzvm_abi::hvc::ERR_BUSY as i64 as u64, done, 0, 0])
    }

    /// Failure.
    pub const fn status(status: i32) -> Self {
        // CAST: sign extension; the driver reads 32 bits of it, or all for IRQ_LINE.
        Self::Done([status as i64 as u64, 0, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(x0: u64) -> [u64; 31] {
        let mut registers = [0; 31];
        registers[0] = x0;
        registers[1] = 0xffff_0000_0003_0002;
        registers[7] = 77;
        registers
    }

    #[test]
    fn both_families_are_decoded() {
        for base in [0xfb00_1000, 0xbb00_1000, 0xffff_ffff_fb00_1000] {
            let call = decode(&registers(base + 5)).expect("a call");
            assert_eq!(call.index, index(hvc::RUN));
            assert_eq!(call.x(7), 77);
            assert_eq!(call.ids(), Ids { vm: 3, vcpu: 2 });
            assert_eq!(call.vm(), None);
        }
        assert_eq!(decode(&registers(0x8400_0000)), None);
        assert_eq!(decode(&registers(0xfb00_0fff)), None);
        assert_eq!(decode(&registers(0xfb00_2000)), None);
    }
}
