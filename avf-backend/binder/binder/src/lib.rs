// SPDX-License-Identifier: Apache-2.0
//! AOSP's `binder` crate in those of its parts that this project uses, on top of `rsbinder`, for
//! systems without Android. Code that uses it names `binder` only, and builds with AOSP's own crate
//! under Soong. What differs there:
//!
//! * `BnFoo::new_binder` takes `BinderFeatures::default()` as a second argument;
//! * [`Exceptions`] and [`StatusCodes`] are not needed, because their names are constants of
//!   `ExceptionCode` and `StatusCode`;
//! * [`connect_kernel`] is not needed, because every Android has binder.
#![forbid(unsafe_code)]

mod death;
mod exception;
mod service;

pub use death::{DeathRecipient, IBinder};
pub use exception::{Exceptions, IntoBinderResult, StatusCodes};
pub use rsbinder::{
    ExceptionCode, FromIBinder, Interface, ParcelFileDescriptor, SIBinder as SpIBinder, Status,
    StatusCode, Strong, WIBinder as WpIBinder, Weak,
};
pub use service::{
    add_service, check_interface, connect_kernel, wait_for_interface, ProcessState, ThreadState,
};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Status>;
