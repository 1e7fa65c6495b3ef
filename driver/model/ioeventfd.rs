// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! IOEVENTFD: which guest writes signal which eventfd.

use super::refusal::{invalid, Errno, Refusal, Result};
use super::store::Store;
use crate::abi::{run, uapi};

/// What a write must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Guest physical address.
    pub addr: u64,
    /// Width in bytes; 0 means any.
    pub len: u32,
    /// Value, in as many low bits as the width has; `None` means any.
    pub data: Option<u64>,
}

/// What IOEVENTFD asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Signal on such writes.
    Assign(Pattern),
    /// Stop.
    Deassign(Pattern),
}

/// The low `len` bytes of a value.
fn truncate(value: u64, len: u32) -> u64 {
    match len {
        1 | 2 | 4 => value & ((1 << (8 * len)) - 1),
        _ => value,
    }
}

/// Takes the argument apart. The padding is not looked at: clients leave garbage in it.
pub fn parse(request: &uapi::Ioeventfd) -> Result<Request> {
    let known =
        uapi::IOEVENTFD_FLAG_DATAMATCH | uapi::IOEVENTFD_FLAG_PIO | uapi::IOEVENTFD_FLAG_DEASSIGN;
    if request.flags & !known != 0 {
        return Err(invalid("ioeventfd flags are unknown"));
    }
    if request.flags & uapi::IOEVENTFD_FLAG_PIO != 0 {
        return Err(invalid("there is no port I/O on this architecture"));
    }
    if !matches!(request.len, 0 | 1 | 2 | 4 | 8) {
        return Err(invalid("ioeventfd length is not 0, 1, 2, 4 or 8"));
    }
    if request.addr.checked_add(u64::from(request.len)).is_none() {
        return Err(invalid("ioeventfd address wraps"));
    }
    let datamatch = request.flags & uapi::IOEVENTFD_FLAG_DATAMATCH != 0;
    if datamatch && request.len == 0 {
        return Err(invalid("ioeventfd with datamatch needs a length"));
    }
    let pattern = Pattern {
        addr: request.addr,
        len: request.len,
        data: datamatch.then(|| truncate(request.datamatch, request.len)),
    };
    if request.flags & uapi::IOEVENTFD_FLAG_DEASSIGN != 0 {
        Ok(Request::Deassign(pattern))
    } else {
        Ok(Request::Assign(pattern))
    }
}

impl Pattern {
    /// Is it a write that the pattern describes? Reserved bytes of `data` are not looked at.
    pub fn matches(&self, write: &run::Mmio) -> bool {
        let len = match u32::try_from(write.size) {
            Ok(len) => len,
            Err(_) => return false,
        };
        self.addr == write.phys_addr
            && (self.len == 0 || self.len == len)
            && self.data.is_none_or(|data| data == truncate(u64::from_le_bytes(write.data), len))
    }

    /// Would some write match both patterns, so that it would not be clear whom to signal?
    pub fn collides(&self, other: &Pattern) -> bool {
        let same_len = self.len == other.len || self.len == 0 || other.len == 0;
        let same_data = match (self.data, other.data) {
            (Some(data), Some(other)) => data == other,
            _ => true,
        };
        self.addr == other.addr && same_len && same_data
    }
}

/// An entry of the table: a pattern and whatever is signalled.
pub trait Entry {
    /// The pattern.
    fn pattern(&self) -> &Pattern;
}

/// A VM's ioeventfds.
///
/// # Invariants
///
/// Sorted by address; no two patterns collide.
pub struct Table<S>(S);

impl<S> Table<S> {
    /// A table over an empty store.
    pub const fn new(store: S) -> Self {
        Self(store)
    }

    /// The entries at an address.
    fn at<E: Entry>(&self, addr: u64) -> (usize, &[E])
    where
        S: Store<E>,
    {
        let entries = self.0.entries();
        let start = entries.partition_point(|entry| entry.pattern().addr < addr);
        let rest = entries.get(start..).unwrap_or(&[]);
        let count = rest.partition_point(|entry| entry.pattern().addr == addr);
        (start, rest.get(..count).unwrap_or(&[]))
    }

