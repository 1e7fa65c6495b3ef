// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! As much of the `kernel` crate as the driver's records need, on the host: frames are numbers, and
//! how often each is pinned is counted.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

/// Frames of the machine.
const FRAMES: usize = 1 << 20;

/// What the test looks at.
#[derive(Default)]
pub struct Host {
    /// The frame behind each page of the process.
    pub mapped: HashMap<usize, usize>,
    /// How often each frame is pinned, unless it is not.
    pub pins: BTreeMap<usize, u32>,
    /// Pages that are charged.
    pub charged: usize,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
    /// Descriptors, of which only the addresses matter.
    static VMEMMAP: &'static [bindings::page] = Vec::leak(vec![bindings::page([0; 64]); FRAMES]);
}

/// Looks at the host, or changes it.
pub fn host<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(f)
}

fn page(frame: usize) -> *mut bindings::page {
    VMEMMAP.with(|pages| std::ptr::from_ref(&pages[frame]).cast_mut())
}

fn frame(page: *mut bindings::page) -> usize {
    let start = VMEMMAP.with(|pages| pages.as_ptr().addr());
    (page.addr() - start) / size_of::<bindings::page>()
}

fn unpin(frame: usize) {
    host(|host| {
        let pins = host.pins.get_mut(&frame).expect("a pinned frame");
        *pins -= 1;
        if *pins == 0 {
            host.pins.remove(&frame);
        }
    });
}

/// C functions and types.
pub mod bindings {
    pub const FOLL_WRITE: u32 = 1;
    pub const FOLL_LONGTERM: u32 = 2;

    pub struct mm_struct;

    #[derive(Clone)]
    pub struct page(pub(super) [u8; 64]);

    pub unsafe fn pin_user_pages_fast(
        start: usize,
        count: i32,
        _: u32,
        pages: *mut *mut page,
    ) -> i32 {
        for index in 0..count as usize {
            let frame = super::host(|host| {
                let frame = host.mapped[&(start / 4096 + index)];
                *host.pins.entry(frame).or_default() += 1;
                frame
            });
            // SAFETY: the caller has room for `count` pointers.
            unsafe { pages.add(index).write(super::page(frame)) };
        }
        count
    }

    pub unsafe fn unpin_user_pages(pages: *mut *mut page, count: usize) {
        for index in 0..count {
            // SAFETY: the caller has `count` pointers there.
            super::unpin(super::frame(unsafe { *pages.add(index) }));
        }
    }

    pub unsafe fn unpin_user_pages_dirty_lock(pages: *mut *mut page, count: usize, _: bool) {
        // SAFETY: as the caller promised.
        unsafe { unpin_user_pages(pages, count) };
    }

    pub unsafe fn unpin_user_page_range_dirty_lock(first: *mut page, count: usize, _: bool) {
        (0..count).for_each(|index| super::unpin(super::frame(first) + index));
    }
}

/// The driver's own C functions.
pub mod ffi {
    use super::bindings::{mm_struct, page};

    pub unsafe fn gzvm_kx_page_to_pfn(of: *mut page) -> usize {
        super::frame(of)
    }

    pub unsafe fn gzvm_kx_charge_pinned(_: *mut mm_struct, pages: usize) -> i32 {
        super::host(|host| host.charged += pages);
        0
    }

    pub unsafe fn gzvm_kx_uncharge_pinned(_: *mut mm_struct, pages: usize) {
        super::host(|host| host.charged -= pages);
    }

    pub unsafe fn gzvm_kx_set_dirty(_: *mut page, _: usize) {}
}

pub mod error {
    /// Any error: none of them is expected.
    #[derive(Debug)]
    pub struct Error;

    impl<T: std::error::Error> From<T> for Error {
        fn from(_: T) -> Self {
            Self
        }
    }

    pub fn to_result(status: i32) -> Result<(), Error> {
        (status >= 0).then_some(()).ok_or(Error)
    }
}

pub mod page {
    pub const PAGE_SIZE: usize = 4096;
}

pub mod mm {
    use super::bindings::mm_struct;

    pub struct Mm(mm_struct);

    pub static ONLY: Mm = Mm(mm_struct);

    impl Mm {
        pub fn as_raw(&self) -> *mut mm_struct {
            std::ptr::from_ref(&self.0).cast_mut()
        }

        pub fn mmap_read_lock(&self) -> Vma {
            Vma
        }
    }

    pub struct Vma;

    impl Vma {
        pub fn vma_lookup(&self, _: usize) -> Option<Self> {
            Some(Self)
        }

        pub fn end(&self) -> usize {
            usize::MAX
        }
    }
}

/// The current task.
#[derive(Clone, Copy)]
pub struct Task;

impl Task {
    pub fn mm(self) -> Option<&'static &'static mm::Mm> {
        const MM: &&mm::Mm = &&mm::ONLY;
        Some(MM)
    }
}

#[macro_export]
macro_rules! current {
    () => {
        $crate::Task
    };
}

pub mod sync {
    pub mod aref {
        /// A counted reference to what is always there.
        pub struct ARef<T: 'static>(&'static T);

        impl<T> From<&'static T> for ARef<T> {
            fn from(value: &'static T) -> Self {
                Self(value)
            }
        }

        impl<T> Clone for ARef<T> {
            fn clone(&self) -> Self {
                Self(self.0)
            }
        }

        impl<T> std::ops::Deref for ARef<T> {
            type Target = T;

            fn deref(&self) -> &T {
                self.0
            }
        }
    }
}

