// SPDX-License-Identifier: Apache-2.0
//! The device tree: a tree that can be changed before it is written ([`tree`]), and what this
//! machine says in it ([`machine`]).

pub mod machine;
pub mod overlay;
pub mod read;
pub mod tree;

pub use machine::{Description, Seeds};

use crate::layout::DTB_WINDOW;
use thiserror::Error;

/// Why there is no device tree.
#[derive(Debug, Error)]
pub enum FdtError {
    /// A name or value that the format cannot hold.
    #[error("device tree: {0}")]
    Write(#[from] vm_fdt::Error),
    /// Larger than the window that the hypervisor is told about.
    #[error("the device tree has {0} bytes, its window {DTB_WINDOW}: pass fewer parameters")]
    TooLarge(usize),
    /// The kernel's command line does not fit.
    #[error("the kernel parameters have {len} bytes, a kernel reads {limit}: shorten them")]
    Bootargs {
        /// Their length.
        len: usize,
        /// What a kernel reads.
        limit: usize,
    },
}

/// Writes a tree, and checks that it fits into its window.
pub fn write(root: &tree::Node) -> Result<Vec<u8>, FdtError> {
    let blob = root.to_blob()?;
    match u64::try_from(blob.len()) {
        Ok(len) if len <= DTB_WINDOW => Ok(blob),
        _ => Err(FdtError::TooLarge(blob.len())),
    }
}
