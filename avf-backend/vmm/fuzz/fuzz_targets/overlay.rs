// SPDX-License-Identifier: Apache-2.0
//! Device tree overlays, applied to a small tree that must be writable afterwards.

#![no_main]

use gzvm_vmm::fdt::{overlay, tree::Node};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|blob: &[u8]| {
    let mut root = Node::new("");
    root.child("avf").set_strings("compatible", &["x"]);
    // What cannot be applied is refused; what was applied may still be more than fits.
    if overlay::apply(&mut root, blob).is_ok() {
        let _ = gzvm_vmm::fdt::write(&root);
    }
});
