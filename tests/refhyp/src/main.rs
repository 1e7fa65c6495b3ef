// SPDX-License-Identifier: Apache-2.0
//! The reference hypervisor's hardware half: everything that runs at EL2 and touches registers.
//! Built for bare metal only; elsewhere this program just says so.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", feature = "test-hooks"))]
extern crate alloc;

#[cfg(target_os = "none")]
mod el2;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "refhyp runs at EL2 of an emulated machine: build it with \
         `--target aarch64-unknown-none-softfloat`"
    );
    std::process::exit(1);
}
