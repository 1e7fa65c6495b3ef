// SPDX-License-Identifier: Apache-2.0
//! The guest as a bare-metal program: what starts at the first instruction of the VM.

#![cfg_attr(all(target_arch = "aarch64", target_os = "none"), no_std, no_main)]

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
mod bare;

#[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
fn main() {
    eprintln!("This guest runs in a VM: build it for aarch64-unknown-none-softfloat.");
    std::process::exit(1);
}
