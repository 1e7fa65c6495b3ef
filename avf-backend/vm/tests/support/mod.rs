// SPDX-License-Identifier: Apache-2.0
//! What several tests of `vm` as a process need.

use std::path::PathBuf;

/// The service, which is an example of this package.
pub fn virtmgr() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.parent().unwrap().parent().unwrap().join("examples/virtmgr")
}
