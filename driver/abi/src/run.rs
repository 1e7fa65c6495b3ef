// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The per-vCPU run structure: what a RUN ioctl copies in and out, and what the hypervisor and the
//! driver share in the first of a vCPU's two pages. The second page holds [`HwState`].

use super::assert_layout;
use zerocopy::IntoBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size in bytes of the run structure's union.
pub const PAYLOAD_SIZE: usize = 256;

/// The run structure, 264 bytes. Its union is kept as words and read through
/// [`Run::payload`], so that no field is ever read as another's type by accident.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Run {
    /// Why the vCPU stopped: one of `EXIT_*`.
    pub exit_reason: u32,
    /// Set to 1 by the VMM: RUN returns -EINTR before the guest is entered.
    pub immediate_exit: u8,
    /// Must be 0.
    pub padding1: [u8; 3],
    /// The union; which member is valid follows from [`Run::exit_reason`].
    pub payload: [u64; PAYLOAD_SIZE / 8],
}
assert_layout!(Run, size 264, exit_reason at 0, immediate_exit at 4, padding1 at 5, payload at 8);

/// A member of the run structure's union.
// By path: with zerocopy's feature `derive`, which another crate may turn on, an import would bring
// in the derive macros of the same names a second time.
pub trait Payload: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable + Copy {}

impl Run {
    /// Reads the union as `T`.
    pub fn payload<T: Payload>(&self) -> T {
        const { assert!(size_of::<T>() <= PAYLOAD_SIZE) };
        let mut value = T::new_zeroed();
        value.as_mut_bytes().copy_from_slice(&self.payload.as_bytes()[..size_of::<T>()]);
        value
    }

    /// Writes `value` to the start of the union; the rest stays as it is.
    pub fn set_payload<T: Payload>(&mut self, value: &T) {
        const { assert!(size_of::<T>() <= PAYLOAD_SIZE) };
        self.payload.as_mut_bytes()[..size_of::<T>()].copy_from_slice(value.as_bytes());
    }
}

/// Exit reason: not known to the hypervisor itself.
pub const EXIT_UNKNOWN: u32 = 0x9292_0000;
/// Exit reason: the guest touched an address without memory; payload [`Mmio`].
pub const EXIT_MMIO: u32 = 0x9292_0001;
/// Exit reason: a hypercall for the host; payload [`Hypercall`].
pub const EXIT_HYPERCALL: u32 = 0x9292_0002;
/// Exit reason: a physical interrupt arrived; nothing to do but run again.
pub const EXIT_IRQ: u32 = 0x9292_0003;
/// Exit reason: an exception; payload [`Exception`].
pub const EXIT_EXCEPTION: u32 = 0x9292_0004;
/// Exit reason: debug event.
pub const EXIT_DEBUG: u32 = 0x9292_0005;
/// Exit reason: the vCPU could not be entered; payload [`FailEntry`].
pub const EXIT_FAIL_ENTRY: u32 = 0x9292_0006;
/// Exit reason: an error inside the hypervisor; payload [`Event`].
pub const EXIT_INTERNAL_ERROR: u32 = 0x9292_0007;
/// Exit reason: the guest asked for a machine-wide action; payload [`Event`].
pub const EXIT_SYSTEM_EVENT: u32 = 0x9292_0008;
/// Exit reason: the VM is shutting down.
pub const EXIT_SHUTDOWN: u32 = 0x9292_0009;
/// Exit reason: the hypervisor wants to be called again.
pub const EXIT_GZ: u32 = 0x9292_000a;
/// Exit reason: the vCPU waits for an interrupt.
pub const EXIT_IDLE: u32 = 0x9292_000b;
/// Exit reason: seen in the field, meaning unknown.
pub const EXIT_RESERVED_C: u32 = 0x9292_000c;
/// Exit reason: the vCPU interrupted another one that may be asleep in the host.
pub const EXIT_IPI: u32 = 0x9292_000d;

/// Payload of [`EXIT_MMIO`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Mmio {
    /// Guest physical address of the access.
    pub phys_addr: u64,
    /// Little-endian data; for reads filled in by the VMM and consumed at the next RUN.
    pub data: [u8; 8],
    /// Width in bytes: 1, 2, 4 or 8.
    pub size: u64,
    /// Register that a read goes to; the hypervisor's own note, kept by everybody else.
    pub reg_nr: u32,
    /// 1 for a write, 0 for a read.
    pub is_write: u8,
    /// Unused.
    pub padding: [u8; 3],
}
assert_layout!(Mmio, size 32, phys_addr at 0, data at 8, size at 16, reg_nr at 24, is_write at 28);
impl Payload for Mmio {}

