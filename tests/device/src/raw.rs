// SPDX-License-Identifier: Apache-2.0
//! A hostile host kernel: what the test module `raw/gzvm_raw.c` does for us, where it is loaded.
//!
//! Numbers and structures are that file's. Nothing here keeps a test from destroying the host: a
//! block that a guest has must not be freed or read as if it were the host's.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use gzvm_abi::{ext, hvc};

use crate::mapping::{Mapping, PAGE};
use crate::sys::{self, Result};

/// Where the module's device is.
const PATH: &str = "/dev/gzvm_raw";

const fn read_write(number: u32, size: usize) -> u32 {
    // CAST: structures of a few words; the size field has 14 bits.
    3 << 30 | (size as u32) << 16 | (b'R' as u32) << 8 | number
}

const HVC: u32 = read_write(1, size_of::<[u64; 8]>());
const ALLOC: u32 = read_write(2, size_of::<[u64; 2]>());
const FREE: u32 = read_write(3, size_of::<[u64; 2]>()) & !(2 << 30);
const PHYS: u32 = read_write(4, size_of::<[u64; 2]>());
const TOUCH: u32 = read_write(5, size_of::<Touch>());
const COPY: u32 = read_write(6, size_of::<[u64; 4]>());

/// One or two accesses from the kernel's own map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    pa: u64,
    gate: u64,
    value: u64,
    write: u64,
    before: u64,
    after: u64,
}

/// The module.
#[derive(Clone)]
pub struct Raw(Arc<File>);

impl Raw {
    /// The module's device, if it is loaded and we are root.
    pub fn open() -> Option<Self> {
        let file = File::options().read(true).write(true).open(PATH).ok()?;
        Some(Self(Arc::new(file)))
    }

    /// The module's device.
    ///
    /// # Panics
    ///
    /// Without it: tests that call this say so in their needs.
    pub fn get() -> Self {
        Self::open().expect("the test module is loaded")
    }

    /// A hypercall with these registers; answers x0 to x3.
    pub fn hvc(&self, mut registers: [u64; 8]) -> [u64; 4] {
        sys::ioctl(&*self.0, HVC, &mut registers).expect("hypercall");
        let [x0, x1, x2, x3, ..] = registers;
        [x0, x1, x2, x3]
    }

    /// One of the driver's calls: the status, and x1 to x3.
    pub fn call(&self, function: u32, arguments: &[u64]) -> (i32, [u64; 3]) {
        let mut registers = [0; 8];
        registers[0] = u64::from(function);
        for (register, argument) in registers.iter_mut().skip(1).zip(arguments) {
            *register = *argument;
        }
        let [x0, x1, x2, x3] = self.hvc(registers);
        // CAST: the status is the low half.
        (x0 as i32, [x1, x2, x3])
    }

    /// As [`Self::call`], for the status alone.
    pub fn status(&self, function: u32, arguments: &[u64]) -> i32 {
        self.call(function, arguments).0
    }

    /// Physically contiguous memory, zeroed.
    pub fn alloc(&self, size: u64) -> Block {
        let mut request = [size, 0];
        sys::ioctl(&*self.0, ALLOC, &mut request).expect("contiguous memory");
        let [_, pa] = request;
        let mapping = self.map(pa, size);
        Block { raw: self.clone(), pa, mapping }
    }

    /// Any physical memory, mapped into this process.
    pub fn map(&self, pa: u64, size: u64) -> Mapping {
        Mapping::of_file(&self.0, pa, size)
    }

    /// The physical address behind an address of this process.
    pub fn phys(&self, address: u64) -> Result<u64> {
        let mut request = [address, 0];
        sys::ioctl(&*self.0, PHYS, &mut request)?;
        Ok(request[1])
    }

    /// Reads a word of memory from the kernel's own map.
    pub fn read(&self, pa: u64) -> Result<u64> {
        let mut touch = Touch { pa, ..Touch::default() };
        sys::ioctl(&*self.0, TOUCH, &mut touch)?;
        Ok(touch.before)
    }

    /// Writes a word of memory through the kernel's own map; answers what is there then.
    pub fn write(&self, pa: u64, value: u64) -> Result<u64> {
        let mut touch = Touch { pa, value, write: 1, ..Touch::default() };
        sys::ioctl(&*self.0, TOUCH, &mut touch)?;
        Ok(touch.before)
    }

