// SPDX-License-Identifier: Apache-2.0
//! The device tree: a tree that can be changed before it is written ([`tree`]), and what this
//! machine says in it ([`machine`]).

pub mod machine;
pub mod overlay;
pub mod read;
pub mod tree;

pub use machine::{Description, Seeds};

use crate::config::Protection;
use crate::layout::{Layout, DTB_WINDOW};
use gzvm_dtcheck::{Fault, Reader};
use thiserror::Error;

/// Why there is no device tree.
#[derive(Debug, Error)]
pub enum FdtError {
    /// Larger than the window that the hypervisor is told about.
    #[error("the device tree has {0} bytes, its window {DTB_WINDOW}: pass fewer parameters")]
    TooLarge(usize),
    /// It is not where guests read it.
    #[error("device tree: {0}")]
    Place(Fault),
    /// The firmware would reset the VM without saying why.
    #[error(
        "the protected-VM firmware refuses the device tree: {0}; look at the VM's overlays and the \
         number of its CPUs and devices"
    )]
    Refused(Fault),
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
    let blob = root.to_blob();
    match u64::try_from(blob.len()) {
        Ok(len) if len <= DTB_WINDOW => Ok(blob),
        _ => Err(FdtError::TooLarge(blob.len())),
    }
}

/// Checks what nobody would report later: a tree that guests read only a part of, or one that
/// AVF's firmware refuses. Other firmware may demand something else.
pub fn check(blob: &[u8], layout: &Layout, protection: &Protection) -> Result<(), FdtError> {
    let window = layout.dtb;
    let size = u64::try_from(blob.len()).map_err(|_| FdtError::TooLarge(blob.len()))?;
    let ram = layout.ram.start..layout.ram.end();
    gzvm_dtcheck::check_place(size, window.start, window.size, &ram).map_err(FdtError::Place)?;
    // The firmware reads names of any length, the checker does not; none of them is its business.
    let short = read::read(blob).ok().and_then(|root| root.without_long_names());
    let short = short.map(|root| root.to_blob());
    let blob = short.as_deref().unwrap_or(blob);
    match (protection.has_firmware(), gzvm_dtcheck::check(blob, Reader::Firmware)) {
        (true, Err(fault)) if *protection == Protection::HypervisorFirmware => {
            Err(FdtError::Refused(fault))
        }
        (true, Err(fault)) => {
            log::warn!("AVF's firmware would refuse the device tree: {fault}");
            Ok(())
        }
        _ => Ok(()),
    }
}
