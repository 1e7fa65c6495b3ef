// SPDX-License-Identifier: Apache-2.0
//! The offset between a guest's wall clock and the host's, at the same counter value.
//!
//! The host cannot see a guest's time, and the guest learns the host's by the PTP hypercall only.
//! So an agent in the guest ([`agent`]) answers on a vsock port; it reads both clocks at one value
//! of the counter through `/dev/ptpN` ([`ptp`]). The host's side ([`client`]) asks it, checks what
//! it says about the host's clock, and says how far the offset can be off. [`watch`] waits for what
//! makes a resync necessary: a step of the host's clock, or its return from suspend.

#![deny(unsafe_code)]

pub mod agent;
pub mod client;
pub mod protocol;
pub mod ptp;
mod sample;
pub mod watch;

pub use sample::{Report, Sample};

/// The vsock port that the agent listens on.
pub const PORT: u32 = 18_266;
