// SPDX-License-Identifier: Apache-2.0
//! Where things are: the source tree, Cargo's target directory, the cache outside of both.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directories that every step works with.
#[derive(Clone)]
pub struct Project {
    /// Top of the source tree.
    pub top: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// Slow results that outlive `target/`.
    pub cache: PathBuf,
}

impl Project {
    /// Finds the directories from the environment that Cargo and the user set.
    ///
    /// # Errors
    ///
    /// When neither `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let top = manifest
            .ancestors()
            .nth(2)
            .context("tests/harness is not inside a source tree")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => top.join(dir),
            None => top.join("target"),
        };
        let caches = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(dir), _) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
            (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
            _ => anyhow::bail!("no place for the cache: set HOME or XDG_CACHE_HOME"),
        };
        Ok(Self { top, target, cache: caches.join("gzvm") })
    }

    /// What the harness makes: images, the module, initramfs archives.
    pub fn out(&self) -> PathBuf {
        self.target.join("gzvm")
    }

    /// The log file of the step `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.out().join("logs").join(format!("{name}.log"))
    }

    /// JUnit files.
    pub fn reports(&self) -> PathBuf {
        self.target.join("reports")
    }
}
