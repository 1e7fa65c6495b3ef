// SPDX-License-Identifier: Apache-2.0
//! The process that a client starts to have VMs.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gzvm_virtmgr::program::main()
}
