// SPDX-License-Identifier: Apache-2.0
//! What answers the guest's device accesses. Each device has its own lock; there is no common one.

pub mod bus;
pub mod console;
pub mod irq;
pub mod pci;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
pub mod stall;
pub mod virtio;
