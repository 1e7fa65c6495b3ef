// SPDX-License-Identifier: Apache-2.0
//! The payload's programs: what it shows, checks and keeps secret, apart from the machine below.
//!
//! What they need of the machine is the trait [`Platform`], so that they run in tests too. The
//! program in `main.rs` provides it on bare metal.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod hello;
mod line;
pub mod machine;
pub mod mode;
mod platform;
pub mod secret;
#[cfg(test)]
mod tests;

pub use platform::{Out, Platform};

/// The line that every run ends with, before it powers off.
pub const DONE: &str = "payload: done";
