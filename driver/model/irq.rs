// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! IRQ_LINE: which interrupt of which VM is meant.

use super::ids::VcpuId;
use super::refusal::{invalid, Errno, Refusal, Result};
use crate::abi::uapi;

/// An interrupt of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A shared interrupt, numbered from 0.
    Spi(u16),
    /// A vCPU's private interrupt, numbered from 0 (GIC interrupt id minus 16).
    Ppi(VcpuId, u16),
}

/// PPIs are numbered below this (GICv3 interrupt ids 16 to 31).
const PPIS: u16 = 16;

/// Checks a shared interrupt's number against the hypervisor's limit, where that is known.
pub fn spi(number: u32, spis: Option<u16>) -> Result<Line> {
    match u16::try_from(number) {
        Ok(number) if spis.is_none_or(|spis| number < spis) => Ok(Line::Spi(number)),
        _ => Err(invalid("interrupt number is not below the hypervisor's limit")),
    }
}

/// Decodes IRQ_LINE's `irq`. Clients send shared interrupts with type 0 or 1.
pub fn decode(irq: u32, max_vcpus: u16, spis: Option<u16>) -> Result<Line> {
    let field = |shift: u32, mask: u32| (irq >> shift) & mask;
    let number = field(uapi::IRQ_NUMBER_SHIFT, uapi::IRQ_NUMBER_MASK);
    match field(uapi::IRQ_TYPE_SHIFT, uapi::IRQ_TYPE_MASK) {
        uapi::IRQ_TYPE_CPU | uapi::IRQ_TYPE_SPI => spi(number, spis),
        uapi::IRQ_TYPE_PPI => {
            let low = field(uapi::IRQ_VCPU_SHIFT, uapi::IRQ_VCPU_MASK);
            let high = field(uapi::IRQ_VCPU2_SHIFT, uapi::IRQ_VCPU2_MASK);
            let vcpu = VcpuId::new(u64::from(high << 8 | low), max_vcpus)?;
            match u16::try_from(number) {
                Ok(number) if number < PPIS => Ok(Line::Ppi(vcpu, number)),
                _ => Err(invalid("private interrupt number is not below 16")),
            }
        }
        _ => Err(invalid("interrupt type is not 0, 1 or 2")),
    }
}

/// What carries an interrupt without extension IRQ_KIND: the hypervisor would take a private
/// interrupt's number for a shared one's.
pub fn without_kind(line: Line) -> Result<u16> {
    match line {
        Line::Spi(number) => Ok(number),
        Line::Ppi(..) => {
            let why = "the hypervisor cannot be told of private interrupts";
            Err(Refusal::new(Errno::OpNotSupp, why))
        }
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_irq))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w35_type_and_vcpu_are_looked_at() {
        assert_eq!(decode(5, 8, None), Ok(Line::Spi(5)));
        assert_eq!(decode(0x0100_0005, 8, None), Ok(Line::Spi(5)));
        let ppi = VcpuId::new(3, 8).map(|vcpu| Line::Ppi(vcpu, 11));
        assert_eq!(decode(0x0203_000b, 8, None), ppi);
        assert!(decode(0x0208_000b, 8, None).is_err());
        assert!(decode(0x1200_000b, 8, None).is_err());
        assert!(decode(0x0200_0010, 8, None).is_err());
        assert!(decode(0x0300_0000, 8, None).is_err());
        assert!(decode(64, 8, Some(64)).is_err());
        assert!(decode(63, 8, Some(64)).is_ok());
    }
}
