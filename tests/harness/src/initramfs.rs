// SPDX-License-Identifier: Apache-2.0
//! Reproducible initramfs archives: sorted, without times, owned by root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{bail, Context, Result};
use cpio::newc::{self, ModeFileType};
use flate2::{Compression, GzBuilder};

enum Entry {
    Directory,
    File { mode: u32, data: Vec<u8> },
    Link(String),
}

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Adds the directory `path` and those above it.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Entry::Directory);
        }
        if !path.is_empty() {
            self.entries.entry(path.to_owned()).or_insert(Entry::Directory);
        }
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Adds a file with these contents and permissions.
    pub fn data(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.insert(path, Entry::File { mode, data });
    }

    /// Adds a copy of a file; executable for all or none, as it is for its owner.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let executable = fs::metadata(from)?.permissions().mode() & 0o100 != 0;
        self.data(path, if executable { 0o755 } else { 0o644 }, data);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Link(target.to_owned()));
    }

    /// Adds all files below a directory under their relative paths.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or is neither file nor directory.
    pub fn tree(&mut self, path: &str, from: &Path) -> Result<()> {
        for entry in
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?
        {
            let entry = entry?;
            let name = entry.file_name();
            let below = format!("{path}/{}", name.to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&below, &entry.path())?;
            } else if kind.is_file() {
                self.file(&below, &entry.path())?;
            } else {
                bail!("{}: only files and directories go into an archive", entry.path().display());
            }
        }
        Ok(())
    }

    /// Writes the archive (format newc, which Linux unpacks).
    ///
    /// # Errors
    ///
    /// When writing fails, or a file has 4 GiB or more.
    pub fn write<W: Write>(&self, mut out: W) -> Result<W> {
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            let (kind, mode, data) = match entry {
                Entry::Directory => (ModeFileType::Directory, 0o755, &[][..]),
                Entry::File { mode, data } => (ModeFileType::Regular, *mode, data.as_slice()),
                Entry::Link(target) => (ModeFileType::Symlink, 0o777, target.as_bytes()),
            };
            let size = u32::try_from(data.len())
                .with_context(|| format!("{path} is too large for an initramfs"))?;
            let builder = newc::Builder::new(path).ino(inode).nlink(1).mode(mode).mtime(0);
            let mut writer = builder.set_mode_file_type(kind).write(out, size);
            writer.write_all(data)?;
            out = writer.finish()?;
        }
        Ok(newc::trailer(out)?)
    }

    /// The archive as bytes, compressed by gzip.
    ///
    /// # Errors
    ///
    /// As for [`Archive::write`].
    pub fn gzip(&self) -> Result<Vec<u8>> {
        // Level 1: a larger archive costs less than the time to make a smaller one.
        let encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
        Ok(self.write(encoder)?.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample(reverse: bool) -> Archive {
        let mut archive = Archive::default();
        let mut files = vec![("init", "#!"), ("bin/sh", "x"), ("bin/ls", "yy")];
        if reverse {
            files.reverse();
        }
        for (path, text) in files {
            archive.data(path, 0o755, text.into());
        }
        archive.link("/etc/mtab", "/proc/mounts");
        archive.directory("/proc");
        archive
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let first = sample(false).write(Vec::new()).unwrap();
        assert_eq!(first, sample(true).write(Vec::new()).unwrap());
        assert_eq!(sample(false).gzip().unwrap(), sample(true).gzip().unwrap());
    }

    #[test]
    fn a_reader_finds_parents_before_their_files() {
        let bytes = sample(false).write(Vec::new()).unwrap();
        let mut names = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((reader.entry().mtime(), reader.entry().uid()), (0, 0));
            match name.as_str() {
                "bin" | "etc" | "proc" => assert_eq!(mode, 0o040_755),
                "etc/mtab" => assert_eq!((mode, text.as_str()), (0o120_777, "/proc/mounts")),
                "bin/ls" => assert_eq!((mode, text.as_str()), (0o100_755, "yy")),
                _ => assert_eq!(mode, 0o100_755),
            }
            names.push(name);
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["bin", "bin/ls", "bin/sh", "etc", "etc/mtab", "init", "proc"]);
    }

    #[test]
    fn a_tree_keeps_what_is_executable() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a"), "a").unwrap();
        fs::write(dir.path().join("run"), "b").unwrap();
        fs::set_permissions(dir.path().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        let mut archive = Archive::default();
        archive.tree("usr/share", dir.path()).unwrap();
        let mode = |path| match archive.entries.get(path) {
            Some(Entry::File { mode, .. }) => *mode,
            _ => panic!("no {path}"),
        };
        assert_eq!(mode("usr/share/sub/a"), 0o644);
        assert_eq!(mode("usr/share/run"), 0o755);
    }
}
