// SPDX-License-Identifier: Apache-2.0
//! What Android provides and other systems lack: system properties, permissions, context ids. One
//! definition for all programs of the backend.
#![forbid(unsafe_code)]

pub mod cids;
pub mod permissions;
pub mod props;
