// SPDX-License-Identifier: Apache-2.0
//! Builds everything, runs QEMU, runs the tests, reports.

fn main() {}