    /// Adds an entry; -EEXIST if it collides with another one.
    pub fn insert<E: Entry>(&mut self, entry: E) -> Result<()>
    where
        S: Store<E>,
    {
        let pattern = *entry.pattern();
        let (position, others) = self.at(pattern.addr);
        if others.iter().any(|other| other.pattern().collides(&pattern)) {
            let why = "ioeventfd collides with another one of the same address";
            return Err(Refusal::new(Errno::Exist, why));
        }
        // INVARIANT: nothing collides, and `position` is where the address's entries start.
        self.0.insert(position, entry)
    }

    /// Takes the entry out that has exactly this pattern and that `same` recognises.
    pub fn remove<E: Entry>(&mut self, pattern: &Pattern, same: impl Fn(&E) -> bool) -> Option<E>
    where
        S: Store<E>,
    {
        let (start, others) = self.at(pattern.addr);
        let is_it = |entry: &E| entry.pattern() == pattern && same(entry);
        let offset = others.iter().position(is_it)?;
        self.0.remove(start + offset)
    }

    /// The entry for a write, in O(log n).
    pub fn find<E>(&self, write: &run::Mmio) -> Option<&E>
    where
        S: Store<E>,
        E: Entry + 'static,
    {
        self.at(write.phys_addr).1.iter().find(|entry: &&E| entry.pattern().matches(write))
    }
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_ioeventfd))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::super::store::fixed::Fixed;
    use super::*;

    impl Entry for (Pattern, u32) {
        fn pattern(&self) -> &Pattern {
            &self.0
        }
    }

    fn pattern(addr: u64, len: u32, data: Option<u64>) -> Pattern {
        Pattern { addr, len, data }
    }

    fn write(addr: u64, size: u64, value: u64) -> run::Mmio {
        run::Mmio {
            phys_addr: addr,
            data: value.to_le_bytes(),
            size,
            is_write: 1,
            ..Default::default()
        }
    }

    #[test]
    fn w18_one_address_serves_many_values() {
        let mut table = Table::new(Fixed::<_, 8>::new((pattern(0, 0, None), 0)));
        assert!(table.insert((pattern(0x1000, 4, Some(1)), 1)).is_ok());
        assert!(table.insert((pattern(0x1000, 4, Some(2)), 2)).is_ok());
        assert!(table.insert((pattern(0x0800, 0, None), 3)).is_ok());
        let found = |write| table.find::<(Pattern, u32)>(&write).map(|entry| entry.1);
        assert_eq!(found(write(0x1000, 4, 2)), Some(2));
        // What lies beyond the width does not count.
        assert_eq!(found(write(0x1000, 4, 0xdead_0000_0000 << 8 | 1)), Some(1));
        assert_eq!(found(write(0x1000, 2, 1)), None);
        assert_eq!(found(write(0x1000, 4, 3)), None);
        assert_eq!(found(write(0x0800, 1, 9)), Some(3));
        assert_eq!(found(write(0x0800, 8, 9)), Some(3));
        assert!(table.insert((pattern(0x1000, 4, Some(2)), 4)).is_err());
        assert!(table.insert((pattern(0x1000, 0, None), 4)).is_err());
        assert!(table.insert((pattern(0x0800, 2, Some(1)), 4)).is_err());
        let removed = table.remove(&pattern(0x1000, 4, Some(1)), |entry| entry.1 == 1);
        assert!(removed.is_some());
        let gone: Option<(Pattern, u32)> = table.remove(&pattern(0x1000, 4, Some(1)), |_| true);
        assert!(gone.is_none());
    }

    #[test]
    fn garbage_is_refused() {
        let good = uapi::Ioeventfd {
            datamatch: 0x1_0000_0002,
            addr: 0x1000,
            len: 4,
            fd: 3,
            flags: uapi::IOEVENTFD_FLAG_DATAMATCH,
            pad: [0xaa; 36],
        };
        assert_eq!(parse(&good), Ok(Request::Assign(pattern(0x1000, 4, Some(2)))));
        assert!(parse(&uapi::Ioeventfd { len: 3, ..good }).is_err());
        assert!(parse(&uapi::Ioeventfd { len: 0, ..good }).is_err());
        assert!(parse(&uapi::Ioeventfd { addr: u64::MAX, ..good }).is_err());
        assert!(parse(&uapi::Ioeventfd { flags: 8, ..good }).is_err());
        assert!(parse(&uapi::Ioeventfd { flags: uapi::IOEVENTFD_FLAG_PIO, ..good }).is_err());
    }
}
