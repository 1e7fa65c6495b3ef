// SPDX-License-Identifier: Apache-2.0
//! Device tree overlays, as virtmgr makes them.

use anyhow::Result;
use gzvm_vmm::fdt::tree::Node;
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use std::fs::File;
use std::io::Write;

/// An overlay with contents for the root.
pub fn blob(fill: impl FnOnce(&mut Node)) -> Vec<u8> {
    let mut root = Node::new("");
    let fragment = root.child("fragment@0");
    fragment.set_strings("target-path", &["/"]);
    fill(fragment.child("__overlay__"));
    root.to_blob()
}

/// The same in a file without a name.
pub fn overlay(fill: impl FnOnce(&mut Node)) -> Result<File> {
    let mut file = File::from(memfd_create(c"overlay", MemFdCreateFlag::MFD_CLOEXEC)?);
    file.write_all(&blob(fill))?;
    Ok(file)
}
