// SPDX-License-Identifier: Apache-2.0
//! Subcommands of AVF's tool that have nothing to work on here: app VMs are Microdroid's, which is a
//! part of Android.

use anyhow::{anyhow, Error};

/// What to do in place of starting an app VM.
const INSTEAD: &str = "app VMs run Microdroid, which is a part of Android: describe a kernel in a \
    JSON file and start it with `vm run`; on a phone, use Android's own vm";
/// Why `run-app` and `run-microdroid` do nothing.
pub fn unsupported(subcommand: &str) -> Error {
    anyhow!("unsupported: {subcommand}: {INSTEAD}")
}

/// AVF's words on a feature. They are choices of Android's build, so none is here.
pub fn feature(name: &str) -> String {
    format!("Feature {name} is disabled\n")
}
