// SPDX-License-Identifier: Apache-2.0
//! A virtual machine and its vCPUs.

use crate::context::{Fp, Regs, Sys, SYS_COUNT};
use crate::esr::Access;
use crate::firmware::WINDOW_PAGES;
use crate::lock::Mutex;
use crate::regions::{Region, Regions};
use crate::timer::Timer;
use crate::vgic::Vgic;
use core::sync::atomic::{AtomicBool, AtomicU16};

/// vCPUs of a VM.
pub const MAX_VCPUS: usize = 16;

/// Affinity bits of a vCPU: 16 to a cluster, as its software-generated interrupts can name.
pub const fn mpidr_of_vcpu(vcpu: usize) -> u64 {
    // CAST: widening.
    (vcpu as u64 & 0xf) | (vcpu as u64 >> 4) << 8
}

/// The vCPU with these affinity bits, whether it exists or not.
pub fn vcpu_of_mpidr(mpidr: u64) -> Option<usize> {
    let affinity = mpidr & 0xff_00ff_ffff;
    (0..MAX_VCPUS).find(|vcpu| mpidr_of_vcpu(*vcpu) == affinity)
}

/// One slot for a VM. Everything is all zero bits while it is free.
#[derive(Debug)]
pub struct Vm {
    /// The VM's id, 0 for a free slot. Written under the lock of `state`.
    pub id: AtomicU16,
    /// The guest wants only accesses to pages that it named to reach the host.
    pub guarded: AtomicBool,
    /// The VM is being destroyed: vCPUs stop at the next occasion.
    pub stopping: AtomicBool,
    /// Configuration and life.
    pub state: Mutex<State>,
    /// What vCPUs share while they run.
    pub shared: Mutex<Shared>,
    /// The vCPUs; a vCPU that runs holds its lock.
    pub vcpus: [Mutex<Vcpu>; MAX_VCPUS],
}

impl Vm {
    /// A free slot.
    pub const fn new() -> Self {
        Self {
            id: AtomicU16::new(0),
            guarded: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State::FREE),
            shared: Mutex::new(Shared::NEW),
            vcpus: [const { Mutex::new(Vcpu::ABSENT) }; MAX_VCPUS],
        }
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The slot is free.
    Free,
    /// It can be configured and run.
    Live,
    /// SET_PROTECTED_VM converts its pages; nothing else is allowed meanwhile.
    Protecting,
    /// DESTROY_VM returns its pages.
    Destroying,
}

/// How far a SET_MEMREGION has come that lets interrupts in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// The buffer that the host passed.
    pub buffer: u64,
    /// Pages done.
    pub done: u64,
}

/// How far a removal of a region has come that lets interrupts in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The region's first guest frame.
    pub gfn: u64,
    /// Frames from there on that were seen to have nothing mapped.
    pub seen: u64,
}

/// Where a VM's firmware goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First guest frame.
    pub gfn: u64,
    /// Pages that have their final contents.
    pub loaded: u64,
}

/// Configuration and life of a VM.
#[derive(Debug)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its memory is its own.
    pub protected: bool,
    /// A vCPU has been run.
    pub ran: bool,
    /// The first vCPU has been entered: the guest is itself responsible for what runs.
    pub booted: bool,
    /// The VM starts with the hypervisor's firmware.
    pub firmware: Option<Window>,
    /// Page with frame numbers for MAP_GUEST_BLOCK, 0 for none.
    pub mailbox: u64,
    /// Counter value of the host at the guest's zero.
    pub counter_offset: u64,
    /// vCPUs that exist.
    pub vcpus: u32,
    /// Guest memory.
    pub regions: Regions,
    /// The population under way.
    pub population: Option<Population>,
    /// The removal of a region under way.
    pub removal: Option<Removal>,
    /// Exits that the host told about.
    pub informed: u64,
}

impl State {
    /// A free slot's.
    pub const FREE: Self = Self {
        phase: Phase::Free,
        protected: false,
        ran: false,
        booted: false,
        firmware: None,
        mailbox: 0,
        counter_offset: 0,
        vcpus: 0,
        regions: Regions::NONE,
        population: None,
        removal: None,
        informed: 0,
    };

