// SPDX-License-Identifier: Apache-2.0
//! Lists of composite disks. Paths in them are not opened for writing.

#![no_main]

use gzvm_vmm::disk;
use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use std::io::Write;
use std::os::fd::AsRawFd;

fuzz_target!(|list: &[u8]| {
    let Ok(fd) = memfd_create(c"list", MemFdCreateFlag::empty()) else { return };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut file = std::fs::File::from(fd);
    if file.write_all(b"composite_disk\x1d").and_then(|()| file.write_all(list)).is_err() {
        return;
    }
    if let Ok(disk) = disk::open(path.as_ref(), false) {
        let mut sector = [0; 512];
        // Whether it can be read is the files' business.
        let _ = disk.read_at(&mut sector, disk.size().saturating_sub(512));
    }
});