    /// Accesses a word, waits at the gate, and accesses it again, without leaving the CPU. A write
    /// stores `value` and later its complement. Answers what was there after each access.
    pub fn touch_twice(&self, pa: u64, write: Option<u64>, gate: &Gate) -> Result<(u64, u64)> {
        let mut touch = Touch {
            pa,
            gate: gate.0.pa,
            value: write.unwrap_or(0),
            write: u64::from(write.is_some()),
            ..Touch::default()
        };
        sys::ioctl(&*self.0, TOUCH, &mut touch)?;
        Ok((touch.before, touch.after))
    }

    /// Has the kernel read a word of this process's memory; answers it and the bytes that it could
    /// not read.
    pub fn copy_from_user(&self, address: u64) -> (u64, u64) {
        let mut request = [address, 0, 0, 0];
        sys::ioctl(&*self.0, COPY, &mut request).expect("copy");
        (request[1], request[3])
    }

    /// Has the kernel write a word into this process's memory; answers the bytes that it could not
    /// write.
    pub fn copy_to_user(&self, address: u64, value: u64) -> u64 {
        let mut request = [address, value, 1, 0];
        sys::ioctl(&*self.0, COPY, &mut request).expect("copy");
        request[3]
    }

    /// Compares the hypervisor's tables, where it has the extension for tests.
    pub fn audit(&self) -> Option<Audit> {
        let (status, [wrong, used, vms]) = self.call(hvc::ENABLE_CAP, &[0, ext::TEST_AUDIT]);
        (status == hvc::NO_ERROR).then_some(Audit { wrong, used, vms })
    }
}

/// What the hypervisor's audit found ([`ext::TEST_AUDIT`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Pages whose translation and ownership disagree.
    pub wrong: u64,
    /// Pages in use by guests.
    pub used: u64,
    /// VMs alive.
    pub vms: u64,
}

/// Physically contiguous memory, mapped into this process too. A test that gave it to a guest takes
/// it back before it is dropped; if it dies before, the module keeps the memory for ever.
pub struct Block {
    raw: Raw,
    /// Its physical address.
    pub pa: u64,
    /// The memory.
    pub mapping: Mapping,
}

impl Block {
    /// The number of its first physical frame.
    pub fn pfn(&self) -> u64 {
        self.pa / PAGE
    }

    /// Size in pages.
    pub fn pages(&self) -> u64 {
        self.mapping.size() / PAGE
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // A test that failed may have left its VM behind: better to lose the memory. Nobody uses the
        // mapping any more, which goes right after this.
        if !std::thread::panicking() {
            let mut request = [self.mapping.size(), self.pa];
            sys::ioctl(&*self.raw.0, FREE, &mut request).expect("free");
        }
    }
}

/// A word that the kernel waits at.
pub struct Gate(Block);

impl Gate {
    /// A new one.
    pub fn new(raw: &Raw) -> Self {
        Self(raw.alloc(PAGE))
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the block's first word is mapped as long as `self` lives, aligned, and accessed
        // by nobody but through this function and by the module, atomically.
        unsafe { AtomicU64::from_ptr(self.0.mapping.address() as *mut u64) }
    }

    /// Waits until the kernel has made its first access.
    pub fn wait(&self) {
        while self.word().load(Ordering::Acquire) != 1 {
            std::thread::yield_now();
        }
    }

    /// Waits here in the kernel's place.
    pub fn pass(&self) {
        self.word().store(1, Ordering::Release);
        while self.word().load(Ordering::Acquire) != 2 {
            std::hint::spin_loop();
        }
    }

    /// Lets the kernel make its second access.
    pub fn open(&self) {
        self.word().store(2, Ordering::Release);
    }
}

/// Makes this thread run on one CPU.
///
/// # Panics
///
/// When the machine has no such CPU.
pub fn pin_to_cpu(cpu: usize) {
    // SAFETY: the set is valid when zeroed; the index is below its size.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert!(cpu < 1024);
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(done, 0, "CPU {cpu}: {}", std::io::Error::last_os_error());
}

/// The descriptor, for calls that take one.
impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
