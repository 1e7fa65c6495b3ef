// SPDX-License-Identifier: GPL-2.0

//! Ioctl arguments.

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// Copies a value in from user space.
pub(crate) fn read<T: FromBytes + IntoBytes>(address: usize) -> Result<T> {
    let mut value = T::new_zeroed();
    read_bytes(address, value.as_mut_bytes())?;
    Ok(value)
}

/// Copies bytes in from user space.
pub(crate) fn read_bytes(address: usize, bytes: &mut [u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(address), bytes.len()).reader().read_slice(bytes)
}

/// Copies a value out to user space.
pub(crate) fn write<T: IntoBytes + Immutable>(address: usize, value: &T) -> Result {
    write_bytes(address, value.as_bytes())
}

/// Copies bytes out to user space.
pub(crate) fn write_bytes(address: usize, bytes: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(address), bytes.len()).writer().write_slice(bytes)
}

/// An address that user space put into a 64-bit field.
pub(crate) fn address(field: u64) -> Result<usize> {
    usize::try_from(field).map_err(|_| EFAULT)
}
