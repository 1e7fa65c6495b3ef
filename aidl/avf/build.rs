// SPDX-License-Identifier: Apache-2.0
//! Generates the interfaces' Rust code.

fn main() {
    let generated =
        rsbinder_aidl::Builder::new().source("android").output("avf_aidl.rs").generate();
    if let Err(error) = generated {
        eprintln!("{error:?}");
        std::process::exit(1);
    }
}
