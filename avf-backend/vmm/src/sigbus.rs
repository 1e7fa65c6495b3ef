// SPDX-License-Identifier: Apache-2.0
//! What happens when a device touches memory of a protected guest that the guest did not share:
//! the host's hypervisor makes the access a SIGBUS, and this process ends with one line that says
//! what the guest lacks, instead of a core dump or a hang.

use crate::layout::Region;
use crate::status::ExitStatus;
use nix::libc::{self, c_int, c_void, siginfo_t};
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm_sys_util::signal::register_signal_handler;

/// Guest memory as the handler finds it: it must not lock or allocate.
static PARTS: [Part; 4] = [const { Part::new() }; 4];

struct Part {
    /// First address in this process.
    host: AtomicU64,
    /// First guest physical address.
    guest: AtomicU64,
    /// Bytes; 0 is an unused entry.
    size: AtomicU64,
}

impl Part {
    const fn new() -> Self {
        Self { host: AtomicU64::new(0), guest: AtomicU64::new(0), size: AtomicU64::new(0) }
    }

    fn find(&self, host: u64) -> Option<u64> {
        let offset = host.checked_sub(self.host.load(Ordering::Relaxed))?;
        (offset < self.size.load(Ordering::Relaxed))
            .then(|| self.guest.load(Ordering::Relaxed) + offset)
    }
}

/// Handles accesses to `parts`, pairs of an address in this process and the guest's region there.
pub fn watch(parts: impl Iterator<Item = (u64, Region)>) -> io::Result<()> {
    for (entry, (host, region)) in PARTS.iter().zip(parts) {
        entry.host.store(host, Ordering::Relaxed);
        entry.guest.store(region.start, Ordering::Relaxed);
        entry.size.store(region.size, Ordering::Relaxed);
    }
    register_signal_handler(libc::SIGBUS, handle)?;
    Ok(())
}

extern "C" fn handle(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    // CAST: addresses have 64 bits on the supported machines.
    let guest = PARTS.iter().find_map(|part| part.find(address as u64));
    let mut line = Line::default();
    // A line that is cut is better than none.
    let _ = match guest {
        Some(guest) => writeln!(
            line,
            "gzvm_vmm: error: {}: guest address {guest:#x} is private: the guest lacks restricted \
             DMA for this device",
            thread_name()
        ),
        None => writeln!(line, "gzvm_vmm: error: bus error at {address:#x}"),
    };
    // SAFETY: the call is async-signal-safe; the buffer is valid for its length.
    unsafe { libc::write(libc::STDERR_FILENO, line.text.as_ptr().cast(), line.len) };
    // virtmgr has no standard error on Android. The thread was accessing guest memory, so it holds
    // none of the locks that logging takes.
    if cfg!(target_os = "android") {
        log::error!("{}", line.text().trim_end());
    }
    // SAFETY: the call is async-signal-safe.
    unsafe { libc::_exit(ExitStatus::Crash.code().into()) };
}

/// A line of text without memory allocation.
struct Line {
    text: [u8; 256],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { text: [0; 256], len: 0 }
    }
}

impl Line {
    fn text(&self) -> &str {
        // Only whole strings were written.
        std::str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.text.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Device threads are named after their devices.
struct ThreadName([u8; 16]);

fn thread_name() -> ThreadName {
    let mut name = [0; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, and is a plain system call.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    ThreadName(name)
}

impl std::fmt::Display for ThreadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        f.write_str(std::str::from_utf8(&self.0[..len]).unwrap_or("a device"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_not_overrun() {
        let mut line = Line::default();
        assert!(write!(line, "{}", "x".repeat(200)).is_ok());
        assert!(write!(line, "{}", "y".repeat(100)).is_err());
        assert_eq!(line.len, 200);
    }

    #[test]
    fn addresses_are_translated() {
        let part = Part::new();
        assert_eq!(part.find(5), None);
        part.host.store(0x1000, Ordering::Relaxed);
        part.guest.store(0x8000_0000, Ordering::Relaxed);
        part.size.store(0x10, Ordering::Relaxed);
        assert_eq!((part.find(0x100f), part.find(0x1010)), (Some(0x8000_000f), None));
    }

    #[test]
    fn threads_have_names() {
        let thread = std::thread::Builder::new().name("disk0".into());
        let name = thread.spawn(|| thread_name().to_string()).unwrap().join().unwrap();
        assert_eq!(name, "disk0");
    }
}
