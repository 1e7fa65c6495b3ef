// SPDX-License-Identifier: Apache-2.0
//! `create-idsig`: the v4 signature file of an APK, which the service writes.

use anyhow::{Context, Result};
use binder::ParcelFileDescriptor;
use gzvm_client::{exception, Service};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// Makes the file `idsig` for the APK `apk`.
pub fn create(apk: &Path, idsig: &Path) -> Result<()> {
    let input = File::open(apk).with_context(|| format!("cannot open {}", apk.display()))?;
    let (was_there, mut options) = (idsig.exists(), OpenOptions::new());
    let output = options.create(true).truncate(false).read(true).write(true).open(idsig);
    let output = output.with_context(|| format!("cannot create {}", idsig.display()))?;
    write(input, output).with_context(|| apk.display().to_string()).inspect_err(|_| {
        if !was_there {
            // It is ours, and of no use. The first error is the one to be told.
            let _ = fs::remove_file(idsig);
        }
    })
}

fn write(apk: File, idsig: File) -> Result<()> {
    let service = Service::start()?;
    let (apk, idsig) = (ParcelFileDescriptor::new(apk), ParcelFileDescriptor::new(idsig));
    service.connect()?.createOrUpdateIdsigFile(&apk, &idsig).map_err(exception)
}
