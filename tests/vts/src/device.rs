// SPDX-License-Identifier: Apache-2.0
//! What the device says that it has, and where it has the guest.

/// The guest, where AndroidTest.xml puts it. It has to be below /data/local/tmp: of the places for
/// tests the VMM's SELinux domain may read files of this one only.
#[cfg(soong)]
pub const KERNEL: &str = "/data/local/tmp/vts_gzvm_test/rialto.bin";
/// The guest of our machine in QEMU that talks as AVF's rialto does.
#[cfg(not(soong))]
pub const KERNEL: &str = "/usr/share/gzvm/guests/virtio.bin";

/// Why VMs of this kind cannot be tested here; nothing if they can.
#[cfg(soong)]
pub fn lacks(protected: bool) -> Option<String> {
    let kind = if protected { "protected_vm" } else { "vm" };
    let name = format!("ro.boot.hypervisor.{kind}.supported");
    // By Android's own program: a vendor's test has no library for properties.
    let said = std::process::Command::new("getprop").arg(&name).output().ok();
    match said.as_ref().map(|said| String::from_utf8_lossy(&said.stdout)).as_deref() {
        None => Some(format!("{name} cannot be read")),
        Some(value) => match value.trim() {
            "1" | "true" => None,
            value => Some(format!("{name} is \"{value}\"")),
        },
    }
}

#[cfg(not(soong))]
pub use libavf_standin::lacks;
