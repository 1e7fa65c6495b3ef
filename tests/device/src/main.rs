// SPDX-License-Identifier: Apache-2.0
//! Device tests: run on any machine with /dev/gzvm.

fn main() {}
