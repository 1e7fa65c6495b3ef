// SPDX-License-Identifier: Apache-2.0
//! Says beforehand that a disk is likely to be too small: a compiler that runs out of space dies in
//! ways that do not tell why.

use std::path::Path;

use anyhow::{Context, Result};

use crate::project::Project;

/// What a whole `make test` leaves in `target/`: 4.2 GiB were measured.
const TARGET_MIB: u64 = 5 * 1024;
/// What it leaves in the cache: 2.5 GiB were measured, of which the kernel's source is 1.8.
const CACHE_MIB: u64 = 3 * 1024;

/// Warns when there is less space than what has not been built yet takes.
///
/// # Errors
///
/// When the space cannot be read.
pub fn check(project: &Project) -> Result<()> {
    // What was built once is built over: it needs no more.
    let target = missing(&project.out(), TARGET_MIB);
    let cache = missing(&project.cache.join("kernel"), CACHE_MIB);
    let (on_target, on_cache) = (Disk::of(&project.target)?, Disk::of(&project.cache)?);
    if on_target.id == on_cache.id {
        warn(&project.target, on_target.free_mib, target + cache);
    } else {
        warn(&project.target, on_target.free_mib, target);
        warn(&project.cache, on_cache.free_mib, cache);
    }
    Ok(())
}

fn missing(built: &Path, mib: u64) -> u64 {
    if built.exists() {
        0
    } else {
        mib
    }
}

fn warn(place: &Path, free: u64, needed: u64) {
    if let Some(warning) = warning(place, free, needed) {
        eprintln!("{warning}");
    }
}

fn warning(place: &Path, free: u64, needed: u64) -> Option<String> {
    (free < needed).then(|| {
        format!(
            "warning: {free} MiB free at {}, and what is still to be built takes about {needed}; \
             make room, or set CARGO_TARGET_DIR and XDG_CACHE_HOME to a larger disk",
            place.display(),
        )
    })
}

/// The disk that a place is on.
struct Disk {
    id: u64,
    free_mib: u64,
}

impl Disk {
    /// Of the place itself, or of the directory that it would be made in.
    fn of(place: &Path) -> Result<Self> {
        let place = place.ancestors().find(|place| place.exists()).unwrap_or(place);
        let disk = rustix::fs::statvfs(place)
            .with_context(|| format!("cannot read the free space of {}", place.display()))?;
        Ok(Self { id: disk.f_fsid, free_mib: disk.f_bavail * disk.f_frsize / (1024 * 1024) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_named_with_its_place() {
        let warning = warning(Path::new("/somewhere"), 10, 11).expect("a warning");
        assert!(warning.contains("10 MiB free at /somewhere") && warning.contains("about 11"));
        assert!(warning.contains("CARGO_TARGET_DIR"), "names a remedy: {warning}");
        assert!(self::warning(Path::new("/somewhere"), 11, 11).is_none());
    }

    #[test]
    fn a_place_that_is_yet_to_be_made_is_on_its_parents_disk() {
        let dir = tempfile::tempdir().unwrap();
        let there = Disk::of(dir.path()).unwrap();
        let later = Disk::of(&dir.path().join("not/yet")).unwrap();
        assert_eq!(there.id, later.id);
        assert!(there.free_mib > 0);
    }
}
