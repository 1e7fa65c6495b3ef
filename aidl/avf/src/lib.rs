// SPDX-License-Identifier: Apache-2.0
//! AVF's binder interfaces as of Android 16, restated for builds without Android: there, the same
//! names are in the tree's own `android.system.virtualization*` modules. The interfaces are not
//! stable: method order is the transaction code, field order is the wire format. `tests/order.rs`
//! pins both.

/// The generated interfaces, by package.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unused)] // Generated code.
pub mod aidl {
    include!(concat!(env!("OUT_DIR"), "/avf_aidl.rs"));
    pub use self::android::system::{
        virtualizationcommon, virtualizationservice, virtualizationservice_internal,
    };
}
