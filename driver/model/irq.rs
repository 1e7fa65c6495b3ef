// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! IRQ_LINE: which interrupt of which VM is meant, and what the hypervisor is told of it.

use super::ids::VcpuId;
use super::refusal::{invalid, Errno, Refusal, Result};
use crate::abi::{ext, uapi};

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
/// The GIC's interrupt id of the first PPI.
const PPI_BASE: u16 = 16;
/// The GIC's interrupt id of the first SPI.
const SPI_BASE: u32 = 32;

/// State of a list register (`ICH_LR<n>_EL2`, as the two below): 0 is neither pending nor active.
const LR_STATE: u64 = 3 << 62;
/// The interrupt is backed by a physical one.
const LR_HW: u64 = 1 << 61;
/// The end of the interrupt is to be noticed; only without [`LR_HW`].
const LR_EOI: u64 = 1 << 41;

/// Checks a shared interrupt's number against the hypervisor's limit, where that is known.
pub fn spi(number: u32, spis: Option<u16>) -> Result<u16> {
    match u16::try_from(number) {
        Ok(number) if spis.is_none_or(|spis| number < spis) => Ok(number),
        _ => Err(invalid("interrupt number is not below the hypervisor's limit")),
    }
}

/// What IRQ_LINE's `irq` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose line.
    pub line: Line,
    /// Is the level to be that of the line, where the hypervisor has lines? Else it is a pulse.
    pub level: bool,
}

/// Decodes IRQ_LINE's `irq`.
///
/// Type 0 is what crosvm sends, which pulses and never lowers a line; type 1 means what it says.
pub fn decode(irq: u32, max_vcpus: u16, spis: Option<u16>) -> Result<Request> {
    let field = |shift: u32, mask: u32| (irq >> shift) & mask;
    let number = field(uapi::IRQ_NUMBER_SHIFT, uapi::IRQ_NUMBER_MASK);
    match field(uapi::IRQ_TYPE_SHIFT, uapi::IRQ_TYPE_MASK) {
        uapi::IRQ_TYPE_CPU => Ok(Request { line: Line::Spi(spi(number, spis)?), level: false }),
        uapi::IRQ_TYPE_SPI => Ok(Request { line: Line::Spi(spi(number, spis)?), level: true }),
        uapi::IRQ_TYPE_PPI => {
            let low = field(uapi::IRQ_VCPU_SHIFT, uapi::IRQ_VCPU_MASK);
            let high = field(uapi::IRQ_VCPU2_SHIFT, uapi::IRQ_VCPU2_MASK);
            let vcpu = VcpuId::new(u64::from(high << 8 | low), max_vcpus)?;
            match u16::try_from(number) {
                Ok(number) if number < PPIS => {
                    Ok(Request { line: Line::Ppi(vcpu, number), level: true })
                }
                _ => Err(invalid("private interrupt number is not below 16")),
            }
        }
        _ => Err(invalid("interrupt type is not 0, 1 or 2")),
    }
}

/// IRQ_LINE as the hypervisor takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The vCPU, where it matters.
    pub vcpu: VcpuId,
    /// SPI from 0, or a PPI's interrupt id.
    pub number: u16,
    /// Level, or 1 for a pulse.
    pub high: bool,
    /// One of [`ext`]'s `IRQ_KIND_*`, with flags.
    pub kind: u64,
}

impl Call {
    /// One pulse.
    pub const fn pulse(spi: u16) -> Self {
        Self { vcpu: VcpuId::BOOT, number: spi, high: true, kind: ext::IRQ_KIND_PULSE }
    }

    /// The level of a line of which the end is to be reported: with extension IRQ_KIND only.
    pub const fn reported(spi: u16, high: bool) -> Self {
        let end = if high { ext::IRQ_KIND_REPORT_END } else { 0 };
        Self { vcpu: VcpuId::BOOT, number: spi, high, kind: ext::IRQ_KIND_SPI_LEVEL | end }
    }

