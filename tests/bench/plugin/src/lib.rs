// SPDX-License-Identifier: Apache-2.0
//! A plugin for QEMU 7.2 to 8.2 that counts executed instructions between two marks, which programs
//! in the machine set by instructions that do nothing (`HINT`), and tells who executed them: guest,
//! hypervisor, driver, kernel or program, and where.
//!
//! `-plugin libgzvm_bench_plugin.so,out=FILE,lock=ADDRESS,unlock=ADDRESS`; `account` says what is in the file.

mod account;
// Its functions are QEMU's own: no test program could be linked.
#[cfg(not(test))]
mod qemu;
