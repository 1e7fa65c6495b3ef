// SPDX-License-Identifier: Apache-2.0
//! A VM: memory slots, interrupts, protection, vCPUs.

use crate::device::check_extension;
use crate::error::Result;
use crate::ioctl;
use crate::vcpu::Vcpu;
use gzvm_abi::{cap, uapi};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A VM. It lives until this handle and the handles of its vCPUs are gone.
#[derive(Debug)]
pub struct Vm {
    fd: OwnedFd,
}

impl Vm {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The value of a capability (`abi::cap`), or `None` where driver and hypervisor do not have
    /// it.
    pub fn check_extension(&self, cap: u64) -> Result<Option<u64>> {
        check_extension(self.fd.as_fd(), cap)
    }

    /// Sets a memory slot; the region's flags are its purpose (`abi::uapi::MEM_REGION_*`).
    ///
    /// # Safety
    ///
    /// `userspace_addr .. + memory_size` must be a mapping of this process that holds nothing but
    /// guest memory: as long as the slot exists and the VM or one of its vCPUs does, it stays
    /// mapped, and Rust code accesses it in ways that tolerate concurrent writes only.
    pub unsafe fn set_user_memory_region(
        &self,
        region: &uapi::UserspaceMemoryRegion,
    ) -> Result<()> {
        let mut region = *region;
        ioctl::call(self.fd.as_fd(), &ioctl::SET_USER_MEMORY_REGION, &mut region).map(drop)
    }

    /// Creates the GICv3: the distributor at guest address `dist`, the redistributors from
    /// `redist` on, one frame pair ([`uapi::VGIC_REDIST_SIZE`]) for each vCPU. Comes before the
    /// vCPUs.
    pub fn create_vgic(&self, dist: u64, redist: u64) -> Result<()> {
        self.create_device(uapi::DEV_TYPE_VGIC_V3_DIST, dist, uapi::VGIC_DIST_SIZE)?;
        self.create_device(uapi::DEV_TYPE_VGIC_V3_REDIST, redist, uapi::VGIC_REDIST_SIZE)
    }

    fn create_device(&self, dev_type: u32, dev_addr: u64, dev_reg_size: u64) -> Result<()> {
        let mut device =
            uapi::CreateDevice { dev_type, dev_addr, dev_reg_size, ..Default::default() };
        ioctl::call(self.fd.as_fd(), &ioctl::CREATE_DEVICE, &mut device).map(drop)
    }