/// Payload of [`EXIT_FAIL_ENTRY`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct FailEntry {
    /// The hypervisor's reason code.
    pub hardware_entry_failure_reason: u64,
    /// Physical CPU.
    pub cpu: u32,
    /// Unused.
    pub padding: u32,
}
assert_layout!(FailEntry, size 16, hardware_entry_failure_reason at 0, cpu at 8);
impl Payload for FailEntry {}

/// Payload of [`EXIT_EXCEPTION`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Exception {
    /// [`EXCEPTION_UNKNOWN`] or [`EXCEPTION_PAGE_FAULT`].
    pub exception: u32,
    /// The hypervisor's error code.
    pub error_code: u32,
    /// Guest physical address of a page fault.
    pub fault_gpa: u64,
    /// Zeroed by the hypervisor; anything else sends the exit to the VMM.
    pub reserved: [u64; 30],
}
assert_layout!(
    Exception, size 256, exception at 0, error_code at 4, fault_gpa at 8, reserved at 16,
);
impl Payload for Exception {}

/// Exception kind: not a page fault.
pub const EXCEPTION_UNKNOWN: u32 = 0;
/// Exception kind: the guest touched memory of a slot that is not mapped yet.
pub const EXCEPTION_PAGE_FAULT: u32 = 1;

/// Payload of [`EXIT_HYPERCALL`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Hypercall {
    /// Guest x0 to x7 at the call (`args[0]` is the function id); results on the way back.
    pub args: [u64; 8],
}
assert_layout!(Hypercall, size 64, args at 0);
impl Payload for Hypercall {}

/// Payload of [`EXIT_SYSTEM_EVENT`] and [`EXIT_INTERNAL_ERROR`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Event {
    /// One of `SYSTEM_EVENT_*`, or the sub-error of an internal error.
    pub kind: u32,
    /// Valid words in [`Event::data`].
    pub ndata: u32,
    /// Details.
    pub data: [u64; 16],
}
assert_layout!(Event, size 136, kind at 0, ndata at 4, data at 8);
impl Payload for Event {}

/// System event: the guest powered off.
pub const SYSTEM_EVENT_SHUTDOWN: u32 = 1;
/// System event: the guest asked for a reset.
pub const SYSTEM_EVENT_RESET: u32 = 2;
/// System event: the guest crashed.
pub const SYSTEM_EVENT_CRASH: u32 = 3;
/// System event: wake-up.
pub const SYSTEM_EVENT_WAKEUP: u32 = 4;
/// System event: suspend.
pub const SYSTEM_EVENT_SUSPEND: u32 = 5;
/// System event: a confidential VM ended (SEV's, never seen here).
pub const SYSTEM_EVENT_SEV_TERM: u32 = 6;
/// System event: suspend to idle.
pub const SYSTEM_EVENT_S2IDLE: u32 = 7;

/// GIC list registers that [`HwState`] has room for.
pub const MAX_LIST_REGISTERS: usize = 16;

/// What the hypervisor tells the driver about a vCPU, in its second page. Not user ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct HwState {
    /// Number of GIC list registers in use by the hardware.
    pub nr_lrs: u32,
    /// Unused.
    pub padding: u32,
    /// The list registers (`ICH_LR<n>_EL2` format); 0 is unused.
    pub lr: [u64; MAX_LIST_REGISTERS],
    /// Host counter minus guest virtual counter, in ticks.
    pub vtimer_offset: u64,
    /// On IDLE: ticks until the guest's timer fires.
    pub vtimer_delay: u64,
    /// On IDLE: non-zero if the host must take the guest's timer over.
    pub vtimer_migrate: u32,
    /// Unused.
    pub padding2: u32,
}
assert_layout!(
    HwState,
    size 160, nr_lrs at 0, lr at 8, vtimer_offset at 136, vtimer_delay at 144,
    vtimer_migrate at 152,
);

/// Bytes of the buffer that CREATE_VCPU hands to the hypervisor: the run structure's page and the
/// hardware state's page.
pub const VCPU_BUFFER_SIZE: u64 = 2 * super::PAGE_SIZE;
