// SPDX-License-Identifier: Apache-2.0
//! A stand-in for the protected VMs' firmware (pvmfw): it makes the same hypervisor calls in the
//! same order, demands the same of the device tree, changes what the firmware changes in it, and
//! starts the payload. It verifies no signature and derives no secrets.
//!
//! What it needs of the machine is the trait [`Board`], so that it runs in tests too. The program
//! in `main.rs` provides it on bare metal.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

mod patch;
mod refusal;
#[cfg(test)]
mod tests;
mod walk;

pub use refusal::Refusal;
pub use walk::{run, Board, Given, Handover};

/// Where the image lies (AVF's memory map).
pub const BASE: u64 = 0x7fc0_0000;
/// The page with the serial ports' registers.
pub const UART_PAGE: u64 = 0;
/// The console.
pub const CONSOLE: u64 = 0x3f8;
/// The port on which a VM says why it failed.
pub const FAILURE_PORT: u64 = 0x2f8;
