// SPDX-License-Identifier: Apache-2.0
//! The registers of distributor and redistributors (IHI 0069H 12.8 to 12.11), with a single
//! security state (GICD_CTLR.DS = 1) and affinity routing always on.

use super::{Irq, Vgic, Wake, PHYSICAL_TIMER, PRIVATE, SPIS, VIRTUAL_TIMER};
use gzvm_abi::uapi::{VGIC_DIST_SIZE, VGIC_REDIST_SIZE};

const SGI_FRAME: u64 = 0x1_0000;

const CTLR: u64 = 0x0000;
const TYPER: u64 = 0x0004;
const IIDR: u64 = 0x0008;
const GICR_TYPER: u64 = 0x0008;
const GICR_TYPER_HIGH: u64 = 0x000c;
const GICR_IIDR: u64 = 0x0004;
const WAKER: u64 = 0x0014;
const PIDR2: u64 = 0xffe8;
const IROUTER: u64 = 0x6000;

/// GICD_CTLR: DS, ARE.
const CTLR_FIXED: u32 = 1 << 6 | 1 << 4;
/// GICD_IIDR: refhyp is nobody's product; Arm's implementer code, as guests expect one.
const IIDR_VALUE: u32 = 0x43b;
/// GICv3.
const PIDR2_VALUE: u32 = 0x3b;
/// Interrupt ids have 10 bits; no "1 of N" routing; no message-based interrupts.
const TYPER_FIXED: u32 = 9 << 19 | 1 << 25;

/// Whether an interrupt is edge- or level-triggered for good: software-generated ones and timers'.
fn is_fixed(intid: u64) -> bool {
    intid < 16 || intid == u64::from(VIRTUAL_TIMER) || intid == u64::from(PHYSICAL_TIMER)
}

/// Which frame an address is in, and where in it.
enum Place {
    Distributor(u64),
    Redistributor(usize, u64),
}

/// Registers that have one bit for each interrupt, by what the bit is.
#[derive(Clone, Copy)]
enum Bit {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

/// The bit register at an offset in the common part of the frames, and its index.
fn bit_register(offset: u64) -> Option<(Bit, u64)> {
    let index = (offset & 0x7f) / 4;
    let bit = match offset & !0x7f {
        0x080 => Bit::Group,
        0x100 => Bit::SetEnable,
        0x180 => Bit::ClearEnable,
        0x200 => Bit::SetPending,
        0x280 => Bit::ClearPending,
        0x300 => Bit::SetActive,
        0x380 => Bit::ClearActive,
        _ => return None,
    };
    Some((bit, index))
}

impl Bit {
    fn read(self, irq: &Irq) -> bool {
        match self {
            Self::Group => irq.group1,
            Self::SetEnable | Self::ClearEnable => irq.enabled,
            Self::SetPending | Self::ClearPending => irq.is_pending(),
            Self::SetActive | Self::ClearActive => irq.active,
        }
    }

    fn write(self, irq: &mut Irq, one: bool) {
        match self {
            Self::Group => irq.group1 = one,
            Self::SetEnable => irq.enabled |= one,
            Self::ClearEnable => irq.enabled &= !one,
            Self::SetPending => irq.pending |= one,
            Self::ClearPending if one => irq.clear_pending(),
            Self::SetActive => irq.active |= one,
            Self::ClearActive if one => irq.clear_active(),
            Self::ClearPending | Self::ClearActive => (),
        }
    }
}

/// Stores one interrupt's field of a register that distributor and redistributors have.
fn store_field(irq: &mut Irq, offset: u64, intid: u64, field: u32) {
    match (offset, bit_register(offset)) {
        (_, Some((bit, _))) => bit.write(irq, field != 0),
        // CAST: eight bits, of which a GIC with five priority bits keeps five.
        (0x400..0x800, _) => irq.priority = field as u8 & 0xf8,
        _ if !is_fixed(intid) => {
            irq.edge = field & 0b10 != 0;
            irq.settle();
        }
        _ => (),
    }
}

impl Vgic {
    fn place(&self, address: u64) -> Option<Place> {
        let inside = |base: u64, size: u64| {
            address.checked_sub(base).filter(|offset| base != 0 && *offset < size)
        };
        if let Some(offset) = inside(self.distributor, VGIC_DIST_SIZE) {
            return Some(Place::Distributor(offset));
        }
        let all = VGIC_REDIST_SIZE.checked_mul(u64::try_from(self.vcpus).ok()?)?;
        let offset = inside(self.redistributors, all)?;
        let vcpu = usize::try_from(offset / VGIC_REDIST_SIZE).ok()?;
        Some(Place::Redistributor(vcpu, offset % VGIC_REDIST_SIZE))
    }

