// SPDX-License-Identifier: Apache-2.0
//! The ioctls themselves: the only place that calls libc, and the table that pairs each number
//! with the type of its argument.

use crate::error::{Error, Result};
use crate::vcpu::RunArea;
use gzvm_abi::uapi;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use zerocopy::{FromBytes, IntoBytes};

/// An ioctl whose argument is of type `A`: [`ByValue`], or a struct that the kernel reads and
/// writes through a pointer.
///
/// Invariant: the kernel accesses at most `size_of::<A>()` bytes behind the pointer. It holds
/// because values are only made in this file, from `gzvm_abi`, which fixes number and type
/// together.
pub(crate) struct Request<A> {
    name: &'static str,
    number: u32,
    argument: PhantomData<fn(A)>,
}

/// Marks an ioctl whose argument is a number, not a pointer.
pub(crate) enum ByValue {}

const fn request<A>(name: &'static str, number: u32) -> Request<A> {
    Request { name, number, argument: PhantomData }
}

pub(crate) const CREATE_VM: Request<ByValue> = request("GZVM_CREATE_VM", uapi::CREATE_VM);
pub(crate) const CHECK_EXTENSION: Request<u64> =
    request("GZVM_CHECK_EXTENSION", uapi::CHECK_EXTENSION);
pub(crate) const CREATE_VCPU: Request<ByValue> = request("GZVM_CREATE_VCPU", uapi::CREATE_VCPU);
pub(crate) const SET_USER_MEMORY_REGION: Request<uapi::UserspaceMemoryRegion> =
    request("GZVM_SET_USER_MEMORY_REGION", uapi::SET_USER_MEMORY_REGION);
pub(crate) const IRQ_LINE: Request<uapi::IrqLevel> = request("GZVM_IRQ_LINE", uapi::IRQ_LINE);
pub(crate) const IRQFD: Request<uapi::Irqfd> = request("GZVM_IRQFD", uapi::IRQFD);
pub(crate) const IOEVENTFD: Request<uapi::Ioeventfd> = request("GZVM_IOEVENTFD", uapi::IOEVENTFD);
pub(crate) const ENABLE_CAP: Request<uapi::EnableCap> =
    request("GZVM_ENABLE_CAP", uapi::ENABLE_CAP);
pub(crate) const GET_ONE_REG: Request<uapi::OneReg> =
    request("GZVM_GET_ONE_REG", uapi::GET_ONE_REG);
pub(crate) const SET_ONE_REG: Request<uapi::OneReg> =
    request("GZVM_SET_ONE_REG", uapi::SET_ONE_REG);
pub(crate) const CREATE_DEVICE: Request<uapi::CreateDevice> =
    request("GZVM_CREATE_DEVICE", uapi::CREATE_DEVICE);
pub(crate) const SET_DTB_CONFIG: Request<uapi::DtbConfig> =
    request("GZVM_SET_DTB_CONFIG", uapi::SET_DTB_CONFIG);
pub(crate) const GET_RANGE_STATE: Request<uapi::RangeState> =
    request("GZVM_GET_RANGE_STATE", uapi::GET_RANGE_STATE);
const RUN: Request<RunArea> = request("GZVM_RUN", uapi::RUN);

fn check(name: &'static str, answer: libc::c_int) -> Result<libc::c_int> {
    if answer < 0 {
        Err(Error::last(name))
    } else {
        Ok(answer)
    }
}

/// Issues an ioctl that takes a number.
pub(crate) fn call_value(
    fd: BorrowedFd<'_>,
    request: &Request<ByValue>,
    value: u64,
) -> Result<libc::c_int> {
    // CAST: the type of ioctl's number differs between C libraries; all of them keep 32 bits.
    let number = request.number as libc::Ioctl;
    // SAFETY: `fd` is open while borrowed, and the argument of a `ByValue` request is a number:
    // the kernel accesses no memory of ours.
    check(request.name, unsafe { libc::ioctl(fd.as_raw_fd(), number, value) })
}

/// Issues an ioctl that reads, and perhaps writes, `argument`.
pub(crate) fn call<A: FromBytes + IntoBytes>(
    fd: BorrowedFd<'_>,
    request: &Request<A>,
    argument: &mut A,
) -> Result<libc::c_int> {
    // CAST: as above.
    let number = request.number as libc::Ioctl;
    // SAFETY: `fd` is open while borrowed. The kernel accesses at most `size_of::<A>()` bytes
    // (invariant of `Request`) of `argument`, which is exclusively borrowed, and any bytes it
    // leaves there are a valid `A` (`FromBytes`).
    check(request.name, unsafe {
        libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_mut(argument))
    })
}

/// Issues `SET_ONE_REG` or `GET_ONE_REG`, with `value` as the memory that the argument names.
pub(crate) fn call_reg(
    fd: BorrowedFd<'_>,
    request: &Request<uapi::OneReg>,
    id: u64,
    value: &mut u64,
) -> Result<()> {
    use gzvm_abi::reg;
    // The size in the id says how much the kernel accesses; `value` has room for 8 bytes.
    if id & reg::SIZE_MASK > reg::SIZE_U64 {
        return Err(Error::new(request.name, libc::EINVAL));
    }
    let address = std::ptr::from_mut(value);
    // CAST: pointers have 64 bits on the supported machines.
    let mut argument = uapi::OneReg { id, addr: address as u64 };
    // The inner pointer was made from an exclusive borrow that lives until the call returns, and
    // the check above bounds the access to it.
    call(fd, request, &mut argument).map(drop)
}

/// Enters the guest. The kernel copies `area` in when it is called and out when it returns.
pub(crate) fn call_run(fd: BorrowedFd<'_>, area: &RunArea) -> Result<()> {
    // CAST: as above.
    let number = RUN.number as libc::Ioctl;
    // SAFETY: `fd` is open while borrowed. The kernel accesses the bytes of `area` only; they are
    // all atomics, so its writes through a shared reference are allowed and any value is valid.
    check(RUN.name, unsafe { libc::ioctl(fd.as_raw_fd(), number, std::ptr::from_ref(area)) })
        .map(drop)
}
