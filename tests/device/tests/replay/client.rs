// SPDX-License-Identifier: Apache-2.0
//! The user ABI once more, by numbers and offsets: what clients were compiled with. Nothing here
//! comes from the ABI crate, so that a slip there does not go unnoticed.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use gzvm_device_test::sys::{errno, Result};

pub const CREATE_VM: u32 = 0x9201;
pub const CHECK_EXTENSION: u32 = 0x9203;
pub const CREATE_VCPU: u32 = 0x9241;
pub const SET_USER_MEMORY_REGION: u32 = 0x4020_9246;
pub const IRQ_LINE: u32 = 0x4008_9261;
pub const IRQFD: u32 = 0x4020_9276;
pub const IOEVENTFD: u32 = 0x4040_9279;
pub const RUN: u32 = 0x9280;
pub const ENABLE_CAP: u32 = 0x4030_92a3;
pub const GET_ONE_REG: u32 = 0x4010_92ab;
pub const SET_ONE_REG: u32 = 0x4010_92ac;
pub const CREATE_DEVICE: u32 = 0xc030_92e0;
pub const SET_DTB_CONFIG: u32 = 0x4010_92ff;

pub const CAP_GPA_SIZE: u64 = 0xa5;
pub const CAP_PROTECTED: u64 = 0xffba_dab1;
pub const CAP_IDLE: u64 = 0x9203;

pub const X0: u64 = 0x6030_0000_0010_0000;
pub const PC: u64 = 0x6030_0000_0010_0040;
pub const PSTATE: u64 = 0x6030_0000_0010_0042;

pub const EXIT_MMIO: u32 = 0x9292_0001;
pub const EXIT_SYSTEM_EVENT: u32 = 0x9292_0008;
pub const SYSTEM_EVENT_RESET: u32 = 2;

/// Fields of a structure: offset, width in bytes, value. All else is zero.
type Fields<'a> = &'a [(usize, usize, u64)];

/// A structure of so many bytes.
pub fn lay(size: usize, fields: Fields) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (offset, width, value) in fields {
        bytes[*offset..offset + width].copy_from_slice(&value.to_le_bytes()[..*width]);
    }
    bytes
}

/// A field of a structure.
pub fn field(bytes: &[u8], offset: usize, width: usize) -> u64 {
    let mut word = [0; 8];
    word[..width].copy_from_slice(&bytes[offset..offset + width]);
    u64::from_le_bytes(word)
}

/// An ioctl with a number for an argument.
pub fn by_value(fd: &impl AsRawFd, number: u32, value: u64) -> Result<i32> {
    // CAST: the type of ioctl's number differs between C libraries; all of them keep 32 bits.
    let number = number as libc::Ioctl;
    // SAFETY: the kernel checks addresses; numbers that are none are refused.
    match unsafe { libc::ioctl(fd.as_raw_fd(), number, value) } {
        answer if answer < 0 => Err(errno()),
        answer => Ok(answer),
    }
}

/// An ioctl with a structure, which the kernel may write to.
pub fn by_pointer(fd: &impl AsRawFd, number: u32, bytes: &mut [u8]) -> Result<i32> {
    by_value(fd, number, bytes.as_mut_ptr() as u64)
}

/// An ioctl with a structure of these fields.
pub fn call(fd: &impl AsRawFd, number: u32, size: usize, fields: Fields) -> Result<i32> {
    by_pointer(fd, number, &mut lay(size, fields))
}

