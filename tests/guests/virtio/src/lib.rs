// SPDX-License-Identifier: Apache-2.0
//! What the guest and its host say to each other, and what the guest reads from its device tree.
//!
//! The messages are those of AOSP's bare-metal service VM (rialto): CBOR over a vsock connection that
//! the guest makes.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod machine;
pub mod message;