    /// What carries a request to a hypervisor with or without extension IRQ_KIND. Without it, it
    /// would take a private interrupt's number for a shared one's, and a level for a pulse.
    pub fn new(request: &Request, high: bool, kinds: bool) -> Result<Self> {
        match request.line {
            Line::Spi(number) if kinds && request.level => {
                Ok(Self { vcpu: VcpuId::BOOT, number, high, kind: ext::IRQ_KIND_SPI_LEVEL })
            }
            Line::Spi(number) => Ok(Self { high, ..Self::pulse(number) }),
            Line::Ppi(vcpu, number) if kinds => {
                Ok(Self { vcpu, number: PPI_BASE + number, high, kind: ext::IRQ_KIND_PPI_LEVEL })
            }
            Line::Ppi(..) => {
                let why = "the hypervisor cannot be told of private interrupts";
                Err(Refusal::new(Errno::OpNotSupp, why))
            }
        }
    }
}

/// The SPI, from 0, whose end an entry of [`HwState::lr`](crate::abi::run::HwState) reports.
pub fn ended_spi(entry: u64) -> Option<u16> {
    let is_end = entry & (LR_STATE | LR_HW | LR_EOI) == LR_EOI;
    // CAST: the interrupt id is in the low 32 bits.
    let spi = (entry as u32).checked_sub(SPI_BASE).filter(|_| is_end)?;
    u16::try_from(spi).ok()
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_irq))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    fn spi_request(number: u16, level: bool) -> Result<Request> {
        Ok(Request { line: Line::Spi(number), level })
    }

    #[test]
    fn w35_type_and_vcpu_are_looked_at() {
        assert_eq!(decode(5, 8, None), spi_request(5, false));
        assert_eq!(decode(0x0100_0005, 8, None), spi_request(5, true));
        let ppi = VcpuId::new(3, 8).map(|vcpu| Line::Ppi(vcpu, 11));
        assert_eq!(decode(0x0203_000b, 8, None).map(|request| request.line), ppi);
        assert!(decode(0x0208_000b, 8, None).is_err());
        assert!(decode(0x1200_000b, 8, None).is_err());
        assert!(decode(0x0200_0010, 8, None).is_err());
        assert!(decode(0x0300_0000, 8, None).is_err());
        assert!(decode(64, 8, Some(64)).is_err());
        assert!(decode(63, 8, Some(64)).is_ok());
    }

    #[test]
    fn levels_need_the_extension_and_private_lines_too() {
        let call = |irq, high, kinds| {
            let request = decode(irq, 8, None).map_err(|refusal| refusal.errno)?;
            let call = Call::new(&request, high, kinds).map_err(|refusal| refusal.errno)?;
            Ok((call.number, call.high, call.kind))
        };
        assert_eq!(call(5, true, true), Ok((5, true, ext::IRQ_KIND_PULSE)));
        assert_eq!(call(0x0100_0005, true, false), Ok((5, true, ext::IRQ_KIND_PULSE)));
        assert_eq!(call(0x0100_0005, false, true), Ok((5, false, ext::IRQ_KIND_SPI_LEVEL)));
        assert_eq!(call(0x0203_000b, true, true), Ok((27, true, ext::IRQ_KIND_PPI_LEVEL)));
        assert_eq!(call(0x0203_000b, true, false), Err(Errno::OpNotSupp));
    }

    #[test]
    fn only_ends_of_shared_interrupts_are_ends() {
        assert_eq!(ended_spi(1 << 41 | 41), Some(9));
        assert_eq!(ended_spi(41), None);
        assert_eq!(ended_spi(0), None);
        assert_eq!(ended_spi(1 << 41 | 31), None);
        for state in [1 << 61, 1 << 62, 1 << 63] {
            assert_eq!(ended_spi(state | 1 << 41 | 41), None);
        }
    }
}
