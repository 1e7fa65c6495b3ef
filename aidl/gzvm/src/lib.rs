// SPDX-License-Identifier: Apache-2.0
//! The binder interface `com.android.gzvm`: what the backend of GenieZone VMs knows beyond AVF's
//! interfaces. Under Soong the module `com.android.gzvm-rust` has the same name and paths.

/// The generated interfaces, by package.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unused)] // Generated code.
pub mod aidl {
    include!(concat!(env!("OUT_DIR"), "/com_android_gzvm.rs"));
}
