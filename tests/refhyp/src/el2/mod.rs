// SPDX-License-Identifier: Apache-2.0
//! EL2 itself: boot, address space, vectors, world switch.

mod boot;
mod console;
mod cpu;
mod gic;
mod hardware;
mod host;
mod lists;
mod machine;
mod panic;
#[cfg(feature = "test-hooks")]
mod selftest;
mod smc;
mod space;
mod stretch;
mod sysreg;
mod vectors;
mod world;
