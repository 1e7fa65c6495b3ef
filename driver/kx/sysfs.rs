// SPDX-License-Identifier: GPL-2.0

//! A directory under `/sys/kernel` with text attributes.
//!
//! C headers: `include/linux/kobject.h`, `include/linux/sysfs.h`.

use core::ptr::NonNull;
use kernel::{
    bindings,
    container_of,
    error::to_result,
    ffi::c_char,
    fmt::{
        self,
        Write, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::Formatter,
    sync::Arc,
    types::Opaque, //
};

/// An attribute: a file with one line.
pub(crate) struct Attribute<T: 'static> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// Prints the value.
    pub(crate) show: fn(&T, &mut Formatter<'_>) -> fmt::Result,
    /// Sets the value from what was written; `None` makes the file read-only.
    pub(crate) store: Option<fn(&T, &[u8]) -> Result>,
}

/// A directory of attributes of a `T`.
///
/// # Invariants
///
/// `kobject` is one reference to a kobject of this value's own; each entry is a file in it.
pub(crate) struct Directory<T: Send + Sync + 'static> {
    kobject: NonNull<bindings::kobject>,
    entries: KVec<Pin<KBox<Entry<T>>>>,
}

// SAFETY: Kobjects belong to no thread.
unsafe impl<T: Send + Sync> Send for Directory<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: Send + Sync> Sync for Directory<T> {}

#[pin_data]
struct Entry<T: 'static> {
    #[pin]
    raw: Opaque<bindings::kobj_attribute>,
    attribute: &'static Attribute<T>,
    data: Arc<T>,
}

impl<T: Send + Sync> Directory<T> {
    /// Creates `/sys/kernel/<name>` with the attributes. What was made is removed on failure.
    pub(crate) fn new(
        name: &CStr,
        data: &Arc<T>,
        attributes: &'static [Attribute<T>],
    ) -> Result<Self> {
        let kobject =
            // SAFETY: `kernel_kobj` is set at boot and never changes; the name is copied.
            unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), bindings::kernel_kobj) };
        // INVARIANT: the call returned a reference; there are no entries yet.
        let kobject = NonNull::new(kobject).ok_or(ENOMEM)?;
        let mut directory = Self { kobject, entries: KVec::new() };
        for attribute in attributes {
            directory.add(attribute, data.clone())?;
        }
        Ok(directory)
    }

    fn add(&mut self, attribute: &'static Attribute<T>, data: Arc<T>) -> Result {
        self.entries.reserve(1, GFP_KERNEL)?;
        let raw = Opaque::new(Entry::<T>::raw(attribute));
        let entry = KBox::pin_init(pin_init!(Entry { raw, attribute, data }), GFP_KERNEL)?;
        // SAFETY: The kobject is ours and in sysfs; the attribute is pinned and outlives the file,
        // which is removed before the entry is dropped.
        to_result(unsafe {
            let attr = &raw const (*entry.raw.get()).attr;
            bindings::sysfs_create_file_ns(self.kobject.as_ptr(), attr, core::ptr::null())
        })?;
        // INVARIANT: the file was just made.
        self.entries.push(entry, GFP_KERNEL)?;
        Ok(())
    }
}

impl<T: Send + Sync> Drop for Directory<T> {
    fn drop(&mut self) {
        for entry in &self.entries {
            // SAFETY: By the type invariant the file is in our kobject. The call waits for readers
            // and writers to leave.
            unsafe {
                let attr = &raw const (*entry.raw.get()).attr;
                bindings::sysfs_remove_file_ns(self.kobject.as_ptr(), attr, core::ptr::null())
            };
        }
        // SAFETY: By the type invariant the reference is ours to give back.
        unsafe { bindings::kobject_put(self.kobject.as_ptr()) };
    }
}

impl<T: 'static> Entry<T> {
    fn raw(attribute: &'static Attribute<T>) -> bindings::kobj_attribute {
        let mut raw = bindings::kobj_attribute::default();
        raw.attr.name = attribute.name.as_char_ptr();
        raw.attr.mode = if attribute.store.is_some() { 0o660 } else { 0o444 };
        #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
        {
            raw.attr.key = kernel::static_lock_class!().as_ptr();
        }
        raw.__bindgen_anon_1.show = Some(Self::show);
        raw.__bindgen_anon_2.store = attribute.store.map(|_| Self::store as _);
        raw
    }

    /// # Safety
    ///
    /// `raw` must be the `raw` of an entry that lives as long as the returned reference.
    unsafe fn from_raw<'a>(raw: *mut bindings::kobj_attribute) -> &'a Self {
        // SAFETY: This function's contract.
        unsafe { &*container_of!(Opaque::cast_from(raw), Self, raw) }
    }

    /// # Safety
    ///
    /// Only to be called by sysfs for an attribute of a [`Directory`] of `T`.
    unsafe extern "C" fn show(
        _kobject: *mut bindings::kobject,
        raw: *mut bindings::kobj_attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: The file exists during the call, so its entry does.
        let this = unsafe { Self::from_raw(raw) };
        // SAFETY: sysfs gives a zeroed buffer of one page that nobody else uses during the call.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE) };
        let mut text = Formatter::new(buffer);
        let printed = (this.attribute.show)(&this.data, &mut text);
        match printed.and_then(|()| text.write_char('\n')) {
            Ok(()) => text.bytes_written() as isize,
            Err(fmt::Error) => EIO.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// Only to be called by sysfs for an attribute of a [`Directory`] of `T`.
    unsafe extern "C" fn store(
        _kobject: *mut bindings::kobject,
        raw: *mut bindings::kobj_attribute,
        buffer: *const c_char,
        count: usize,
    ) -> isize {
        // SAFETY: The file exists during the call, so its entry does.
        let this = unsafe { Self::from_raw(raw) };
        // SAFETY: sysfs gives a buffer of `count` bytes that does not change during the call.
        let text = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), count) };
        match this.attribute.store.map(|store| store(&this.data, text)) {
            Some(Ok(())) => count as isize,
            Some(Err(error)) => error.to_errno() as isize,
            None => EACCES.to_errno() as isize,
        }
    }
}
