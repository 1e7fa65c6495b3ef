// SPDX-License-Identifier: Apache-2.0
//! crosvm's composite disk: a magic, then a protobuf message that lists files and where their
//! contents are on the disk.
//!
//! ```text
//! message CompositeDisk {
//!   uint32 version = 1;               // at most 2
//!   repeated ComponentDisk component_disks = 2;
//!   uint64 length = 3;
//! }
//! message ComponentDisk {
//!   string file_path = 1;
//!   uint64 offset = 2;                // on the disk; the component ends where the next starts
//!   ReadWriteCapability read_write_capability = 3;   // 1: writable
//!   uint64 file_offset = 4;           // since version 2
//! }
//! ```

pub mod gpt;

use super::{open_file, open_image, starts_with, Disk};
use crate::files;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const MAGIC: &[u8] = b"composite_disk\x1d";
const NEWEST_VERSION: u64 = 2;
/// A list larger than this is damaged: a component needs some 40 bytes.
const LIST_LIMIT: usize = 1 << 20;

/// A disk that is made of files.
///
/// Invariant: components are sorted by offset, the first is at 0, none is empty, and the last one
/// ends at `size`.
pub struct Composite {
    components: Vec<Component>,
    size: u64,
}

struct Component {
    offset: u64,
    length: u64,
    contents: Box<dyn Disk>,
    file_offset: u64,
    writable: bool,
}

impl Composite {
    /// Whether `file` describes a composite disk.
    pub fn detect(file: &File) -> io::Result<bool> {
        let mut start = [0; MAGIC.len()];
        Ok(starts_with(file, &mut start)? && start == MAGIC)
    }

