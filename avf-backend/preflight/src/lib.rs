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

use nix::unistd::{sysconf, SysconfVar};

/// The smallest page of arm64, in bytes.
const SMALLEST_PAGE: u64 = 4096;

/// Bytes of a page of the host's kernel.
pub fn host_page() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(SMALLEST_PAGE).max(SMALLEST_PAGE)
}

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
