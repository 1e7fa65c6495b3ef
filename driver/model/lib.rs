// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The driver's decisions as pure code, for everything that is built with Cargo: host tests and
//! property tests.
//!
//! The kernel module compiles the same files as its module `model`; that is why the contents live
//! in `mod.rs`. Both roots provide `crate::abi`.

#![no_std]
#![forbid(unsafe_code)]

use gzvm_abi as abi;

#[path = "mod.rs"]
mod model;

pub use model::*;
