// SPDX-License-Identifier: Apache-2.0
//! A VM for tests: memory at [`RAM`], vCPUs that start at the beginning of a program.

use std::fs::File;
use std::os::fd::OwnedFd;

use gzvm_abi::run::{self, Event, Exception, Hypercall, Mmio, Run};
use gzvm_abi::{reg, uapi};

use crate::guest::{self, REPORT};
use crate::mapping::Mapping;
use crate::sys::{self, Result};

/// Guest physical address of the memory; programs are at its start.
pub const RAM: u64 = 0x8000_0000;
/// EL1h, interrupts masked.
const PSTATE: u64 = 0x3c5;

/// A VM.
pub struct Machine {
    /// `/dev/gzvm`.
    pub device: File,
    /// The VM.
    pub vm: OwnedFd,
    /// Its memory, slot 0.
    pub ram: Mapping,
}

impl Machine {
    /// A VM with so many bytes of anonymous memory, and a program at its start.
    pub fn new(size: u64, program: &[u8]) -> Self {
        Self::with(Mapping::anonymous(size), program)
    }

    /// A VM with this memory, and a program at its start.
    pub fn with(ram: Mapping, program: &[u8]) -> Self {
        let machine = Self::bare(ram);
        machine.ram.load(0, program);
        machine.add_ram().expect("memory slot");
        machine
    }

    /// A VM without memory; `ram` is not known to it yet.
    pub fn bare(ram: Mapping) -> Self {
        let device = sys::open_device().expect("/dev/gzvm");
        let vm = sys::ioctl_fd(&device, uapi::CREATE_VM, 0).expect("CREATE_VM");
        Self { device, vm, ram }
    }

    /// Makes slot 0 of the memory.
    pub fn add_ram(&self) -> Result<()> {
        sys::set_region(&self.vm, 0, RAM, self.ram.size(), self.ram.address())
    }

    /// Adds a GICv3.
    pub fn add_gic(&self, vcpus: u64) {
        self.create_device(uapi::DEV_TYPE_VGIC_V3_DIST, guest::GIC_DIST, uapi::VGIC_DIST_SIZE);
        let redist = guest::gic_redist(vcpus);
        self.create_device(uapi::DEV_TYPE_VGIC_V3_REDIST, redist, uapi::VGIC_REDIST_SIZE);
    }

    fn create_device(&self, dev_type: u32, dev_addr: u64, dev_reg_size: u64) {
        let mut device =
            uapi::CreateDevice { dev_type, dev_addr, dev_reg_size, ..Default::default() };
        sys::ioctl(&self.vm, uapi::CREATE_DEVICE, &mut device).expect("CREATE_DEVICE");
    }

    /// A vCPU that will start at the beginning of the memory with these arguments.
    pub fn boot_vcpu(&self, arguments: &[u64]) -> Vcpu {
        let vcpu = self.vcpu(0);
        vcpu.set_reg(reg::PC, RAM).expect("PC");
        vcpu.set_reg(reg::x(20), REPORT).expect("x20");
        for (index, value) in arguments.iter().enumerate() {
            vcpu.set_reg(reg::x(index as u64), *value).expect("argument");
        }
        vcpu
    }

    /// A vCPU that somebody else will start.
    pub fn vcpu(&self, index: usize) -> Vcpu {
        let vcpu = Vcpu::new(&self.vm, index).expect("CREATE_VCPU");
        vcpu.set_reg(reg::PSTATE, PSTATE).expect("PSTATE");
        vcpu
    }

    /// Raises a shared interrupt, as crosvm does: a pulse.
    pub fn raise(&self, spi: u32) -> Result<()> {
        self.set_line(uapi::IRQ_TYPE_CPU, spi, true)
    }

    /// Sets the level of an interrupt's line; `number` may have a vCPU's index in it.
    pub fn set_line(&self, kind: u32, number: u32, high: bool) -> Result<()> {
        let irq = kind << uapi::IRQ_TYPE_SHIFT | number;
        let mut line = uapi::IrqLevel { irq, level: u32::from(high) };
        sys::ioctl(&self.vm, uapi::IRQ_LINE, &mut line).map(|_| ())
    }

