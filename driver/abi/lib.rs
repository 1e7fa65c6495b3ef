// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! GenieZone's three ABIs as one crate, for everything that is built with Cargo.
//!
//! The kernel module compiles the same files as its module `abi`; that is why the contents live in
//! `src/mod.rs` and this crate root only re-exports them.

#![no_std]
#![forbid(unsafe_code)]

#[path = "src/mod.rs"]
mod abi;

pub use abi::*;