    /// Opens the disk that `file` describes.
    pub fn open(file: &File) -> io::Result<Self> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if size > LIST_LIMIT {
            return Err(invalid("the list of components is too long"));
        }
        let mut list = vec![0; size.saturating_sub(MAGIC.len())];
        // CAST: widening of a small constant.
        file.read_exact_at(&mut list, MAGIC.len() as u64)?;
        Self::build(&Description::parse(&list).ok_or_else(|| invalid("damaged"))?)
    }

    fn build(description: &Description) -> io::Result<Self> {
        if description.version > NEWEST_VERSION {
            return Err(invalid(&format!("version {} is not known", description.version)));
        }
        let mut parts: Vec<&Part> = description.parts.iter().collect();
        parts.sort_by_key(|part| part.offset);
        if parts.first().is_none_or(|part| part.offset != 0) {
            return Err(invalid("nothing at the start"));
        }
        let ends = parts.iter().skip(1).map(|part| part.offset).chain([description.length]);
        let mut components = Vec::new();
        for (part, end) in parts.iter().zip(ends) {
            let length = end.checked_sub(part.offset).filter(|&length| length != 0);
            let length = length.ok_or_else(|| invalid("a component is empty"))?;
            components.push(part.open(length)?);
        }
        Ok(Self { components, size: description.length })
    }

    /// Calls `access` for the parts of `offset .. + len` that are in one component each: component,
    /// offset in its file, and range of the access.
    fn each(
        &self,
        offset: u64,
        len: u64,
        mut access: impl FnMut(&Component, u64, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset.checked_add(done).ok_or_else(|| invalid("overflow"))?;
            let next = self.components.partition_point(|component| component.offset <= at);
            let component = next.checked_sub(1).and_then(|index| self.components.get(index));
            let component = component.ok_or_else(|| invalid("outside of the disk"))?;
            let inside = at - component.offset;
            let left = component.length.saturating_sub(inside);
            let count = left.min(len - done);
            if count == 0 {
                return Err(invalid("outside of the disk"));
            }
            access(component, component.file_offset + inside, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

impl Disk for Composite {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        // CAST, here and below: `usize` has 64 bits on the supported machines.
        self.each(offset, data.len() as u64, |component, at, range| {
            component.read(&mut data[range.start as usize..range.end as usize], at)
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.each(offset, data.len() as u64, |component, at, range| {
            let data = &data[range.start as usize..range.end as usize];
            component.writable()?.write_at(data, at)
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.each(offset, len, |component, at, range| {
            component.writable()?.write_zeroes(at, range.end - range.start, unmap)
        })
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.each(offset, len, |component, at, range| {
            component.writable()?.discard(at, range.end - range.start)
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.components.iter().filter(|c| c.writable).try_for_each(|c| c.contents.flush())
    }
}

impl Component {
    /// A file that is shorter than its component is followed by zeros.
    fn read(&self, data: &mut [u8], at: u64) -> io::Result<()> {
        let there = self.contents.size().saturating_sub(at);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(data.len());
        let (data, zeros) = data.split_at_mut(there);
        zeros.fill(0);
        self.contents.read_at(data, at)
    }

    /// Its contents, if the guest may write them.
    fn writable(&self) -> io::Result<&dyn Disk> {
        match self.writable {
            true => Ok(&*self.contents),
            false => Err(io::Error::new(ErrorKind::PermissionDenied, "a read-only partition")),
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("composite disk: {what}"))
}

/// The message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Description {
    version: u64,
    parts: Vec<Part>,
    length: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    offset: u64,
    writable: bool,
    file_offset: u64,
}

impl Part {
    fn open(&self, length: u64) -> io::Result<Component> {
        if self.file_offset.checked_add(length).is_none() {
            return Err(invalid("a component is not in its file"));
        }
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", self.path.display()));
        // A disk's contents may be a stranger's: they must not have this process open files.
        if !files::is_inherited(&self.path) {
            let why = "only files that were handed over (/proc/self/fd/N) can be components";
            return Err(named(io::Error::new(ErrorKind::PermissionDenied, why)));
        }
        let file = open_file(&self.path, self.writable).map_err(named)?;
        let contents = open_image(file, self.writable).map_err(named)?;
        let (offset, file_offset, writable) = (self.offset, self.file_offset, self.writable);
        Ok(Component { offset, length, contents, file_offset, writable })
    }

    fn write(&self) -> Vec<u8> {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, self.path.as_os_str().as_encoded_bytes());
        put_number(&mut message, 2, self.offset);
        put_number(&mut message, 3, self.writable.into());
        put_number(&mut message, 4, self.file_offset);
        message
    }

    fn parse(mut message: &[u8]) -> Option<Self> {
        let mut part = Self::default();
        while !message.is_empty() {
            match field(&mut message)? {
                (1, Value::Bytes(path)) => part.path = std::str::from_utf8(path).ok()?.into(),
                (2, Value::Number(offset)) => part.offset = offset,
                (3, Value::Number(capability)) => part.writable = capability == 1,
                (4, Value::Number(offset)) => part.file_offset = offset,
                _ => {}
            }
        }
        Some(part)
    }
}

impl Description {
    fn parse(mut message: &[u8]) -> Option<Self> {
        let mut description = Self::default();
        while !message.is_empty() {
            match field(&mut message)? {
                (1, Value::Number(version)) => description.version = version,
                (2, Value::Bytes(part)) => description.parts.push(Part::parse(part)?),
                (3, Value::Number(length)) => description.length = length,
                _ => {}
            }
        }
        Some(description)
    }

    /// The file's contents.
    fn write(&self) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        put_number(&mut file, 1, self.version);
        self.parts.iter().for_each(|part| put_bytes(&mut file, 2, &part.write()));
        put_number(&mut file, 3, self.length);
        file
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // CAST: the low bits are meant.
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
    put_varint(out, number << 3 | 2);
    // CAST: widening on the supported machines.
    put_varint(out, value.len() as u64);
    out.extend(value);
}

/// A value of a protobuf field.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes a field (number and value) off a message.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let tag = varint(message)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(message)?),
        1 => Value::Bytes(bytes(message, 8)?),
        2 => {
            let len = usize::try_from(varint(message)?).ok()?;
            Value::Bytes(bytes(message, len)?)
        }
        5 => Value::Bytes(bytes(message, 4)?),
        _ => return None,
    };
    Some((tag >> 3, value))
}

fn bytes<'a>(message: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(len)?;
    *message = rest;
    Some(taken)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use tempfile::NamedTempFile;

    fn part(file: &NamedTempFile, offset: u64, writable: bool, file_offset: u64) -> Part {
        let path = format!("/proc/self/fd/{}", file.as_file().as_raw_fd()).into();
        Part { path, offset, writable, file_offset }
    }

    fn composite(version: u64, parts: &[Part], length: u64) -> NamedTempFile {
        file(&Description { version, parts: parts.to_vec(), length }.write())
    }

    /// The bytes of a message that another program wrote.
    #[test]
    fn the_encoding_is_protobufs() {
        let path = "/a".into();
        let parts = vec![Part { path, offset: 0x1234, writable: true, file_offset: 0 }];
        let text = Description { version: 2, parts, length: 300 }.write();
        let expected = b"\x08\x02\x12\x0b\x0a\x02/a\x10\xb4\x24\x18\x01\x20\x00\x18\xac\x02";
        assert_eq!(text[MAGIC.len()..], expected[..]);
    }

    fn file(contents: &[u8]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    #[test]
    fn parts_follow_each_other() {
        let (a, b) = (file(b"aaaa"), file(b"xxbbbb"));
        // Out of order, the second one from the middle of its file, and a gap of zeros behind a.
        let parts = [part(&b, 6, true, 2), part(&a, 0, false, 0)];
        let disk = super::super::open(composite(2, &parts, 10).path(), false).unwrap();
        let mut all = [9; 10];
        disk.read_at(&mut all, 0).unwrap();
        assert_eq!((disk.size(), &all), (10, b"aaaa\0\0bbbb"));
        disk.write_at(b"cc", 7).unwrap();
        assert_eq!(std::fs::read(b.path()).unwrap(), b"xxbccb");
        let error = disk.write_at(b"zz", 5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(std::fs::read(a.path()).unwrap(), b"aaaa");
        disk.write_zeroes(8, 2, true).unwrap();
        disk.discard(6, 0).unwrap();
        assert_eq!(std::fs::read(b.path()).unwrap(), b"xxbc\0\0");
        for refused in [disk.write_zeroes(4, 3, false), disk.discard(0, 1)] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        disk.flush().unwrap();
        assert!(disk.read_at(&mut all, 1).is_err(), "behind the end");
    }

    #[test]
    fn nonsense_is_refused() {
        let a = file(b"aaaa");
        for (version, parts, length) in [
            (3, vec![part(&a, 0, false, 0)], 4),
            (2, vec![], 4),
            (2, vec![part(&a, 1, false, 0)], 4),
            (2, vec![part(&a, 0, false, 0), part(&a, 0, false, 0)], 4),
            (2, vec![part(&a, 0, false, 0), part(&a, 8, false, 0)], 4),
            (2, vec![part(&a, 0, false, u64::MAX)], 4),
        ] {
            let disk = composite(version, &parts, length);
            let error = super::super::open(disk.path(), false).map(drop).unwrap_err().to_string();
            assert!(error.contains("composite"), "{error}");
        }
    }

    #[test]
    fn nothing_is_opened_by_name() {
        let a = file(b"aaaa");
        let part = Part { path: a.path().into(), ..part(&a, 0, false, 0) };
        let disk = composite(2, &[part], 4);
        let error = super::super::open(disk.path(), false).map(drop).unwrap_err().to_string();
        assert!(error.contains("handed over"), "{error}");
    }

    proptest! {
        #[test]
        fn any_message_is_survived(list in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(description) = Description::parse(&list) {
                // No path of such a message exists.
                let _ = Composite::build(&description);
            }
        }
    }
}
