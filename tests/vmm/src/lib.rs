// SPDX-License-Identifier: Apache-2.0
//! What the tests of the VMM have in common: the VMM as a child process with inherited files, its
//! guest's consoles, and commands for a Linux guest.
//!
//! The tests run on the test machine's host, as root, beside the guests' files.

#![forbid(unsafe_code)]

pub mod console;
pub mod control;
pub mod guest;
pub mod host;
pub mod overlay;
pub mod stream;
pub mod suite;
pub mod vmm;

use std::time::Duration;

/// How long anything may take on the slowest emulated machine; what hangs is found all the same.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Where the guests' files are.
pub const GUESTS: &str = "/usr/share/gzvm/guests";