pub mod prelude {
    pub use super::error::Error;
    use std::ops::{Deref, DerefMut};

    pub type Result<T = (), E = Error> = std::result::Result<T, E>;
    pub type c_int = i32;

    pub const ESRCH: Error = Error;
    pub const EIO: Error = Error;
    pub const EFAULT: Error = Error;

    pub struct Flags;
    pub const GFP_KERNEL: Flags = Flags;
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags;
    pub const GFP_NOWAIT: Flags = Flags;

    pub struct KBox<T>(Box<T>);

    impl<T> KBox<T> {
        pub fn new(value: T, _: Flags) -> Result<Self> {
            Ok(Self(Box::new(value)))
        }

        pub fn into_inner(this: Self) -> T {
            *this.0
        }
    }

    impl<T> Deref for KBox<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for KBox<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    /// A vector that grows only where it may.
    pub struct KVec<T>(Vec<T>, usize);

    impl<T> KVec<T> {
        pub const fn new() -> Self {
            Self(Vec::new(), 0)
        }

        pub fn with_capacity(capacity: usize, _: Flags) -> Result<Self> {
            Ok(Self(Vec::with_capacity(capacity), capacity))
        }

        pub fn capacity(&self) -> usize {
            self.1
        }

        pub fn spare_capacity_mut(&mut self) -> &mut [std::mem::MaybeUninit<T>] {
            self.0.spare_capacity_mut()
        }

        pub unsafe fn inc_len(&mut self, more: usize) {
            // SAFETY: as the caller promised.
            unsafe { self.0.set_len(self.0.len() + more) };
        }

        pub fn push(&mut self, value: T, _: Flags) -> Result {
            self.0.push(value);
            self.1 = self.1.max(self.0.len());
            Ok(())
        }

        pub fn pop(&mut self) -> Option<T> {
            self.0.pop()
        }

        pub fn extend_from_slice(&mut self, more: &[T], _: Flags) -> Result
        where
            T: Clone,
        {
            assert!(self.0.len() + more.len() <= self.1, "nothing is allocated");
            self.0.extend_from_slice(more);
            Ok(())
        }

        pub fn retain(&mut self, keep: impl FnMut(&mut T) -> bool) {
            self.0.retain_mut(keep);
        }

        pub fn clear(&mut self) {
            self.0.clear();
        }
    }

    impl<T> Deref for KVec<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }

    impl<T> DerefMut for KVec<T> {
        fn deref_mut(&mut self) -> &mut [T] {
            &mut self.0
        }
    }
}

pub mod rbtree {
    use super::prelude::{Flags, Result};
    use std::collections::BTreeMap;
    use std::marker::PhantomData;

    pub struct RBTree<K, V>(BTreeMap<K, V>);
    pub struct RBTreeNode<K, V>(K, V);
    pub struct RBTreeNodeReservation<K, V>(PhantomData<(K, V)>);

    impl<K, V> RBTreeNodeReservation<K, V> {
        pub fn new(_: Flags) -> Result<Self> {
            Ok(Self(PhantomData))
        }

        pub fn into_node(self, key: K, value: V) -> RBTreeNode<K, V> {
            RBTreeNode(key, value)
        }
    }

    impl<K, V> RBTreeNode<K, V> {
        pub fn to_key_value(self) -> (K, V) {
            (self.0, self.1)
        }

        pub fn into_reservation(self) -> RBTreeNodeReservation<K, V> {
            RBTreeNodeReservation(PhantomData)
        }
    }

    pub struct Cursor<'a, K, V>(&'a BTreeMap<K, V>, K);

    impl<K: Ord, V> Cursor<'_, K, V> {
        pub fn current(&self) -> (&K, &V) {
            self.0.get_key_value(&self.1).expect("a node")
        }

        pub fn peek_prev(&self) -> Option<(&K, &V)> {
            self.0.range(..&self.1).next_back()
        }
    }

    pub struct CursorMut<'a, K, V>(&'a mut BTreeMap<K, V>);

    impl<K: Ord, V> CursorMut<'_, K, V> {
        pub fn remove_current(self) -> ((), RBTreeNode<K, V>) {
            let (key, value) = self.0.pop_first().expect("a node");
            ((), RBTreeNode(key, value))
        }
    }

    impl<K: Ord + Copy, V> RBTree<K, V> {
        pub fn new() -> Self {
            Self(BTreeMap::new())
        }

        pub fn insert(&mut self, node: RBTreeNode<K, V>) -> Option<RBTreeNode<K, V>> {
            let RBTreeNode(key, value) = node;
            assert!(self.0.insert(key, value).is_none(), "two records at one frame");
            None
        }

        pub fn get(&self, key: &K) -> Option<&V> {
            self.0.get(key)
        }

        pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
            self.0.get_mut(key)
        }

        pub fn remove_node(&mut self, key: &K) -> Option<RBTreeNode<K, V>> {
            self.0.remove_entry(key).map(|(key, value)| RBTreeNode(key, value))
        }

        pub fn cursor_lower_bound(&self, key: &K) -> Option<Cursor<'_, K, V>> {
            self.0.range(key..).next().map(|(key, _)| Cursor(&self.0, *key))
        }

        pub fn cursor_back(&self) -> Option<Cursor<'_, K, V>> {
            self.0.last_key_value().map(|(key, _)| Cursor(&self.0, *key))
        }

        pub fn cursor_front_mut(&mut self) -> Option<CursorMut<'_, K, V>> {
            (!self.0.is_empty()).then_some(CursorMut(&mut self.0))
        }
    }
}
