// SPDX-License-Identifier: Apache-2.0
//! The demo's own tools, run on the host in QEMU.

fn main() {}
