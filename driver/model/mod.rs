// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What the driver decides, without doing it: every function here works on values alone, so that
//! it can be tested on any machine. The rest of the driver fetches the values and acts.
//!
//! | module | decides |
//! | --- | --- |
//! | [`addr`], [`ids`] | what is a well-formed address, range, VM id, vCPU id |
//! | [`refusal`] | which errno a refusal is, and which errno a hypercall status is |
//! | [`caps`], [`version`], [`tunables`] | what the hypervisor can do, and with which parameters |
//! | [`slots`] | which memory slots may exist side by side |
//! | [`claims`], [`fault`], [`pins`] | which pages a fault brings in, and when they may go |
//! | [`exit`] | what each exit of a vCPU means |
//! | [`irq`], [`irqfd`], [`ioeventfd`], [`device`] | what the ioctls of these names ask for |
//! | [`reg`], [`range_state`] | likewise |
//! | [`idle`], [`ptp`], [`ticks`] | guest time |
//! | [`destroy`], [`unmap`] | how long destroying a VM or unmapping its pages may take |

pub mod addr;
pub mod caps;
pub mod claims;
pub mod destroy;
pub mod device;
pub mod exit;
pub mod fault;
pub mod idle;
pub mod ids;
pub mod ioeventfd;
pub mod irq;
pub mod irqfd;
pub mod pins;
pub mod ptp;
pub mod range_state;
pub mod refusal;
pub mod reg;
pub mod slots;
pub mod store;
pub mod ticks;
pub mod tunables;
pub mod unmap;
pub mod version;
