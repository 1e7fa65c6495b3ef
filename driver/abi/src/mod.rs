// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The GenieZone ABIs: numbers and memory layouts, and nothing that decides or does anything.
//!
//! | module | between | what |
//! | --- | --- | --- |
//! | [`uapi`] | VMM and driver | ioctls of `/dev/gzvm`, VM and vCPU files |
//! | [`run`] | VMM, driver and hypervisor | the per-vCPU run structure and its exit reasons |
//! | [`reg`] | VMM, driver and hypervisor | register ids of SET_ONE_REG and GET_ONE_REG |
//! | [`cap`] | VMM, driver and hypervisor | capability numbers |
//! | [`hvc`] | driver and hypervisor | host hypercalls, status codes, shared buffers |
//! | [`ext`] | driver and hypervisor | our extensions, each behind a feature bit |
//! | [`guest`] | guest and hypervisor | guest hypercalls |
//!
//! All values are little-endian on the wire, and all supported machines are little-endian, so
//! native integers are used. Sizes and addresses are in bytes unless a name says otherwise; "page"
//! means 4 KiB whatever the host's own page size is.

pub mod cap;
pub mod ext;
pub mod guest;
pub mod hvc;
pub mod reg;
pub mod run;
pub mod uapi;

/// Bytes in one page of the ABI. Frame numbers, page counts and buffers between driver and
/// hypervisor are in this unit, on hosts with larger pages too.
pub const PAGE_SIZE: u64 = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Bytes in one block of block-based demand paging: what one level 2 stage 2 descriptor maps with
/// the 4 KiB granule (Arm ARM D8.2.8).
pub const BLOCK_SIZE: u64 = 2 << 20;

/// Pages in one block.
pub const BLOCK_PAGES: u64 = BLOCK_SIZE / PAGE_SIZE;

/// Asserts at compile time that a struct has the size and the field offsets that the ABI fixes.
macro_rules! assert_layout {
    ($ty:ty, size $size:literal $(, $field:ident at $offset:literal)* $(,)?) => {
        const _: () = {
            assert!(core::mem::size_of::<$ty>() == $size);
            $(assert!(core::mem::offset_of!($ty, $field) == $offset);)*
        };
    };
}
use assert_layout;
