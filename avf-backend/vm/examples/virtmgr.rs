// SPDX-License-Identifier: Apache-2.0
//! virtmgr, for the tests of `vm`: Cargo builds no other package's programs for them.

use std::process::ExitCode;

fn main() -> ExitCode {
    gzvm_virtmgr::program::main()
}
