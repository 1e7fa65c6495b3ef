// SPDX-License-Identifier: Apache-2.0
//! The reference hypervisor's decisions as plain code: who owns which page, what a trapped access
//! means, which interrupt comes next. No hardware is touched here; what has to reach it goes
//! through [`hw::Hardware`], so that all of it is tested on any machine by `cargo test`.
//!
//! The binary of this package (`main.rs`) is the other half: boot, vectors, world switch, system
//! registers. It exists only for bare-metal targets.
//!
//! # Lock order
//!
//! The VM id given last (CREATE_VM only), then a vCPU's context ([`vm::Vm::vcpus`], held during
//! RUN), then the VM's state ([`vm::Vm::state`]), then the memory ([`hyp::Hypervisor::memory`]),
//! then the VM's shared part ([`vm::Vm::shared`]). A lock is only waited for while none to its
//! right is held. The random numbers ([`hyp::Hypervisor::generator`]) and the fault plan of test
//! builds have locks under which no other is taken.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod cmdline;
pub mod context;
pub mod dt;
pub mod esr;
pub mod firmware;
pub mod guest;
pub mod hostcall;
pub mod hw;
pub mod hyp;
pub mod idregs;
pub mod inject;
pub mod lock;
pub mod memory;
pub mod page;
pub mod plan;
pub mod pool;
pub mod psci;
pub mod regions;
pub mod stage2;
pub mod timer;
pub mod trng;
pub mod vgic;
pub mod vm;

#[cfg(test)]
mod testing;
