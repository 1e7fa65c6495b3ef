// SPDX-License-Identifier: Apache-2.0
//! What the VTS program needs of Android's `libavf`, for systems without Android: functions with the names,
//! arguments and answers that the header `android/virtualization.h` (level 36) gives them. Below them is
//! our own virtmgr.
#![allow(non_snake_case, non_camel_case_types)] // C's names.

mod config;
mod machine;
mod support;

pub use config::{
    AVirtualMachineRawConfig, AVirtualMachineRawConfig_create, AVirtualMachineRawConfig_destroy,
    AVirtualMachineRawConfig_setKernel, AVirtualMachineRawConfig_setMemoryMiB,
    AVirtualMachineRawConfig_setName, AVirtualMachineRawConfig_setProtectedVm,
};
pub use libc::timespec;
pub use machine::{
    AVirtualMachine, AVirtualMachineStopReason, AVirtualMachine_createRaw, AVirtualMachine_destroy,
    AVirtualMachine_start, AVirtualMachine_stop, AVirtualMachine_waitForStop,
};

pub use support::lacks;

use std::ffi::c_int;

use avf_aidl::aidl::virtualizationservice::IVirtualizationService::IVirtualizationService;
use binder::Strong;
use gzvm_client::Service;

/// A virtmgr of the caller's own. The connection goes first, then the process ends.
pub struct AVirtualizationService {
    connection: Strong<dyn IVirtualizationService>,
    _process: Service,
}

/// Starts a virtmgr and connects to it.
///
/// # Safety
///
/// `service` is valid for writing a pointer.
pub unsafe extern "C" fn AVirtualizationService_create(
    service: *mut *mut AVirtualizationService,
    early: bool,
) -> c_int {
    if early {
        return -libc::ENOTSUP;
    }
    let process = match Service::start() {
        Ok(process) => process,
        Err(error) => return -said(&error, errno(&error)),
    };
    match process.connect() {
        Ok(connection) => {
            let made = Box::new(AVirtualizationService { connection, _process: process });
            // SAFETY: the caller's promise.
            unsafe { service.write(Box::into_raw(made)) };
            0
        }
        Err(error) => -said(&error, libc::ECONNREFUSED),
    }
}

/// Ends it. Null is allowed.
///
/// # Safety
///
/// `service` is null or from [`AVirtualizationService_create`], and is not used again.
pub unsafe extern "C" fn AVirtualizationService_destroy(service: *mut AVirtualizationService) {
    // SAFETY: the caller's promise.
    unsafe { destroy(service) }
}

/// Drops what a handle stands for.
///
/// # Safety
///
/// The handle is null or from `Box::into_raw`, and is not used again.
unsafe fn destroy<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Says what the number that the caller gets cannot.
fn said(error: &anyhow::Error, number: c_int) -> c_int {
    eprintln!("libavf: {error:#}");
    number
}

/// The system's number for an error, if it had one.
fn errno(error: &anyhow::Error) -> c_int {
    let system = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    system.and_then(std::io::Error::raw_os_error).unwrap_or(libc::EIO)
}