    /// Whether the range of `size` bytes has any of the controller's registers; before there are
    /// vCPUs, those of the first one's redistributor.
    pub fn overlaps(&self, start: u64, size: u64) -> bool {
        let redistributors = VGIC_REDIST_SIZE * u64::try_from(self.vcpus.max(1)).unwrap_or(1);
        [(self.distributor, VGIC_DIST_SIZE), (self.redistributors, redistributors)].into_iter().any(
            |(base, frames)| {
                base != 0
                    && start < base.saturating_add(frames)
                    && base < start.saturating_add(size)
            },
        )
    }

    /// Whether the controller's registers are at this guest physical address.
    pub fn covers(&self, address: u64) -> bool {
        self.place(address).is_some()
    }

    /// A load of `size` bytes (1, 2, 4 or 8).
    pub fn load(&self, address: u64, size: u64) -> u64 {
        let word = |address: u64| u64::from(self.load_word(address & !3));
        match size {
            8 => word(address) | word(address + 4) << 32,
            _ => word(address) >> ((address & 3) * 8),
        }
    }

    /// A store of `size` bytes (1, 2, 4 or 8); says whom it concerns.
    pub fn store(&mut self, address: u64, size: u64, value: u64) -> Wake {
        // CAST: halves of the value.
        let (low, high) = (value as u32, (value >> 32) as u32);
        match size {
            8 => {
                let mut wake = self.store_word(address & !3, low, u32::MAX);
                wake.add(self.store_word((address & !3) + 4, high, u32::MAX));
                wake
            }
            4 => self.store_word(address & !3, low, u32::MAX),
            _ => {
                let shift = (address & 3) * 8;
                let mask = if size == 1 { 0xffu32 } else { 0xffff };
                self.store_word(address & !3, (low & mask) << shift, mask << shift)
            }
        }
    }

    fn load_word(&self, address: u64) -> u32 {
        match self.place(address) {
            Some(Place::Distributor(offset)) => self.load_distributor(offset),
            Some(Place::Redistributor(vcpu, offset)) => self.load_redistributor(vcpu, offset),
            None => 0,
        }
    }

    fn load_distributor(&self, offset: u64) -> u32 {
        match offset {
            CTLR => u32::from(self.groups) | CTLR_FIXED,
            // CAST: a small constant.
            TYPER => TYPER_FIXED | (SPIS / 32) as u32,
            IIDR => IIDR_VALUE,
            PIDR2 => PIDR2_VALUE,
            IROUTER..0x8000 if offset.is_multiple_of(8) => {
                let intid = u32::try_from((offset - IROUTER) / 8).unwrap_or(0);
                self.shared(intid).map_or(0, |irq| irq.route)
            }
            // The private interrupts' registers are in the redistributors.
            _ => self.load_common(0, offset, true),
        }
    }

    fn load_redistributor(&self, vcpu: usize, offset: u64) -> u32 {
        let Some(cpu) = self.cpus.get(vcpu) else { return 0 };
        match offset {
            GICR_IIDR => IIDR_VALUE,
            GICR_TYPER => {
                let last = u32::from(vcpu + 1 == self.vcpus) << 4;
                u32::try_from(vcpu).unwrap_or(0) << 8 | last
            }
            // CAST: affinity bits 31:0 of a vCPU's MPIDR fit.
            GICR_TYPER_HIGH => crate::vm::mpidr_of_vcpu(vcpu) as u32,
            // ProcessorSleep, and ChildrenAsleep follows it.
            WAKER => u32::from(cpu.sleeping) * 0b110,
            PIDR2 => PIDR2_VALUE,
            SGI_FRAME.. => self.load_common(vcpu, offset - SGI_FRAME, false),
            _ => 0,
        }
    }

    /// An interrupt as seen through the distributor, which has the shared ones only.
    fn shared(&self, intid: u32) -> Option<&Irq> {
        usize::try_from(intid).ok()?.checked_sub(PRIVATE).and_then(|i| self.spis.get(i))
    }

    fn visible(&self, vcpu: usize, intid: u64, shared: bool) -> Option<&Irq> {
        let intid = u32::try_from(intid).ok()?;
        let private = usize::try_from(intid).ok()? < PRIVATE;
        (private != shared).then(|| self.irq(vcpu, intid))?
    }

