// SPDX-License-Identifier: Apache-2.0
//! What can be known of a file: its contents, that it is absent, or why neither.

use std::io::{self, ErrorKind};

/// The answer to a question to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It is there.
    Value(T),
    /// It is not there.
    Absent,
    /// Nobody knows, and why.
    Unknown(String),
}

impl<T> Reading<T> {
    /// From what an operation on a file returned.
    pub fn new(result: io::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(e) => match e.kind() {
                ErrorKind::NotFound => Self::Absent,
                ErrorKind::PermissionDenied => Self::Unknown("no permission".into()),
                _ => Self::Unknown(e.to_string()),
            },
        }
    }

    /// The value, if it is known.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            _ => None,
        }
    }
}
