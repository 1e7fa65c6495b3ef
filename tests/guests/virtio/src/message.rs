// SPDX-License-Identifier: Apache-2.0
//! Requests and responses. On the wire they are CBOR, as serde has it for these types.

use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Port on the host that a guest connects to whose firmware asked for a strict boot.
pub const PORT_STRICT: u32 = 5679;
/// Port on the host that any other guest connects to.
pub const PORT: u32 = 5680;

/// What the host asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Compute something.
    Process(ToProcess),
    /// Power off.
    Shutdown,
}

/// What the guest can compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToProcess {
    /// The bytes in the other order.
    Reverse(Vec<u8>),
}

/// What the guest answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Answer to [`ToProcess::Reverse`].
    Reverse(Vec<u8>),
}

impl ToProcess {
    /// Computes the answer.
    pub fn process(self) -> Response {
        match self {
            Self::Reverse(mut bytes) => {
                bytes.reverse();
                Response::Reverse(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that AOSP's client sends and expects: a map with the variant's name as its key.
    #[test]
    fn messages_are_rialtos() {
        let mut bytes = Vec::new();
        let request = Request::Process(ToProcess::Reverse(vec![1, 200]));
        ciborium::into_writer(&request, &mut bytes).unwrap();
        assert_eq!(bytes, b"\xa1\x67Process\xa1\x67Reverse\x82\x01\x18\xc8");
        assert_eq!(ciborium::from_reader::<Request, _>(&bytes[..]).unwrap(), request);
        bytes.clear();
        ciborium::into_writer(&Request::Shutdown, &mut bytes).unwrap();
        assert_eq!(bytes, b"\x68Shutdown");
        let Request::Process(request) = request else { unreachable!() };
        assert_eq!(request.process(), Response::Reverse(vec![200, 1]));
    }
}
