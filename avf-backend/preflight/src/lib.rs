// SPDX-License-Identifier: Apache-2.0
//! What a host can do for virtual machines: whether there is a hypervisor, a driver, memory, and
//! what to do if not.
//!
//! | module | for whom |
//! | --- | --- |
//! | [`presence`] | the VMM, whose device node cannot be opened; [`check`] |
//! | [`memory`] | the VMM, before it makes a VM; [`check`] |
//! | [`check`] | a person who asks whether this machine can run VMs |
//!
//! Files are read below a root directory, `/` but in tests. What cannot be read is unknown, never
//! an error.

#![forbid(unsafe_code)]

pub mod check;
pub mod memory;
pub mod presence;
mod reading;

pub use reading::Reading;

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
