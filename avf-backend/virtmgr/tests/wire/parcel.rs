// SPDX-License-Identifier: Apache-2.0
//! Parcels, as libbinder's rules for sockets have them: everything is little-endian and padded to 4
//! bytes; descriptors travel beside the data, and their places are listed behind it.

use std::os::fd::OwnedFd;

/// A parcel in the making.
#[derive(Default)]
pub struct Writer {
    pub data: Vec<u8>,
    /// Where objects begin in `data`.
    pub objects: Vec<u32>,
    /// Descriptors, by their index.
    pub fds: Vec<OwnedFd>,
}

/// What a descriptor is marked with.
const TYPE_FD: i32 = 2;
/// The same for a binder of this process; its place is listed too.
const TYPE_BINDER: i32 = 1;
/// `Stability::Level::SYSTEM`.
const SYSTEM: i32 = 12;

impl Writer {
    /// A call's parcel: the interface's name comes first.
    pub fn call(interface: &str) -> Self {
        Self::default().string(interface)
    }

    pub fn int(mut self, value: i32) -> Self {
        self.data.extend(value.to_le_bytes());
        self
    }

    pub fn long(mut self, value: i64) -> Self {
        self.data.extend(value.to_le_bytes());
        self
    }

    pub fn bool(self, value: bool) -> Self {
        self.int(i32::from(value))
    }

    /// UTF-16, with its length in units in front and a zero behind.
    pub fn string(self, text: &str) -> Self {
        let units: Vec<u16> = text.encode_utf16().collect();
        let mut writer = self.int(i32::try_from(units.len()).unwrap());
        writer.data.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        writer.data.extend([0, 0]);
        writer.pad()
    }

    /// An array of bytes whose length is fixed: it is written all the same.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut writer = self.int(i32::try_from(bytes.len()).unwrap());
        writer.data.extend(bytes);
        writer.pad()
    }

    fn pad(mut self) -> Self {
        self.data.resize(self.data.len().next_multiple_of(4), 0);
        self
    }

    /// A descriptor: there is one, without a channel for errors, of this kind, with this index.
    pub fn fd(self, fd: impl Into<OwnedFd>) -> Self {
        let mut writer = self.int(1).int(0);
        writer.objects.push(u32::try_from(writer.data.len()).unwrap());
        let index = i32::try_from(writer.fds.len()).unwrap();
        writer.fds.push(fd.into());
        writer.int(TYPE_FD).int(index)
    }

    pub fn null(self) -> Self {
        self.int(0)
    }

    /// A binder of ours.
    pub fn binder(mut self, address: u64) -> Self {
        self.objects.push(u32::try_from(self.data.len()).unwrap());
        let mut writer = self.int(TYPE_BINDER);
        writer.data.extend(address.to_le_bytes());
        writer.int(SYSTEM)
    }

    /// A parcelable: there is one, its size, which counts itself, and its fields.
    pub fn parcelable(self, fields: impl FnOnce(Self) -> Self) -> Self {
        let start = self.data.len() + 4;
        let mut writer = fields(self.int(1).int(0));
        let size = u32::try_from(writer.data.len() - start).unwrap();
        writer.data[start..start + 4].copy_from_slice(&size.to_le_bytes());
        writer
    }

    /// A union: there is one, its tag, its value.
    pub fn union(self, tag: i32, value: impl FnOnce(Self) -> Self) -> Self {
        value(self.int(1).int(tag))
    }
}

/// A parcel that came.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn int(&mut self) -> i32 {
        let (value, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        i32::from_le_bytes(*value)
    }

    pub fn address(&mut self) -> u64 {
        let (value, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u64::from_le_bytes(*value)
    }

    pub fn string(&mut self) -> String {
        let units = usize::try_from(self.int()).unwrap();
        let size = ((units + 1) * 2).next_multiple_of(4);
        let (text, rest) = self.0.split_at(size);
        self.0 = rest;
        let text = text.chunks(2).take(units).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        String::from_utf16(&text.collect::<Vec<_>>()).unwrap()
    }

    /// No exception.
    pub fn ok(&mut self) -> &mut Self {
        assert_eq!(self.int(), 0, "an exception");
        self
    }

    /// A binder of the other end.
    pub fn binder(&mut self) -> u64 {
        assert_eq!(self.int(), TYPE_BINDER);
        let address = self.address();
        self.int();
        address
    }
}
