// SPDX-License-Identifier: Apache-2.0
//! Links the bare-metal program with its own linker script.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=virtio.ld");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        let directory = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
        println!("cargo::rustc-link-arg-bins=-T{}", directory.join("virtio.ld").display());
    }
}
