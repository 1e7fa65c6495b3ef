// SPDX-License-Identifier: Apache-2.0
//! What the device says that it has.

use std::process::Command;

/// Why VMs of this kind cannot be tested here; nothing if they can.
pub fn lacks(protected: bool) -> Option<String> {
    if !cfg!(soong) {
        return Some("this program was not built by Soong: there is no libavf".to_owned());
    }
    let kind = if protected { "protected_vm" } else { "vm" };
    let name = format!("ro.boot.hypervisor.{kind}.supported");
    match property(&name).as_deref() {
        Some("1" | "true") => None,
        Some(value) => Some(format!("{name} is \"{value}\"")),
        None => Some(format!("{name} cannot be read")),
    }
}

/// A property, by Android's own program: a vendor's test has no library for it.
fn property(name: &str) -> Option<String> {
    let output = Command::new("getprop").arg(name).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
