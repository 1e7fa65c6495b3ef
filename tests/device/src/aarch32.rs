// SPDX-License-Identifier: Apache-2.0
//! Processes in AArch32 state, which a CPU and its kernel may have at EL0: programs of a few A32
//! instructions, in an executable that is made here.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::mapping::memfd;
use crate::sys;

/// Where the executable is loaded.
const BASE: u32 = 0x1_0000;
/// Bytes of the ELF header and of two program headers.
const HEADERS: u32 = 52 + 2 * 32;
/// The descriptor that a program finds open.
pub const FD: u16 = 100;
/// Exit status of a process that could not become the program.
const NO_EXEC: u8 = 126;

/// `movw r<register>, #value`: the register becomes these 16 bits.
pub const fn movw(register: u32, value: u16) -> u32 {
    // CAST: widening.
    let value = value as u32;
    0xe300_0000 | (value >> 12) << 16 | register << 12 | value & 0xfff
}

/// `svc #0`: the system call in r7.
pub const SVC: u32 = 0xef00_0000;

/// An ELF file for 32-bit Arm: code and data in one readable segment, entered at its start.
fn executable(code: &[u32], data: &[u8]) -> Vec<u8> {
    // CAST: a few words.
    let size = HEADERS + 4 * code.len() as u32 + data.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    // Executable, Arm.
    file.extend([2u16, 40].iter().flat_map(|half| half.to_le_bytes()));
    // Version, entry, program headers, no sections, EABI version 5.
    let words = [1, BASE + HEADERS, 52, 0, 0x0500_0000u32];
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    // Sizes of headers; two program headers, no sections.
    file.extend([52u16, 32, 2, 40, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // To be loaded, readable and executable; a stack that is not executable.
    let load = [1, 0, BASE, BASE, size, size, 5, 0x1000u32];
    let stack = [0x6474_e551, 0, 0, 0, 0, 0, 6, 16u32];
    file.extend(load.iter().chain(&stack).chain(code).flat_map(|word| word.to_le_bytes()));
    file.extend(data);
    file
}

/// Runs a program with this descriptor as [`FD`]; answers as [`sys::in_child`], or nothing where
/// there is no AArch32.
pub fn run(code: &[u32], data: &[u8], fd: BorrowedFd<'_>) -> Option<i32> {
    let mut file = memfd(0);
    file.write_all(&executable(code, data)).expect("memfd");
    let name = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a name");
    let status = sys::in_child(|| {
        let none: [*const libc::c_char; 1] = [std::ptr::null()];
        // SAFETY: the strings end with 0 and the lists with a null pointer; the child has no other
        // use for its descriptors.
        unsafe {
            libc::dup2(fd.as_raw_fd(), i32::from(FD));
            libc::execve(name.as_ptr(), [name.as_ptr(), std::ptr::null()].as_ptr(), none.as_ptr());
        }
        NO_EXEC
    });
    (status != i32::from(NO_EXEC)).then_some(status)
}
