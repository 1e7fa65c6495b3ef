// SPDX-License-Identifier: Apache-2.0
//! What a call that is refused tells its caller.

use avf_aidl::aidl::virtualizationservice::IVirtualMachine::ERROR_UNEXPECTED;
use binder::{ExceptionCode, Exceptions, Status};
use std::fmt::Display;

/// A value, or an array, that cannot be.
pub fn illegal_argument(what: impl Display) -> Status {
    (ExceptionCode::ILLEGAL_ARGUMENT, what.to_string().as_str()).into()
}

/// Not now.
pub fn illegal_state(what: impl Display) -> Status {
    (ExceptionCode::ILLEGAL_STATE, what.to_string().as_str()).into()
}

/// Not for this caller, or not with such a VM.
pub fn security(what: impl Display) -> Status {
    (ExceptionCode::SECURITY, what.to_string().as_str()).into()
}

/// Not here.
pub fn unsupported(what: impl Display) -> Status {
    (ExceptionCode::UNSUPPORTED_OPERATION, what.to_string().as_str()).into()
}

/// Anything else: AVF's one error number for all of that. Causes are in one line.
pub fn failed(why: &anyhow::Error) -> Status {
    Status::new_service_specific_error(ERROR_UNEXPECTED, Some(format!("{why:#}")))
}
