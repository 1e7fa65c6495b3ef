// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The user ABI: ioctl numbers and their arguments.
//!
//! Numbers, directions and layouts are those of the v13 uapi header, wrong directions included
//! (`ENABLE_CAP` is write-only in its number although one sub-command writes back), because stock
//! clients were compiled against them.

use super::assert_layout;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The type field ("magic") of all GenieZone ioctls.
pub const MAGIC: u32 = 0x92;

/// Path of the device node.
pub const DEVICE_PATH: &str = "/dev/gzvm";

const DIR_NONE: u32 = 0;
const DIR_WRITE: u32 = 1;
const DIR_READ: u32 = 2;

/// Encodes an ioctl number as Linux's generic `_IOC` does (include/uapi/asm-generic/ioctl.h).
const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
    assert!(nr < 1 << 8 && size < 1 << 14);
    // CAST: the size was just asserted to fit in 14 bits.
    (dir << 30) | ((size as u32) << 16) | (MAGIC << 8) | nr
}

/// `/dev/gzvm`: creates a VM; the argument is the VM type by value (0). Returns the VM's fd.
pub const CREATE_VM: u32 = ioc(DIR_NONE, 0x01, 0);
/// `/dev/gzvm` and VM: asks for a capability; the argument points to a `u64`, capability number in,
/// value out.
pub const CHECK_EXTENSION: u32 = ioc(DIR_NONE, 0x03, 0);
/// VM: creates a vCPU; the argument is the vCPU's index by value. Returns the vCPU's fd.
pub const CREATE_VCPU: u32 = ioc(DIR_NONE, 0x41, 0);
/// VM: sets a memory slot from [`UserspaceMemoryRegion`].
pub const SET_USER_MEMORY_REGION: u32 = ioc(DIR_WRITE, 0x46, size_of::<UserspaceMemoryRegion>());
/// VM: sets the level of an interrupt line from [`IrqLevel`].
pub const IRQ_LINE: u32 = ioc(DIR_WRITE, 0x61, size_of::<IrqLevel>());
/// VM: connects an eventfd to an interrupt line with [`Irqfd`].
pub const IRQFD: u32 = ioc(DIR_WRITE, 0x76, size_of::<Irqfd>());
/// VM: connects guest writes to an eventfd with [`Ioeventfd`].
pub const IOEVENTFD: u32 = ioc(DIR_WRITE, 0x79, size_of::<Ioeventfd>());
/// vCPU: runs the vCPU; the argument points to a [`super::run::Run`], copied in and out.
pub const RUN: u32 = ioc(DIR_NONE, 0x80, 0);
/// VM: uses a capability from [`EnableCap`].
pub const ENABLE_CAP: u32 = ioc(DIR_WRITE, 0xa3, size_of::<EnableCap>());
/// vCPU: reads the register named by [`OneReg`].
pub const GET_ONE_REG: u32 = ioc(DIR_WRITE, 0xab, size_of::<OneReg>());
/// vCPU: writes the register named by [`OneReg`].
pub const SET_ONE_REG: u32 = ioc(DIR_WRITE, 0xac, size_of::<OneReg>());
/// VM: creates an in-hypervisor device from [`CreateDevice`].
pub const CREATE_DEVICE: u32 = ioc(DIR_READ | DIR_WRITE, 0xe0, size_of::<CreateDevice>());
/// VM: asks for the state of guest memory with [`RangeState`]. Ours; it needs the hypervisor's
/// extension RANGE_STATE, else -EOPNOTSUPP. CHECK_EXTENSION of [`super::ext::DISCOVER`] tells.
pub const GET_RANGE_STATE: u32 = ioc(DIR_READ | DIR_WRITE, 0xe8, size_of::<RangeState>());
/// VM: tells the hypervisor where the device tree is, from [`DtbConfig`].
pub const SET_DTB_CONFIG: u32 = ioc(DIR_WRITE, 0xff, size_of::<DtbConfig>());

const _: () = {
    assert!(CREATE_VM == 0x0000_9201);
    assert!(CHECK_EXTENSION == 0x0000_9203);
    assert!(CREATE_VCPU == 0x0000_9241);
    assert!(SET_USER_MEMORY_REGION == 0x4020_9246);
    assert!(IRQ_LINE == 0x4008_9261);
    assert!(IRQFD == 0x4020_9276);
    assert!(IOEVENTFD == 0x4040_9279);
    assert!(RUN == 0x0000_9280);
    assert!(ENABLE_CAP == 0x4030_92a3);
    assert!(GET_ONE_REG == 0x4010_92ab);
    assert!(SET_ONE_REG == 0x4010_92ac);
    assert!(CREATE_DEVICE == 0xc030_92e0);
    assert!(GET_RANGE_STATE == 0xc020_92e8);
    assert!(SET_DTB_CONFIG == 0x4010_92ff);
};

