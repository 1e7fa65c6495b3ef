// SPDX-License-Identifier: Apache-2.0
//! Slow results, kept outside `target/` and keyed by what they are made of.
//!
//! An entry is a directory `<kind>/<name>-<hash of the key>` with a stamp that holds the key. The
//! stamp is written last, in one rename: a directory without it is never used. One process at a
//! time builds entries of a kind (a lock on `<kind>.lock`, which the kernel drops with its owner).

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::interrupt;

const STAMP: &str = ".complete";
/// Prefix of directories that are being filled.
const PARTIAL: &str = ".partial-";

/// All that a cached result depends on.
#[derive(Clone, Debug)]
pub struct Key {
    name: String,
    text: String,
}

impl Key {
    /// A key whose directory name starts with `name`, for people who look into the cache.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), text: format!("name: {name}\n") }
    }

    /// Adds something that the result depends on.
    #[must_use]
    pub fn with(mut self, what: &str, value: &str) -> Self {
        for line in value.trim().lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(self.text, "{what}: {line}");
        }
        self
    }

    fn dir_name(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        // Debian's versions have characters that Make and shells treat specially.
        let plain = |c: char| if c.is_ascii_alphanumeric() || ".+-".contains(c) { c } else { '_' };
        let name: String = self.name.chars().map(plain).collect();
        format!("{name}-{hash}")
    }
}

