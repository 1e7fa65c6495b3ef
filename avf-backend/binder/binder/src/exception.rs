// SPDX-License-Identifier: Apache-2.0
//! Exceptions: what a call that fails tells its caller.

use rsbinder::{ExceptionCode, Status, StatusCode};
use std::fmt::Debug;

/// AOSP's names for exceptions.
#[allow(missing_docs)] // They are binder's own.
pub trait Exceptions {
    const SECURITY: ExceptionCode = ExceptionCode::Security;
    const ILLEGAL_ARGUMENT: ExceptionCode = ExceptionCode::IllegalArgument;
    const ILLEGAL_STATE: ExceptionCode = ExceptionCode::IllegalState;
    const UNSUPPORTED_OPERATION: ExceptionCode = ExceptionCode::UnsupportedOperation;
    const SERVICE_SPECIFIC: ExceptionCode = ExceptionCode::ServiceSpecific;
    const TRANSACTION_FAILED: ExceptionCode = ExceptionCode::TransactionFailed;
}

impl Exceptions for ExceptionCode {}

/// AOSP's names for what becomes of a call that does not get through.
#[allow(missing_docs)] // They are binder's own.
pub trait StatusCodes {
    const DEAD_OBJECT: StatusCode = StatusCode::DeadObject;
}

impl StatusCodes for StatusCode {}

/// Turns errors into exceptions, with the whole chain of causes as the message.
pub trait IntoBinderResult<T, E> {
    /// An exception of this kind.
    fn or_binder_exception(self, exception: ExceptionCode) -> crate::Result<T>;

    /// The interface's own error of this number.
    fn or_service_specific_exception(self, code: i32) -> crate::Result<T>;
}

impl<T, E: Debug> IntoBinderResult<T, E> for std::result::Result<T, E> {
    fn or_binder_exception(self, exception: ExceptionCode) -> crate::Result<T> {
        self.map_err(|error| (exception, format!("{error:?}").as_str()).into())
    }

    fn or_service_specific_exception(self, code: i32) -> crate::Result<T> {
        self.map_err(|error| Status::new_service_specific_error(code, Some(format!("{error:?}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_exceptions_with_their_words() {
        let error: Result<(), &str> = Err("why");
        let status = error.or_binder_exception(ExceptionCode::ILLEGAL_STATE).unwrap_err();
        assert_eq!(status.exception_code(), ExceptionCode::IllegalState);
        assert_eq!(status.message(), Some("\"why\""));
        let status = error.or_service_specific_exception(-1).unwrap_err();
        assert_eq!((status.service_specific_error(), status.message()), (-1, Some("\"why\"")));
        assert_eq!(Ok::<_, ()>(5).or_service_specific_exception(1).unwrap(), 5);
    }
}