/// Memory slots of v13. Our driver has more; see its limits.
pub const V13_MAX_MEM_REGIONS: u32 = 10;
/// vCPUs per VM where the hypervisor does not say otherwise (extension LIMITS).
pub const DEFAULT_MAX_VCPUS: u32 = 8;
/// SPIs per VM where the hypervisor does not say otherwise (extension LIMITS).
pub const DEFAULT_MAX_SPIS: u32 = 32;
/// Guest physical address bits where the hypervisor does not say otherwise (extension LIMITS).
pub const DEFAULT_IPA_BITS: u32 = 40;
/// The largest memory slot, in pages (2^31 - 1).
pub const MEM_MAX_NR_PAGES: u64 = (1 << 31) - 1;

/// Argument of [`SET_USER_MEMORY_REGION`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct UserspaceMemoryRegion {
    /// Slot number, from 0.
    pub slot: u32,
    /// What the region is for, one of `MEM_REGION_*`; bit 31 is [`MEM_REGION_READONLY`].
    pub flags: u32,
    /// First guest physical address, page aligned.
    pub guest_phys_addr: u64,
    /// Size in bytes, a multiple of the page size; 0 deletes the slot.
    pub memory_size: u64,
    /// First address in the caller's address space.
    pub userspace_addr: u64,
}
assert_layout!(
    UserspaceMemoryRegion,
    size 32, slot at 0, flags at 4, guest_phys_addr at 8, memory_size at 16, userspace_addr at 24,
);

/// Region purpose: none given (crosvm's later mappings).
pub const MEM_REGION_OTHER: u32 = 0;
/// Region purpose: the guest's RAM.
pub const MEM_REGION_GUEST_MEM: u32 = 1;
/// Region purpose: the window into which the hypervisor loads its protected-VM firmware.
pub const MEM_REGION_PROTECT_FW: u32 = 2;
/// Region purpose: the static restricted-DMA pool, shared with the host in a protected VM.
pub const MEM_REGION_STATIC_SWIOTLB: u32 = 4;
/// Ours: the slot is read-only for the guest. Never forwarded to the hypervisor.
pub const MEM_REGION_READONLY: u32 = 1 << 31;

/// Argument of [`IRQ_LINE`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct IrqLevel {
    /// Which line, encoded with the `IRQ_*` fields below.
    pub irq: u32,
    /// 1 raises the line, 0 lowers it.
    pub level: u32,
}
assert_layout!(IrqLevel, size 8, irq at 0, level at 4);

/// Lowest bit of the 16-bit interrupt number in [`IrqLevel::irq`]; SPIs count from 0.
pub const IRQ_NUMBER_SHIFT: u32 = 0;
/// Mask of the interrupt number.
pub const IRQ_NUMBER_MASK: u32 = 0xffff;
/// Lowest bit of the low 8 bits of the vCPU index (PPIs).
pub const IRQ_VCPU_SHIFT: u32 = 16;
/// Mask of the low part of the vCPU index, after shifting.
pub const IRQ_VCPU_MASK: u32 = 0xff;
/// Lowest bit of the interrupt type.
pub const IRQ_TYPE_SHIFT: u32 = 24;
/// Mask of the interrupt type, after shifting.
pub const IRQ_TYPE_MASK: u32 = 0xf;
/// Lowest bit of the high 4 bits of the vCPU index (its value counts 256s).
pub const IRQ_VCPU2_SHIFT: u32 = 28;
/// Mask of the high part of the vCPU index, after shifting.
pub const IRQ_VCPU2_MASK: u32 = 0xf;

/// Interrupt type: a CPU's own input. crosvm leaves this 0 for SPIs.
pub const IRQ_TYPE_CPU: u32 = 0;
/// Interrupt type: shared peripheral interrupt.
pub const IRQ_TYPE_SPI: u32 = 1;
/// Interrupt type: private peripheral interrupt.
pub const IRQ_TYPE_PPI: u32 = 2;

/// Argument of [`IRQFD`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Irqfd {
    /// The eventfd that injects.
    pub fd: u32,
    /// SPI number, from 0.
    pub gsi: u32,
    /// `IRQFD_FLAG_*`.
    pub flags: u32,
    /// The eventfd signalled at end of interrupt, with [`IRQFD_FLAG_RESAMPLE`].
    pub resamplefd: u32,
    /// Must be 0.
    pub pad: [u8; 16],
}
assert_layout!(Irqfd, size 32, fd at 0, gsi at 4, flags at 8, resamplefd at 12, pad at 16);

/// Irqfd flag: disconnect.
pub const IRQFD_FLAG_DEASSIGN: u32 = 1 << 0;
/// Irqfd flag: level-triggered with a resample eventfd.
pub const IRQFD_FLAG_RESAMPLE: u32 = 1 << 1;

