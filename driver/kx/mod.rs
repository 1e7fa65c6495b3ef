// SPDX-License-Identifier: GPL-2.0

//! Kernel extensions: safe abstractions over what the `kernel` crate lacks. The only part of the
//! driver with `unsafe`; each file fills one gap and could be sent upstream alone.

pub(crate) mod anon_inode;
pub(crate) mod arch;
pub(crate) mod clock;
pub(crate) mod eventfd;
pub(crate) mod eventfd_listener;
pub(crate) mod exact_pages;
mod ffi;
pub(crate) mod gup;
pub(crate) mod misc;
#[cfg_attr(not(CONFIG_MMU_NOTIFIER), path = "no_mmu_interval.rs")]
pub(crate) mod mmu_interval;
pub(crate) mod module;
pub(crate) mod notifier;
pub(crate) mod pin_table;
pub(crate) mod ratelimit;
pub(crate) mod sched;
pub(crate) mod smccc;
pub(crate) mod sysfs;
pub(crate) mod trace;
pub(crate) mod uaccess;
