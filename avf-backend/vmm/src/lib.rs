// SPDX-License-Identifier: Apache-2.0
//! The virtual machine monitor: memory, device tree, clock, devices.
//!
//! One process runs one VM. It is started with the command line that Android's virtmgr gives to
//! crosvm, keeps crosvm's memory map, interrupt numbers and exit status, and does what crosvm
//! cannot: tell GenieZone that a VM without firmware is protected.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`cli`] | which command lines are accepted, and what they mean ([`config`]) |
//! | [`layout`] | where everything is in the guest's address space |
//! | [`memory`] | how guest memory is made and shared with the driver |
//! | [`boot`] | what is a bootable image and where its parts go |
//! | [`fdt`] | what the guest is told about its machine |
//! | [`devices`] | what answers the guest's device accesses |
//! | [`disk`] | what is on a disk |
//! | [`control`] | which commands a running VM takes |
//! | [`vcpu`] | what each exit of a vCPU means |
//! | [`machine`] | in which order all that is done |
//! | [`clock`] | when the guest's clock is set |
//! | [`guest_log`] | how much of a guest's faults the log takes |
//! | [`status`] | what the process's exit status says |
//!
//! Whether the host can run the VM at all, and what to do if not, is [`gzvm_preflight`]'s business.

pub mod boot;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod devices;
pub mod disk;
pub mod event;
pub mod fdt;
pub mod files;
pub mod guest_log;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod orphan;
pub mod sigbus;
pub mod signals;
pub mod status;
pub mod vcpu;
