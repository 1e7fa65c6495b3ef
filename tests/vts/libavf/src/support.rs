// SPDX-License-Identifier: Apache-2.0
//! Which VMs this machine can have. On a phone properties say that.

use std::path::Path;

use gzvm_preflight::check::{Answer, Facts, Report};

/// Why there cannot be VMs of this kind; nothing if there can.
pub fn lacks(protected: bool) -> Option<String> {
    let report = Report::new(&Facts::gather(Path::new("/")), 0);
    let answer = if protected { report.protected_vms } else { report.vms };
    (answer != Answer::Yes).then(|| format!("`gzvmctl check` says {}", answer.word()))
}
