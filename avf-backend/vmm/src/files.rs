// SPDX-License-Identifier: Apache-2.0
//! Files named on the command line.
//!
//! virtmgr hands files over as inherited descriptors, named `/proc/self/fd/N`. These are
//! duplicated, never opened again: Android's policy forbids the VMM to open files of those types,
//! and opening would ask for rights that the giver may not have meant to give.

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::OnceLock;

/// The descriptors that this process was started with, once they were looked at.
static HANDED_OVER: OnceLock<Vec<RawFd>> = OnceLock::new();

/// Looks which descriptors this process was started with; no others can be named from then on. Comes
/// before this process opens anything: a number that its parent forgot to fill would name that.
pub fn remember_handed_over() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The one that this list came from is closed by now.
    let open = numbers.into_iter().filter(|&fd| fcntl(fd, FcntlArg::F_GETFD).is_ok());
    // Nothing to do if it is known already.
    let _ = HANDED_OVER.set(open.collect());
}

/// Opens a file for reading.
pub fn open_read(path: &Path) -> io::Result<File> {
    match inherited(path) {
        Some(fd) => duplicate(fd, OFlag::O_WRONLY, "reading"),
        None => File::open(path),
    }
}

/// Opens an existing file for reading and writing.
pub fn open_read_write(path: &Path) -> io::Result<File> {
    match inherited(path) {
        Some(fd) => duplicate(fd, OFlag::O_RDONLY, "writing"),
        None => OpenOptions::new().read(true).write(true).open(path),
    }
}

/// Opens a file for writing, creating it if it does not exist; the end is found by the file's own
/// position, so existing contents are truncated only for files that are opened by name.
pub fn open_write(path: &Path) -> io::Result<File> {
    match inherited(path) {
        Some(fd) => duplicate(fd, OFlag::O_RDONLY, "writing"),
        None => OpenOptions::new().write(true).create(true).truncate(true).open(path),
    }
}

/// Opens a file to write behind what it has, creating it if it does not exist.
pub fn open_append(path: &Path) -> io::Result<File> {
    match inherited(path) {
        Some(fd) => duplicate(fd, OFlag::O_RDONLY, "writing"),
        None => OpenOptions::new().append(true).create(true).open(path),
    }
}

/// A copy of the descriptor that a path names, if it names one of this process.
pub fn take_inherited(path: &Path) -> io::Result<Option<OwnedFd>> {
    inherited(path).map(clone_fd).transpose()
}

/// What to call a file in messages: for an inherited descriptor, what it was opened as.
pub fn describe(path: &Path) -> String {
    let target = inherited(path).and_then(|_| std::fs::read_link(path).ok());
    match target {
        Some(target) => target.display().to_string(),
        None => path.display().to_string(),
    }
}

/// Whether a path names a descriptor of this process.
pub fn is_inherited(path: &Path) -> bool {
    inherited(path).is_some()
}

/// The descriptor that a path names, if it names one of this process.
fn inherited(path: &Path) -> Option<RawFd> {
    let name = path.to_str()?;
    let number = name.strip_prefix("/proc/self/fd/").or_else(|| name.strip_prefix("/dev/fd/"))?;
    number.parse().ok().filter(|&fd| fd >= 0)
}

fn not_handed_over() -> io::Error {
    let why = "no such descriptor was handed to this process";
    io::Error::new(io::ErrorKind::NotFound, why)
}

/// Duplicates `fd`, which must not have the access mode `unsuitable`.
fn duplicate(fd: RawFd, unsuitable: OFlag, purpose: &str) -> io::Result<File> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|e| match e {
        Errno::EBADF => not_handed_over(),
        other => other.into(),
    })?;
    let flags = OFlag::from_bits_truncate(flags);
    if flags & OFlag::O_ACCMODE == unsuitable {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the inherited descriptor is not open for {purpose}"),
        ));
    }
    Ok(clone_fd(fd)?.into())
}

fn clone_fd(fd: RawFd) -> io::Result<OwnedFd> {
    if HANDED_OVER.get().is_some_and(|numbers| !numbers.contains(&fd)) {
        return Err(not_handed_over());
    }
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(0))?;
    // SAFETY: F_DUPFD_CLOEXEC returned `new`, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsRawFd;

    fn path_of(file: &File) -> String {
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }

    #[test]
    fn inherited_descriptors_share_the_position() {
        let mut file = tempfile::tempfile().unwrap();
        let mut copy = open_write(Path::new(&path_of(&file))).unwrap();
        copy.write_all(b"ab").unwrap();
        assert_eq!(file.stream_position().unwrap(), 2, "a reopened file would be at 0");
    }

    #[test]
    fn what_is_appended_keeps_what_was_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["a", "b"] {
            open_append(file.path()).unwrap().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read(file.path()).unwrap(), b"ab");
        open_write(file.path()).unwrap().write_all(b"c").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"c");
    }

    #[test]
    fn the_access_mode_is_checked() {
        let null = File::open("/dev/null").unwrap();
        let error = open_write(Path::new(&path_of(&null))).unwrap_err();
        assert!(error.to_string().contains("writing"), "{error}");
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert!(open_read(Path::new(&path_of(&null))).is_err());
    }

    #[test]
    fn messages_name_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let described = describe(Path::new(&path_of(file.as_file())));
        assert_eq!(described, file.path().display().to_string());
        assert_eq!(describe(Path::new("/x")), "/x");
    }

    #[test]
    fn closed_descriptors_and_files() {
        let error = open_read(Path::new("/proc/self/fd/987654")).unwrap_err().to_string();
        assert_eq!(error, "no such descriptor was handed to this process");
        let mut text = String::new();
        open_read(Path::new("/proc/self/stat")).unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        assert!(open_read(Path::new("/nonexistent")).is_err());
    }
}
