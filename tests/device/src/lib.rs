// SPDX-License-Identifier: Apache-2.0
//! What the device tests have in common: ioctls without any wrapping, so that tests can send
//! garbage; guest memory; guest programs of a few instructions; VMs made of these.
//!
//! The tests run on any machine with `/dev/gzvm` and print what libtest prints. Tests that a machine
//! cannot run are reported as ignored.

pub mod aarch32;
pub mod attack;
pub mod events;
pub mod guest;
pub mod hostile;
pub mod life;
pub mod machine;
pub mod mapping;
pub mod matrix;
pub mod random;
pub mod raw;
pub mod rawvm;
pub mod signals;
pub mod stall;
pub mod suite;
pub mod sys;