/// The cache directory.
#[derive(Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Removes a half-filled directory unless it was completed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After a success the directory has been renamed, and there is nothing to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Cache {
    /// A cache at `root`, which is created when needed.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Where the entry for `key` is or would be.
    pub fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join(kind).join(key.dir_name())
    }

    /// The finished entry for `key`.
    pub fn lookup(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        let dir = self.path(kind, key);
        (fs::read_to_string(dir.join(STAMP)).ok()? == key.text).then_some(dir)
    }

    /// All finished entries of a kind whose names start with `prefix`, newest first.
    pub fn entries(&self, kind: &str, prefix: &str) -> Vec<PathBuf> {
        let Ok(dir) = fs::read_dir(self.root.join(kind)) else { return Vec::new() };
        let mut found: Vec<_> = dir
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .filter_map(|entry| {
                let path = entry.path();
                let time = fs::metadata(path.join(STAMP)).ok()?.modified().ok()?;
                Some((time, path))
            })
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }

    /// The entry for `key`, filled by `fill` in a directory that gets its name only when complete.
    ///
    /// # Errors
    ///
    /// What `fill` returns, or a file system error; the half-filled directory is removed.
    pub fn get(
        &self,
        kind: &str,
        key: &Key,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.once(kind, key, |dir| {
            self.remove(kind, |path| file_name(path).starts_with(PARTIAL))?;
            let partial = Partial(dir.with_file_name(format!("{PARTIAL}{}", key.dir_name())));
            create(&partial.0)?;
            fill(&partial.0)?;
            interrupt::check()?;
            stamp(&partial.0, key)?;
            if dir.exists() {
                fs::remove_dir_all(dir)?;
            }
            fs::rename(&partial.0, dir).with_context(|| format!("cannot create {}", dir.display()))
        })
    }

    /// Like [`Cache::get`] for builds whose files name their own directory and which can be
    /// resumed after an interruption (Kbuild): they are made in place, and the stamp alone tells
    /// that they are complete. A resumed `fill` finds what the last one left.
    ///
    /// # Errors
    ///
    /// What `fill` returns, or a file system error.
    pub fn get_resumable(
        &self,
        kind: &str,
        key: &Key,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.once(kind, key, |dir| {
            self.remove(kind, |path| path != dir && !path.join(STAMP).exists())?;
            create(dir)?;
            fill(dir)?;
            interrupt::check()?;
            stamp(dir, key)
        })
    }

    /// The entry for `key`, made by one process while the others wait.
    fn once(
        &self,
        kind: &str,
        key: &Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if let Some(dir) = self.lookup(kind, key) {
            return Ok(dir);
        }
        let _lock = self.lock(kind)?;
        if let Some(dir) = self.lookup(kind, key) {
            return Ok(dir);
        }
        let dir = self.path(kind, key);
        make(&dir)?;
        Ok(dir)
    }

    /// Removes directories that are of no use to anybody: under the lock, whatever is not complete
    /// was left by a process that is gone.
    fn remove(&self, kind: &str, useless: impl Fn(&Path) -> bool) -> Result<()> {
        for entry in fs::read_dir(self.root.join(kind))? {
            let path = entry?.path();
            if path.is_dir() && useless(&path) {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn lock(&self, kind: &str) -> Result<File> {
        create(&self.root.join(kind))?;
        lock(&self.root.join(format!("{kind}.lock")), kind)
    }
}

/// Waits until nobody else builds what `path` stands for, and says so if it takes a while. The lock
/// goes with the file, that is with this process at the latest.
///
/// # Errors
///
/// When the file cannot be made or locked.
pub fn lock(path: &Path, what: &str) -> Result<File> {
    let file =
        File::create(path).with_context(|| format!("cannot create the lock {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("another build is preparing the same ({what}), waiting for it");
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn create(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

fn stamp(dir: &Path, key: &Key) -> Result<()> {
    let new = dir.join(format!("{STAMP}.new"));
    fs::write(&new, &key.text)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, dir.join(STAMP))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("gzvm"));
        (dir, cache)
    }

    fn names(cache: &Cache, kind: &str) -> Vec<String> {
        let dir = fs::read_dir(cache.root.join(kind)).unwrap();
        dir.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_key_depends_on_every_part() {
        let base = Key::new("7.3.4").with("rustc", "1.96").with("config", "A=y\nB=y");
        let same = Key::new("7.3.4").with("rustc", "1.96").with("config", "A=y\nB=y\n");
        assert_eq!(base.dir_name(), same.dir_name());
        for other in [
            Key::new("7.3.5").with("rustc", "1.96").with("config", "A=y\nB=y"),
            Key::new("7.3.4").with("rustc", "1.97").with("config", "A=y\nB=y"),
            Key::new("7.3.4").with("rustc", "1.96").with("config", "A=y"),
            Key::new("7.3.4").with("rustc", "1.96").with("config", "A=yB=y"),
        ] {
            assert_ne!(base.dir_name(), other.dir_name());
        }
    }

    #[test]
    fn a_directory_name_is_plain() {
        assert!(Key::new("1:7.3~a/b").dir_name().starts_with("1_7.3_a_b-"));
    }

    #[test]
    fn an_entry_is_filled_once() {
        let (_dir, cache) = cache();
        let key = Key::new("x");
        let first = cache.get("k", &key, |dir| Ok(fs::write(dir.join("f"), "1")?)).unwrap();
        let second = cache.get("k", &key, |_| panic!("filled twice")).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read_to_string(first.join("f")).unwrap(), "1");
        assert_eq!(cache.entries("k", "x"), [first]);
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let (_dir, cache) = cache();
        let key = Key::new("x");
        let fill = |dir: &Path| {
            fs::write(dir.join("half"), "1")?;
            anyhow::bail!("no network")
        };
        assert!(cache.get("k", &key, fill).is_err());
        assert!(names(&cache, "k").is_empty());
        assert!(cache.lookup("k", &key).is_none());
    }

    #[test]
    fn leftovers_of_a_killed_process_are_removed() {
        let (_dir, cache) = cache();
        let left = cache.root.join("k").join(format!("{PARTIAL}x-123"));
        fs::create_dir_all(&left).unwrap();
        cache.get("k", &Key::new("x"), |_| Ok(())).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_resumable_entry_keeps_its_parts_but_is_not_used_before_it_is_complete() {
        let (_dir, cache) = cache();
        let key = Key::new("x");
        let fill = |dir: &Path| {
            fs::write(dir.join("part"), "1")?;
            anyhow::bail!("interrupted")
        };
        assert!(cache.get_resumable("k", &key, fill).is_err());
        assert!(cache.lookup("k", &key).is_none());
        assert!(cache.entries("k", "").is_empty());
        let dir = cache
            .get_resumable("k", &key, |dir| {
                assert!(dir.join("part").exists());
                Ok(())
            })
            .unwrap();
        assert_eq!(cache.lookup("k", &key), Some(dir));
    }

    #[test]
    fn an_unfinished_build_of_another_key_is_removed() {
        let (_dir, cache) = cache();
        let old = Key::new("old");
        assert!(cache.get_resumable("k", &old, |_| anyhow::bail!("stopped")).is_err());
        let done = cache.get_resumable("k", &Key::new("done"), |_| Ok(())).unwrap();
        cache.get_resumable("k", &Key::new("new"), |_| Ok(())).unwrap();
        assert!(!cache.path("k", &old).exists());
        assert!(done.exists());
    }

    #[test]
    fn a_damaged_stamp_is_not_believed() {
        let (_dir, cache) = cache();
        let key = Key::new("x");
        let dir = cache.get("k", &key, |_| Ok(())).unwrap();
        fs::write(dir.join(STAMP), "name: x").unwrap();
        assert!(cache.lookup("k", &key).is_none());
        cache.get("k", &key, |_| Ok(())).unwrap();
        assert!(cache.lookup("k", &key).is_some());
    }
}