    fn visible_mut(&mut self, vcpu: usize, intid: u64, shared: bool) -> Option<&mut Irq> {
        let intid = u32::try_from(intid).ok()?;
        let private = usize::try_from(intid).ok()? < PRIVATE;
        (private != shared).then(|| self.irq_mut(vcpu, intid))?
    }

    /// The registers that distributor and redistributors have at the same offsets.
    fn load_common(&self, vcpu: usize, offset: u64, shared: bool) -> u32 {
        let mut word = 0;
        match offset {
            0x080..0x400 => {
                let Some((bit, index)) = bit_register(offset) else { return 0 };
                for n in 0..32 {
                    let irq = self.visible(vcpu, index * 32 + n, shared);
                    word |= u32::from(irq.is_some_and(|irq| bit.read(irq))) << n;
                }
            }
            0x400..0x800 => {
                for n in 0..4 {
                    let irq = self.visible(vcpu, offset - 0x400 + n, shared);
                    word |= u32::from(irq.map_or(0, |irq| irq.priority)) << (n * 8);
                }
            }
            0xc00..0xd00 => {
                for n in 0..16 {
                    let irq = self.visible(vcpu, (offset - 0xc00) * 4 + n, shared);
                    word |= u32::from(irq.is_some_and(|irq| irq.edge)) << (n * 2 + 1);
                }
            }
            _ => (),
        }
        word
    }

    fn store_word(&mut self, address: u64, value: u32, mask: u32) -> Wake {
        match self.place(address) {
            Some(Place::Distributor(offset)) => self.store_distributor(offset, value, mask),
            Some(Place::Redistributor(vcpu, offset)) => match offset {
                WAKER => {
                    if let Some(cpu) = self.cpus.get_mut(vcpu) {
                        cpu.sleeping = value & 0b10 != 0;
                    }
                    Wake::default()
                }
                SGI_FRAME.. => self.store_common(vcpu, offset - SGI_FRAME, value, mask, false),
                _ => Wake::default(),
            },
            None => Wake::default(),
        }
    }

    fn store_distributor(&mut self, offset: u64, value: u32, mask: u32) -> Wake {
        match offset {
            CTLR => {
                // CAST: two bits.
                self.groups = (value & 0b11) as u8;
                self.reach_all()
            }
            IROUTER..0x8000 if offset.is_multiple_of(8) => {
                let mut wake = self.reach_all();
                if let Some(irq) = self.visible_mut(0, (offset - IROUTER) / 8, true) {
                    irq.route = value & 0x80ff_ffff;
                    let irq = *irq;
                    wake.add(self.reach_listed(&irq, true));
                }
                wake.add(self.reach_all());
                wake
            }
            _ => self.store_common(0, offset, value, mask, true),
        }
    }

    fn store_common(
        &mut self,
        vcpu: usize,
        offset: u64,
        value: u32,
        mask: u32,
        shared: bool,
    ) -> Wake {
        // Fields of a word, their bits, and the interrupt of the first.
        let (count, width, first) = match offset {
            0x080..0x400 => (32u32, 1u32, (offset & 0x7f) * 8),
            0x400..0x800 => (4, 8, offset - 0x400),
            0xc00..0xd00 => (16, 2, (offset - 0xc00) * 4),
            _ => return Wake::default(),
        };
        let mut wake = Wake::default();
        let ones = u32::MAX >> (32 - width);
        for n in (0..count).filter(|n| mask & (ones << (n * width)) != 0) {
            let intid = first + u64::from(n);
            let Some(irq) = self.visible_mut(vcpu, intid, shared) else { continue };
            let before = *irq;
            store_field(irq, offset, intid, (value >> (n * width)) & ones);
            let irq = *irq;
            // In another vCPU's list register it would go on as it was.
            wake.add(self.reach_listed(&irq, irq != before));
        }
        wake.add(if shared { self.reach_all() } else { self.reach_if_pending(vcpu) });
        wake
    }

    fn reach_if_pending(&self, vcpu: usize) -> Wake {
        if self.has_pending(vcpu) {
            self.reach(vcpu)
        } else {
            Wake::default()
        }
    }

    /// After a change to shared interrupts, which may be for anyone.
    fn reach_all(&self) -> Wake {
        let mut wake = Wake::default();
        (0..self.vcpus).for_each(|vcpu| wake.add(self.reach_if_pending(vcpu)));
        wake
    }
}
