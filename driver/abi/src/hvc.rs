// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Host hypercalls: what the driver asks of the hypervisor.
//!
//! HVC, SMCCC 1.2 registers: x0 holds the function id, x1 to x7 the arguments; x0 to x3 hold
//! results. The status in x0 is a signed 32-bit value.

use super::assert_layout;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Function ids are this plus an index; fast call, 64-bit, owner 59.
pub const ID_BASE: u32 = 0xfb00_1000;
/// The 32-bit flavour of older drivers; the indices are the same.
pub const ID_BASE_SMC32: u32 = 0xbb00_1000;
/// Indices are below this.
pub const NR_FUNCTIONS: u32 = 20;

macro_rules! functions {
    ($($(#[doc = $doc:literal])* $name:ident = $index:literal,)*) => {
        $($(#[doc = $doc])* pub const $name: u32 = ID_BASE + $index;)*

        /// The name of a function id in either flavour, for traces and messages.
        pub const fn name(id: u32) -> Option<&'static str> {
            let index = if id >= ID_BASE {
                id - ID_BASE
            } else if id >= ID_BASE_SMC32 {
                id - ID_BASE_SMC32
            } else {
                return None;
            };
            match index {
                $($index => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

functions! {
    /// x1 = VM type; returns x1 = VM id.
    CREATE_VM = 0,
    /// x1 = VM id, x2 = pages to process; ERR_BUSY while work remains.
    DESTROY_VM = 1,
    /// x1 = VM and vCPU ids ([`tuple()`]), x2 = host physical address of the vCPU's two pages.
    CREATE_VCPU = 2,
    /// x1 = VM and vCPU ids.
    DESTROY_VCPU = 3,
    /// x1 = VM id, x2 = buffer size in bytes, x3 = host physical address of a
    /// [`MemRegionHeader`] followed by [`Constituent`]s.
    SET_MEMREGION = 4,
    /// x1 = VM and vCPU ids; returns x1 = exit reason.
    RUN = 5,
    /// x1 = VM and vCPU ids, x2 = register id; returns x1 = value.
    GET_ONE_REG = 8,
    /// x1 = VM and vCPU ids, x2 = register id, x3 = value.
    SET_ONE_REG = 9,
    /// x1 = VM and vCPU ids, x2 = interrupt number (SPI from 0), x3 = level; with extension
    /// IRQ_KIND x4 = one of [`super::ext`]'s `IRQ_KIND_*`, with WAKE_MASK returns x1 = target
    /// vCPUs.
    IRQ_LINE = 10,
    /// x1 = VM id, x2 = host physical address of a [`super::uapi::CreateDevice`].
    CREATE_DEVICE = 11,
    /// x1, x2, x3 = driver version; returns x1, x2, x3 = hypervisor version.
    PROBE = 12,
    /// x1 = VM id or 0, x2 = capability, x3 to x7 = arguments; x1 per capability.
    ENABLE_CAP = 13,
    /// x1 = VM id. A vCPU left for user space because of a signal.
    INFORM_EXIT = 14,
    /// x1 = VM id, x2 = guest physical address, x3 = size in bytes, x4 = purpose.
    MEMREGION_PURPOSE = 15,
    /// x1 = VM id, x2 = guest physical address of the device tree, x3 = its size in bytes.
    SET_DTB_CONFIG = 16,
    /// x1 = VM id, x2 = slot, x3 = host frame, x4 = guest frame, x5 = pages.
    MAP_GUEST = 17,
    /// x1 = VM id, x2 = slot, x3 = first guest frame, x4 = pages; host frames in the mailbox.
    MAP_GUEST_BLOCK = 18,
    /// x1 = VM id; returns x1 = bytes the hypervisor uses for it, x2 = bytes shared with the host.
    GET_STATISTICS = 19,
}

/// Version that a driver gives to PROBE and that our hypervisor answers.
pub const VERSION_MAJOR: u64 = 16;
/// Minor version of the driver.
pub const VERSION_MINOR: u64 = 0;
/// Sub version of the driver.
pub const VERSION_SUB: u64 = 0;

/// VM and vCPU ids as one argument.
pub const fn tuple(vm_id: u16, vcpu_id: u16) -> u64 {
    // CAST: widening; `u64::from` is not usable in a const fn.
    ((vm_id as u64) << 16) | vcpu_id as u64
}

/// Status: done.
pub const NO_ERROR: i32 = 0;
/// Status: no memory left.
pub const ERR_NO_MEMORY: i32 = -5;
/// Status: an argument is wrong.
pub const ERR_INVALID_ARGS: i32 = -8;
/// Status: not supported.
pub const ERR_NOT_SUPPORTED: i32 = -24;
/// Status: not implemented; the answer to unknown function ids.
pub const ERR_NOT_IMPLEMENTED: i32 = -27;
/// Status: call again.
pub const ERR_BUSY: i32 = -33;
/// Status: an address is wrong.
pub const ERR_FAULT: i32 = -40;

/// Start of SET_MEMREGION's buffer.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct MemRegionHeader {
    /// Slot number.
    pub slot: u32,
    /// Number of [`Constituent`]s that follow; 0 registers the slot without populating it.
    pub constituent_cnt: u32,
    /// Pages that this call describes.
    pub total_pages: u64,
    /// Guest physical address of the first page.
    pub gpa: u64,
}
assert_layout!(
    MemRegionHeader, size 24, slot at 0, constituent_cnt at 4, total_pages at 8, gpa at 16,
);

/// One run of host-contiguous pages in SET_MEMREGION's buffer.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
pub struct Constituent {
    /// Host physical address, page aligned.
    pub address: u64,
    /// Number of pages.
    pub pg_cnt: u32,
    /// Unused.
    pub reserved: u32,
}
assert_layout!(Constituent, size 16, address at 0, pg_cnt at 8);

/// Bytes of SET_MEMREGION's buffer.
pub const MEM_REGION_BUFFER_SIZE: u64 = 2 * super::PAGE_SIZE;

/// Constituents that fit in the buffer.
pub const MAX_CONSTITUENTS: usize = 510;
const _: () =
    assert!(24 + MAX_CONSTITUENTS * 16 <= 8192 && 24 + (MAX_CONSTITUENTS + 1) * 16 > 8192);

/// Entries of the block demand paging mailbox: one host frame number (u64) a page of a block.
pub const MAILBOX_ENTRIES: usize = 512;

/// Pages a MAP_GUEST_BLOCK call covers where the hypervisor does not say otherwise.
pub const DEFAULT_DEMAND_BATCH_PAGES: u64 = 512;
/// Pages a DESTROY_VM call covers where the hypervisor does not say otherwise.
pub const DEFAULT_DESTROY_BATCH_PAGES: u64 = 128;