    /// State of a guest range, and for how many bytes it holds.
    pub fn range_state(&self, gpa: u64, size: u64) -> Result<(u32, u64)> {
        let mut range = uapi::RangeState { guest_phys_addr: gpa, size, ..Default::default() };
        sys::ioctl(&self.vm, uapi::GET_RANGE_STATE, &mut range)?;
        Ok((range.state, range.size))
    }

    /// Makes the VM protected.
    pub fn protect(&self) -> Result<()> {
        let mut request = uapi::EnableCap {
            cap: gzvm_abi::cap::PROTECTED_VM,
            args: [gzvm_abi::cap::PVM_SET_PROTECTED_VM, 0, 0, 0, 0],
        };
        sys::ioctl(&self.vm, uapi::ENABLE_CAP, &mut request).map(|_| ())
    }
}

/// Why a vCPU stopped.
#[derive(Debug)]
pub enum Exit {
    /// A write to an address without memory.
    Write(Mmio),
    /// A read from one; answer with [`Vcpu::answer`].
    Read(Mmio),
    /// A hypercall for the VMM.
    Hypercall(Hypercall),
    /// An exception that the driver could not handle.
    Exception(Exception),
    /// A system event.
    System(Event),
    /// Any other reason.
    Other(u32),
}

/// A vCPU.
pub struct Vcpu {
    /// The vCPU.
    pub fd: OwnedFd,
    /// The structure that RUN copies in and out.
    pub run: Box<Run>,
}

impl Vcpu {
    /// Creates a vCPU.
    pub fn new(vm: &OwnedFd, index: usize) -> Result<Self> {
        let fd = sys::ioctl_fd(vm, uapi::CREATE_VCPU, index)?;
        Ok(Self { fd, run: Box::default() })
    }

    /// Writes a register.
    pub fn set_reg(&self, id: u64, mut value: u64) -> Result<()> {
        let mut argument = uapi::OneReg { id, addr: std::ptr::from_mut(&mut value) as u64 };
        sys::ioctl(&self.fd, uapi::SET_ONE_REG, &mut argument).map(|_| ())
    }

    /// Reads a register.
    pub fn get_reg(&self, id: u64) -> Result<u64> {
        let mut value = 0;
        let mut argument = uapi::OneReg { id, addr: std::ptr::from_mut(&mut value) as u64 };
        sys::ioctl(&self.fd, uapi::GET_ONE_REG, &mut argument)?;
        Ok(value)
    }

    /// Runs until the guest needs something.
    pub fn run(&mut self) -> Result<Exit> {
        sys::ioctl(&self.fd, uapi::RUN, self.run.as_mut())?;
        Ok(self.exit())
    }

    /// The exit that the structure holds.
    pub fn exit(&self) -> Exit {
        match self.run.exit_reason {
            run::EXIT_MMIO => {
                let mmio: Mmio = self.run.payload();
                if mmio.is_write != 0 {
                    Exit::Write(mmio)
                } else {
                    Exit::Read(mmio)
                }
            }
            run::EXIT_HYPERCALL => Exit::Hypercall(self.run.payload()),
            run::EXIT_EXCEPTION => Exit::Exception(self.run.payload()),
            run::EXIT_SYSTEM_EVENT => Exit::System(self.run.payload()),
            other => Exit::Other(other),
        }
    }

    /// Runs until the guest stores to the report address, ignoring signals; answers the value.
    pub fn report(&mut self) -> u64 {
        loop {
            match self.run() {
                Ok(Exit::Write(mmio)) => return u64::from_le_bytes(mmio.data),
                Err(libc::EINTR) => {}
                other => panic!("no report but {other:?}"),
            }
        }
    }

    /// Answers the read that the guest is waiting for.
    pub fn answer(&mut self, value: u64) {
        let mut mmio: Mmio = self.run.payload();
        mmio.data = value.to_le_bytes();
        self.run.set_payload(&mmio);
    }

    /// Runs until the guest reads from the report address, ignoring signals, and answers.
    pub fn answer_next_read(&mut self, value: u64) {
        loop {
            match self.run() {
                Ok(Exit::Read(_)) => return self.answer(value),
                Err(libc::EINTR) => {}
                other => panic!("no read but {other:?}"),
            }
        }
    }
}