/// Argument of [`IOEVENTFD`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Ioeventfd {
    /// Value to match, with [`IOEVENTFD_FLAG_DATAMATCH`].
    pub datamatch: u64,
    /// Guest physical address.
    pub addr: u64,
    /// Width in bytes: 1, 2, 4, 8, or 0 for any.
    pub len: u32,
    /// The eventfd that is signalled.
    pub fd: i32,
    /// `IOEVENTFD_FLAG_*`.
    pub flags: u32,
    /// Ignored by v13.
    pub pad: [u8; 36],
}
assert_layout!(
    Ioeventfd,
    size 64, datamatch at 0, addr at 8, len at 16, fd at 20, flags at 24, pad at 28,
);

/// Ioeventfd flag: only writes of the value in `datamatch` match.
pub const IOEVENTFD_FLAG_DATAMATCH: u32 = 1 << 0;
/// Ioeventfd flag: port I/O, which does not exist here.
pub const IOEVENTFD_FLAG_PIO: u32 = 1 << 1;
/// Ioeventfd flag: disconnect.
pub const IOEVENTFD_FLAG_DEASSIGN: u32 = 1 << 2;

/// Argument of [`ENABLE_CAP`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct EnableCap {
    /// Capability number, from [`super::cap`].
    pub cap: u64,
    /// Arguments; the capability says how many.
    pub args: [u64; 5],
}
assert_layout!(EnableCap, size 48, cap at 0, args at 8);

/// Argument of [`GET_ONE_REG`] and [`SET_ONE_REG`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct OneReg {
    /// Register id, from [`super::reg`].
    pub id: u64,
    /// Address of the value in the caller's memory.
    pub addr: u64,
}
assert_layout!(OneReg, size 16, id at 0, addr at 8);

/// Argument of [`CREATE_DEVICE`], and what the hypervisor reads for the same call.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct CreateDevice {
    /// One of `DEV_TYPE_*`.
    pub dev_type: u32,
    /// Returned by v13's header comment, never written by its driver.
    pub id: u32,
    /// For the hypervisor; VMMs pass 0.
    pub flags: u64,
    /// Guest physical address of the device's registers.
    pub dev_addr: u64,
    /// Size of its registers in bytes. crosvm gives one vCPU's frame for the redistributors.
    pub dev_reg_size: u64,
    /// User address of attributes; the driver replaces it by a host physical address, or 0.
    pub attr_addr: u64,
    /// Size of the attributes in bytes, at most one page.
    pub attr_size: u64,
}
assert_layout!(
    CreateDevice,
    size 48, dev_type at 0, id at 4, flags at 8, dev_addr at 16, dev_reg_size at 24,
    attr_addr at 32, attr_size at 40,
);

/// Device type: GICv3 distributor.
pub const DEV_TYPE_VGIC_V3_DIST: u32 = 0;
/// Device type: GICv3 redistributors, two 64 KiB frames for each vCPU, contiguous.
pub const DEV_TYPE_VGIC_V3_REDIST: u32 = 1;

/// Bytes of the distributor's register frame (GICv3, IHI 0069H 12.8).
pub const VGIC_DIST_SIZE: u64 = 0x1_0000;
/// Bytes of one vCPU's two redistributor frames (IHI 0069H 12.10).
pub const VGIC_REDIST_SIZE: u64 = 0x2_0000;

/// Argument of [`SET_DTB_CONFIG`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct DtbConfig {
    /// Guest physical address of the device tree.
    pub dtb_addr: u64,
    /// Size in bytes.
    pub dtb_size: u64,
}
assert_layout!(DtbConfig, size 16, dtb_addr at 0, dtb_size at 8);

/// Argument of [`GET_RANGE_STATE`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct RangeState {
    /// In: first guest physical address, page aligned.
    pub guest_phys_addr: u64,
    /// In: bytes to look at, a multiple of the page size, not 0. Out: bytes from the first address
    /// on that have the state in `state`, at least a page; ask again behind them for the rest.
    pub size: u64,
    /// Out: one of `RANGE_STATE_*`.
    pub state: u32,
    /// Must be 0.
    pub flags: u32,
    /// Must be 0.
    pub pad: u64,
}
assert_layout!(
    RangeState, size 32, guest_phys_addr at 0, size at 8, state at 16, flags at 20, pad at 24,
);

/// In no memory slot.
pub const RANGE_STATE_ABSENT: u32 = 0;
/// The guest has it, the host has no access.
pub const RANGE_STATE_PRIVATE: u32 = 1;
/// Guest and host both have access.
pub const RANGE_STATE_SHARED: u32 = 2;
/// In a memory slot, but not mapped for the guest nor pinned by the driver: its pages may be
/// replaced in the owner's address space (a balloon may punch them out).
pub const RANGE_STATE_UNPINNED: u32 = 3;
