// SPDX-License-Identifier: Apache-2.0
//! Bare-metal guest.

fn main() {}
