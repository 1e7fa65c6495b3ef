// SPDX-License-Identifier: Apache-2.0
//! Safe handles for `/dev/gzvm`: [`Gzvm`] → [`Vm`] → [`Vcpu`], one method per ioctl of the user
//! ABI, errors that name the ioctl and what to do about it, and [`Exit`], the typed reason for
//! which a vCPU stopped.
//!
//! Policy (what to map where, in which order) belongs to the VMM. Numbers and layouts come from
//! [`gzvm_abi`], re-exported as [`abi`].
//!
//! ```no_run
//! use gzvm::{abi::reg, Exit, Gzvm};
//!
//! let vm = Gzvm::open()?.create_vm()?;
//! vm.create_vgic(0x3fff_0000, 0x3ffd_0000)?;
//! let mut vcpu = vm.create_vcpu(0)?;
//! vcpu.set_reg(reg::PC, 0x8000_0000)?;
//! loop {
//!     match vcpu.run()? {
//!         Exit::MmioRead { data, .. } => data.fill(0),
//!         Exit::Interrupted | Exit::Irq | Exit::MmioWrite { .. } => continue,
//!         other => {
//!             println!("stopped: {other}");
//!             break;
//!         }
//!     }
//! }
//! # Ok::<(), gzvm::Error>(())
//! ```
#![deny(unsafe_op_in_unsafe_fn)]

pub use gzvm_abi as abi;

mod device;
mod error;
mod exit;
mod ioctl;
mod vcpu;
mod vm;

pub use device::Gzvm;
pub use error::{Error, Result};
pub use exit::{Exit, SystemEvent};
pub use vcpu::{Kicker, Vcpu};
pub use vm::{RangeState, Vm};
