// SPDX-License-Identifier: GPL-2.0

//! Files without a name in the file system, whose private data is an [`Arc`].
//!
//! C header: `include/linux/anon_inodes.h`.

use super::ffi;
use core::marker::PhantomData;
use kernel::{
    bindings,
    error::from_err_ptr,
    ffi::{
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    fs::file::{
        File,
        FileDescriptorReservation, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable,
    ModuleMetadata, //
};

/// An object behind a file descriptor.
pub(crate) trait AnonFile: Send + Sync + Sized + 'static {
    /// The module that the file's code is in; it stays loaded while the file is open.
    type OwnerModule: ModuleMetadata;

    /// Handles an ioctl.
    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize>;
}

struct Operations<T>(PhantomData<T>);

impl<T: AnonFile> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: kernel::module::this_module::<T::OwnerModule>().as_ptr(),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: bindings::compat_ptr_ioctl,
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Only to be called by the VFS, as `unlocked_ioctl` of a file that [`install`] made for `T`.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: By this function's contract the file is open for the whole call, its private data
        // came from `Arc::<T>::into_foreign` and goes back only in `release`.
        let this = unsafe { <Arc<T> as ForeignOwnable>::borrow((*file).private_data) };
        match T::ioctl(this, cmd, arg) {
            Ok(value) => value as c_long,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// Only to be called by the VFS, as `release` of a file that [`install`] made for `T`.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By this function's contract the private data came from `Arc::<T>::into_foreign`;
        // the VFS calls this once, after which nobody uses the file.
        drop(unsafe { <Arc<T> as ForeignOwnable>::from_foreign((*file).private_data) });
        0
    }
}

/// Opens a file for the object in the current process and returns the descriptor. The file becomes
/// visible to user space as the last step; on failure the object is dropped.
pub(crate) fn install<T: AnonFile>(name: &CStr, object: Arc<T>) -> Result<isize> {
    let flags = bindings::O_RDWR | bindings::O_CLOEXEC;
    let fd = FileDescriptorReservation::get_unused_fd_flags(bindings::O_CLOEXEC)?;
    let private = object.into_foreign();
    // SAFETY: `name` is NUL-terminated and copied; the table is static data of the module that its
    // `owner` names, which the file keeps loaded; `private` is owned by the file from now on.
    let file = from_err_ptr(unsafe {
        ffi::anon_inode_getfile(
            name.as_char_ptr(),
            &Operations::<T>::TABLE,
            private,
            flags as c_int,
        )
    })
    .inspect_err(|_| {
        // SAFETY: No file was made, so the pointer that `into_foreign` gave is still ours alone.
        drop(unsafe { <Arc<T> as ForeignOwnable>::from_foreign(private) });
    })?;
    let file = core::ptr::NonNull::new(file).ok_or(ENOMEM)?;
    // SAFETY: The call above returned a file with one reference, which is ours, and nobody else can
    // have started an `fdget_pos` on it. `File` is a transparent wrapper of `struct file`.
    let file = unsafe { ARef::<File>::from_raw(file.cast()) };
    let number = fd.reserved_fd();
    fd.fd_install(file);
    Ok(number as isize)
}
