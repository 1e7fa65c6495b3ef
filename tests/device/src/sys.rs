// SPDX-License-Identifier: Apache-2.0
//! System calls as tests need them: errors are errnos, arguments may be garbage.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use gzvm_abi::{cap, uapi};

/// An errno, or what a call returned.
pub type Result<T> = std::result::Result<T, i32>;

/// The errno of the last call of this thread.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Issues an ioctl with an argument that is a number, or an address that may be bad.
pub fn ioctl_raw(fd: &impl AsRawFd, number: u32, argument: usize) -> Result<i32> {
    // CAST: the type of ioctl's number differs between C libraries; all of them keep 32 bits.
    let number = number as libc::Ioctl;
    // SAFETY: gzvm's ioctls touch user memory through the kernel's checked accessors, so a bad address
    // is refused. Tests pass addresses of live memory, or of none.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), number, argument) };
    if answer < 0 {
        Err(errno())
    } else {
        Ok(answer)
    }
}

/// Issues an ioctl whose argument is read, and perhaps written, by the kernel.
pub fn ioctl<T>(fd: &impl AsRawFd, number: u32, argument: &mut T) -> Result<i32> {
    ioctl_raw(fd, number, std::ptr::from_mut(argument) as usize)
}

/// Issues an ioctl that returns a file descriptor.
pub fn ioctl_fd(fd: &impl AsRawFd, number: u32, argument: usize) -> Result<OwnedFd> {
    let fd = ioctl_raw(fd, number, argument)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens `/dev/gzvm`.
pub fn open_device() -> io::Result<File> {
    File::options().read(true).write(true).open(uapi::DEVICE_PATH)
}

/// Asks for an extension.
pub fn check_extension(fd: &impl AsRawFd, capability: u64) -> Result<u64> {
    let mut value = capability;
    ioctl(fd, uapi::CHECK_EXTENSION, &mut value)?;
    Ok(value)
}

/// Do guests get the pages that their owner replaces? Of `/dev/gzvm` or a VM.
pub fn follows_owner(fd: &impl AsRawFd) -> bool {
    check_extension(fd, cap::SYNC_MMU) == Ok(1)
}

/// Sets a memory slot.
pub fn set_region(
    fd: &impl AsRawFd,
    slot: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
) -> Result<()> {
    let flags = uapi::MEM_REGION_GUEST_MEM;
    let mut region =
        uapi::UserspaceMemoryRegion { slot, flags, guest_phys_addr, memory_size, userspace_addr };
    ioctl(fd, uapi::SET_USER_MEMORY_REGION, &mut region).map(|_| ())
}

/// The limits of this process's descriptors.
pub fn descriptor_limits() -> libc::rlimit {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is live.
    let answer = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) };
    assert_eq!(answer, 0, "getrlimit: {}", io::Error::last_os_error());
    limits
}

/// Limits the descriptors of this process; those that are open stay so.
pub fn limit_descriptors(limits: libc::rlimit) {
    // SAFETY: the structure is live.
    let answer = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limits) };
    assert_eq!(answer, 0, "setrlimit: {}", io::Error::last_os_error());
}

/// Runs `f` in a child process; answers its exit status, or the negative number of the signal that
/// killed it.
pub fn in_child(f: impl FnOnce() -> u8) -> i32 {
    wait_for(spawn(f))
}

/// Starts `f` in a child process, to be waited for by [`wait_for`].
pub fn spawn(f: impl FnOnce() -> u8) -> libc::pid_t {
    // SAFETY: the child runs only `f` and leaves through `_exit`. Test programs run tests in one
    // thread, so no lock can be held by a thread that the child does not have.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(status)) }
        }
        child => child,
    }
}

/// Waits for a child; answers as [`in_child`].
pub fn wait_for(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is live.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child, "waitpid: {}", io::Error::last_os_error());
    if libc::WIFSIGNALED(status) {
        -libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

/// A field of `/proc/<process>/status` in its unit (kB or a number).
pub fn status_field(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|line| line.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in status"))
}
