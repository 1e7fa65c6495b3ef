// SPDX-License-Identifier: Apache-2.0
//! `create-partition`: an empty partition, which the service formats.

use anyhow::{Context, Result};
use avf_aidl::aidl::virtualizationservice::PartitionType::PartitionType;
use binder::ParcelFileDescriptor;
use clap::ValueEnum;
use gzvm_client::{exception, Service};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Anything: zeros.
    Raw,
    /// A VM's instance image.
    Instance,
    /// A store that is encrypted when it is first used.
    Encryptedstore,
}

impl From<Kind> for PartitionType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Raw => Self::RAW,
            Kind::Instance => Self::ANDROID_VM_INSTANCE,
            Kind::Encryptedstore => Self::ENCRYPTEDSTORE,
        }
    }
}

/// Makes the new file `path` a partition of `size` bytes.
pub fn create(path: &Path, size: u64, kind: Kind) -> Result<()> {
    let mut options = OpenOptions::new();
    let image = options.create_new(true).read(true).write(true).open(path);
    let image = image.with_context(|| format!("cannot create {}", path.display()))?;
    initialize(image, size, kind).with_context(|| path.display().to_string()).inspect_err(|_| {
        // It is ours, and of no use. The first error is the one to be told.
        let _ = fs::remove_file(path);
    })
}

fn initialize(image: File, size: u64, kind: Kind) -> Result<()> {
    let size = i64::try_from(size).context("SIZE is too large")?;
    let service = Service::start()?;
    let image = ParcelFileDescriptor::new(image);
    service.connect()?.initializeWritablePartition(&image, size, kind.into()).map_err(exception)
}