/// An ioctl that returns a descriptor.
pub fn descriptor(fd: &impl AsRawFd, number: u32, value: u64) -> Result<OwnedFd> {
    let fd = by_value(fd, number, value)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the device and makes a VM.
pub fn open() -> (File, OwnedFd) {
    let device = File::options().read(true).write(true).open("/dev/gzvm").expect("/dev/gzvm");
    let vm = descriptor(&device, CREATE_VM, 0).expect("CREATE_VM");
    (device, vm)
}

/// CHECK_EXTENSION through a pointer: the answer, and the value behind the pointer.
pub fn extension(fd: &impl AsRawFd, capability: u64) -> (Result<i32>, u64) {
    let mut value = lay(8, &[(0, 8, capability)]);
    let answer = by_pointer(fd, CHECK_EXTENSION, &mut value);
    (answer, field(&value, 0, 8))
}

/// A memory slot.
pub fn slot(vm: &OwnedFd, slot: u64, flags: u64, gpa: u64, size: u64, address: u64) -> Result<i32> {
    let fields = [(0, 4, slot), (4, 4, flags), (8, 8, gpa), (16, 8, size), (24, 8, address)];
    call(vm, SET_USER_MEMORY_REGION, 32, &fields)
}

/// A device of type 0 (distributor) or 1 (redistributors).
pub fn device(vm: &OwnedFd, kind: u64, address: u64, size: u64) -> Result<i32> {
    call(vm, CREATE_DEVICE, 48, &[(0, 4, kind), (16, 8, address), (24, 8, size)])
}

/// Writes a register.
pub fn set_reg(vcpu: &OwnedFd, id: u64, value: u64) -> Result<i32> {
    let value = value.to_le_bytes();
    call(vcpu, SET_ONE_REG, 16, &[(0, 8, id), (8, 8, value.as_ptr() as u64)])
}

/// An interrupt through an eventfd.
pub fn irqfd(vm: &OwnedFd, fd: i32, gsi: u64, flags: u64, resample: i32) -> Result<i32> {
    let [fd, resample] = [fd, resample].map(|fd| u64::try_from(fd).expect("descriptor"));
    call(vm, IRQFD, 32, &[(0, 4, fd), (4, 4, gsi), (8, 4, flags), (12, 4, resample)])
}

/// An eventfd for writes of a value, or of any.
pub fn ioeventfd(
    vm: &OwnedFd,
    fd: i32,
    address: u64,
    len: u64,
    value: Option<u64>,
    gone: bool,
) -> Result<i32> {
    let flags = u64::from(value.is_some()) | u64::from(gone) << 2;
    let fd = u64::try_from(fd).expect("descriptor");
    let datamatch = (0, 8, value.unwrap_or(0));
    let fields = [datamatch, (8, 8, address), (16, 4, len), (20, 4, fd), (24, 4, flags)];
    call(vm, IOEVENTFD, 64, &fields)
}

thread_local! {
    /// Where this thread's run structure is, for its signal handler.
    static RUNNING: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// The clients' handler: the next RUN, and the one that the kernel restarts, ends at once.
extern "C" fn kick(_: libc::c_int) {
    let run = RUNNING.get();
    if !run.is_null() {
        // SAFETY: the structure lives while the pointer is set; offset 4 is `immediate_exit`.
        unsafe { run.add(4).write_volatile(1) };
    }
}

/// Installs the clients' handler, with SA_RESTART as they do.
pub fn install_kick() {
    // SAFETY: the structure is valid when zeroed and then filled; the handler stores one byte.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = kick as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
}

/// A run structure of 264 bytes in ordinary memory, four bytes off its usual alignment.
pub struct RunBuffer {
    memory: Box<[u8; 280]>,
}

const RUN_SIZE: usize = 264;
const SKEW: usize = 4;

impl RunBuffer {
    /// An empty one.
    pub fn new() -> Self {
        Self { memory: Box::new([0; 280]) }
    }

    /// The structure.
    pub fn bytes(&mut self) -> &mut [u8] {
        let start = self.memory.as_ptr().align_offset(8) + SKEW;
        &mut self.memory[start..start + RUN_SIZE]
    }

    /// RUN, with the handler looking after this structure.
    pub fn run(&mut self, vcpu: &OwnedFd) -> Result<u32> {
        let bytes = self.bytes();
        let address = bytes.as_mut_ptr();
        RUNNING.set(address);
        let answer = by_value(vcpu, RUN, address as u64);
        RUNNING.set(std::ptr::null_mut());
        // SAFETY: our own structure, which the handler may just have written to.
        unsafe { address.add(4).write_volatile(0) };
        answer?;
        u32::try_from(field(self.bytes(), 0, 4)).map_err(|_| libc::ERANGE)
    }

    /// Runs until the guest stores something, starting again after each kick; answers address and
    /// value.
    pub fn stored(&mut self, vcpu: &OwnedFd) -> (u64, u64) {
        loop {
            match self.run(vcpu) {
                Ok(EXIT_MMIO) if field(self.bytes(), 36, 1) == 1 => {
                    assert_eq!(field(self.bytes(), 24, 8), 8, "width");
                    return (field(self.bytes(), 8, 8), field(self.bytes(), 16, 8));
                }
                Err(libc::EINTR) => {}
                other => panic!("no store but {other:x?}"),
            }
        }
    }
}
