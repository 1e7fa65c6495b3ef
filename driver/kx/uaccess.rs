// SPDX-License-Identifier: GPL-2.0

//! Single words of user memory, for which `kernel::uaccess` has copies of slices only.
//!
//! C header: `include/linux/uaccess.h`.

use super::ffi;
use kernel::prelude::*;

/// Writes a word to the current process's memory, for a caller that may sleep.
pub(crate) fn put_u32(address: usize, value: u32) -> Result {
    if ffi::gzvm_kx_put_u32(address, value) {
        Ok(())
    } else {
        Err(EFAULT)
    }
}