    /// Back to [`Self::FREE`], in place: regions are too many for the stack.
    pub fn reset(&mut self) {
        let Self {
            phase,
            protected,
            ran,
            booted,
            firmware,
            mailbox,
            counter_offset,
            vcpus,
            regions,
            population,
            removal,
            informed,
        } = self;
        *phase = Phase::Free;
        (*protected, *ran, *booted, *firmware) = (false, false, false, None);
        (*mailbox, *counter_offset, *vcpus, *informed) = (0, 0, 0, 0);
        regions.clear();
        (*population, *removal) = (None, None);
    }

    /// Whether any of these frames is in the firmware's window, about which nothing changes.
    pub fn in_firmware(&self, gfn: u64, pages: u64) -> bool {
        self.firmware.is_some_and(|window| {
            gfn < window.gfn + WINDOW_PAGES && window.gfn < gfn.saturating_add(pages)
        })
    }

    /// The region that a guest frame is in.
    pub fn region(&self, gfn: u64) -> Option<&Region> {
        self.regions.at(gfn)
    }

    /// The registered region that holds all of these frames.
    pub fn region_of_range(&self, gfn: u64, pages: u64) -> Option<&Region> {
        self.regions.holding(gfn, pages).filter(|region| region.registered)
    }
}

/// Whether a vCPU may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Not started, or stopped by itself.
    Off,
    /// Started by another vCPU, not yet run.
    Starting {
        /// Where.
        entry: u64,
        /// What it finds in x0.
        context: u64,
    },
    /// Running.
    On,
}

/// What vCPUs of one VM change in each other.
#[derive(Debug)]
pub struct Shared {
    /// The interrupt controller.
    pub gic: Vgic,
    /// Which vCPUs are started.
    pub power: [Power; MAX_VCPUS],
}

impl Shared {
    /// A free slot's.
    pub const NEW: Self = Self { gic: Vgic::new(), power: [Power::Off; MAX_VCPUS] };
}

/// What the next RUN has to complete first.
// An explicit tag: "nothing" is all zero bits.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// A load whose data the host supplies.
    Load(Access),
    /// A call whose four results the host supplies.
    Results,
}

/// The virtual CPU interface while the vCPU does not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuInterface {
    /// ICH_VMCR_EL2.
    pub vmcr: u64,
    /// ICH_AP0R0_EL2.
    pub ap0r: u64,
    /// ICH_AP1R0_EL2.
    pub ap1r: u64,
}

/// A vCPU.
#[derive(Debug)]
pub struct Vcpu {
    /// Physical address of its two pages; 0 if the vCPU does not exist.
    pub pages: u64,
    /// What the next RUN completes.
    pub pending: Pending,
    /// General-purpose registers.
    pub regs: Regs,
    /// EL1's system registers.
    pub sys: Sys,
    /// FP and SIMD registers.
    pub fp: Fp,
    /// The virtual CPU interface.
    pub gic: CpuInterface,
    /// The virtual timer.
    pub virtual_timer: Timer,
    /// The physical timer.
    pub physical_timer: Timer,
}

impl Vcpu {
    /// None.
    pub const ABSENT: Self = Self {
        pages: 0,
        pending: Pending::Nothing,
        regs: Regs { x: [0; 31], pc: 0, pstate: 0, pad: 0 },
        sys: [0; SYS_COUNT],
        fp: Fp::ZERO,
        gic: CpuInterface { vmcr: 0, ap0r: 0, ap1r: 0 },
        virtual_timer: Timer::OFF,
        physical_timer: Timer::OFF,
    };

    /// Registers as after reset.
    pub fn reset(&mut self) {
        let pages = self.pages;
        *self = Self { pages, ..Self::ABSENT };
        self.regs.pstate = crate::context::START_PSTATE;
        if let Some(sctlr) = self.sys.get_mut(crate::context::SYS_SCTLR) {
            *sctlr = crate::context::SCTLR_RESET;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mpidrs_and_indices_match() {
        for vcpu in 0..MAX_VCPUS {
            assert_eq!(vcpu_of_mpidr(mpidr_of_vcpu(vcpu) | 1 << 31), Some(vcpu));
        }
        assert_eq!(vcpu_of_mpidr(0x1_0000), None);
        assert_eq!(vcpu_of_mpidr(1 << 32), None);
    }
}