    /// The state of guest memory from `addr` on, page aligned, and how many of `size` bytes have it,
    /// at least a page; `None` where driver or hypervisor cannot tell (phones' cannot).
    pub fn range_state(&self, addr: u64, size: u64) -> Result<Option<(RangeState, u64)>> {
        let mut range = uapi::RangeState { guest_phys_addr: addr, size, ..Default::default() };
        match ioctl::call(self.fd.as_fd(), &ioctl::GET_RANGE_STATE, &mut range) {
            Ok(_) => Ok(RangeState::new(range.state).map(|state| (state, range.size))),
            Err(e) if matches!(e.errno(), libc::EOPNOTSUPP | libc::ENOTTY) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Creates the vCPU with index `id`, counted from 0.
    pub fn create_vcpu(&self, id: u32) -> Result<Vcpu> {
        let fd = ioctl::call_value(self.fd.as_fd(), &ioctl::CREATE_VCPU, u64::from(id))?;
        // SAFETY: CREATE_VCPU returned `fd`, new and owned by nobody else.
        Ok(Vcpu::new(unsafe { OwnedFd::from_raw_fd(fd) }, id))
    }

    /// Raises or lowers the line of SPI `spi`, counted from 0. Under a hypervisor without extension
    /// IRQ_KIND raising is a pulse and lowering does nothing.
    pub fn irq_line(&self, spi: u16, level: bool) -> Result<()> {
        let irq = u32::from(spi) | uapi::IRQ_TYPE_SPI << uapi::IRQ_TYPE_SHIFT;
        let mut line = uapi::IrqLevel { irq, level: u32::from(level) };
        ioctl::call(self.fd.as_fd(), &ioctl::IRQ_LINE, &mut line).map(drop)
    }

    /// Makes a signal of the eventfd `event` an interrupt on SPI `gsi`, counted from 0. With
    /// `resample` the line is level-triggered and that eventfd is signalled at its end of
    /// interrupt.
    pub fn register_irqfd(
        &self,
        event: BorrowedFd<'_>,
        gsi: u32,
        resample: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let mut irqfd = uapi::Irqfd { fd: raw(event), gsi, ..Default::default() };
        if let Some(resample) = resample {
            irqfd.flags = uapi::IRQFD_FLAG_RESAMPLE;
            irqfd.resamplefd = raw(resample);
        }
        ioctl::call(self.fd.as_fd(), &ioctl::IRQFD, &mut irqfd).map(drop)
    }

    /// Undoes [`Vm::register_irqfd`]. No interrupt of it is under way after the return.
    pub fn unregister_irqfd(&self, event: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        let flags = uapi::IRQFD_FLAG_DEASSIGN;
        let mut irqfd = uapi::Irqfd { fd: raw(event), gsi, flags, ..Default::default() };
        ioctl::call(self.fd.as_fd(), &ioctl::IRQFD, &mut irqfd).map(drop)
    }

    /// Makes guest writes to `addr` signal the eventfd `event` instead of ending [`Vcpu::run`].
    /// `len` is the width in bytes (0: any); `datamatch` limits it to writes of one value.
    pub fn register_ioeventfd(
        &self,
        event: BorrowedFd<'_>,
        addr: u64,
        len: u32,
        datamatch: Option<u64>,
    ) -> Result<()> {
        self.ioeventfd(event, addr, len, datamatch, 0)
    }

    /// Undoes [`Vm::register_ioeventfd`] with the same arguments.
    pub fn unregister_ioeventfd(
        &self,
        event: BorrowedFd<'_>,
        addr: u64,
        len: u32,
        datamatch: Option<u64>,
    ) -> Result<()> {
        self.ioeventfd(event, addr, len, datamatch, uapi::IOEVENTFD_FLAG_DEASSIGN)
    }

    fn ioeventfd(
        &self,
        event: BorrowedFd<'_>,
        addr: u64,
        len: u32,
        datamatch: Option<u64>,
        flags: u32,
    ) -> Result<()> {
        let matching = if datamatch.is_some() { uapi::IOEVENTFD_FLAG_DATAMATCH } else { 0 };
        let mut ioeventfd = uapi::Ioeventfd {
            datamatch: datamatch.unwrap_or(0),
            addr,
            len,
            fd: event.as_raw_fd(),
            flags: flags | matching,
            pad: [0; 36],
        };
        ioctl::call(self.fd.as_fd(), &ioctl::IOEVENTFD, &mut ioeventfd).map(drop)
    }

    /// Size in bytes of the protected-VM firmware that the hypervisor has; 0 if it has none.
    pub fn pvmfw_size(&self) -> Result<u64> {
        Ok(self.protected_vm(cap::PVM_GET_PVMFW_SIZE, 0)?.args[1])
    }

    /// Makes the VM protected, and has the hypervisor put its firmware at guest address `gpa`.
    pub fn set_pvmfw(&self, gpa: u64) -> Result<()> {
        self.protected_vm(cap::PVM_SET_PVMFW_GPA, gpa).map(drop)
    }

    /// Makes the VM protected, without firmware: pages that the guest gets are taken from the
    /// host with their contents. Before the first run of a vCPU, and for good.
    pub fn set_protected(&self) -> Result<()> {
        self.protected_vm(cap::PVM_SET_PROTECTED_VM, 0).map(drop)
    }

    fn protected_vm(&self, command: u64, operand: u64) -> Result<uapi::EnableCap> {
        let mut argument =
            uapi::EnableCap { cap: cap::PROTECTED_VM, args: [command, operand, 0, 0, 0] };
        ioctl::call(self.fd.as_fd(), &ioctl::ENABLE_CAP, &mut argument)?;
        Ok(argument)
    }

    /// Tells the hypervisor that the device tree is at guest address `addr` and has at most `size`
    /// bytes. Once, after the last write to it and before the first run of a vCPU.
    pub fn set_dtb_config(&self, addr: u64, size: u64) -> Result<()> {
        let mut config = uapi::DtbConfig { dtb_addr: addr, dtb_size: size };
        ioctl::call(self.fd.as_fd(), &ioctl::SET_DTB_CONFIG, &mut config).map(drop)
    }
}

/// Who has access to guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeState {
    /// It is in no memory slot.
    Absent,
    /// The guest only.
    Private,
    /// Guest and host.
    Shared,
    /// The host only: the guest has not got it yet, or has given it back, and the driver holds no
    /// page of it.
    Unpinned,
}

impl RangeState {
    /// What a number of the ABI means; `None` for those to come.
    fn new(state: u32) -> Option<Self> {
        match state {
            uapi::RANGE_STATE_ABSENT => Some(Self::Absent),
            uapi::RANGE_STATE_PRIVATE => Some(Self::Private),
            uapi::RANGE_STATE_SHARED => Some(Self::Shared),
            uapi::RANGE_STATE_UNPINNED => Some(Self::Unpinned),
            _ => None,
        }
    }
}

/// A descriptor as the ABI's unsigned number.
fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is open, hence not negative.
    fd.as_raw_fd().unsigned_abs()
}
