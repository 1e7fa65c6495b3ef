// SPDX-License-Identifier: Apache-2.0
//! Systems without libavf: the interface's names and types as its header `android/virtualization.h` (level
//! 36) has them, so that compilers see the rest. Nothing calls these: every test is ignored here.
#![allow(non_snake_case, non_camel_case_types, dead_code)] // C's names and fields.

use std::ffi::{c_char, c_int};

/// What functions of a library that is not there answer.
const ABSENT: c_int = -38;

/// Opaque.
pub struct AVirtualMachineRawConfig;
/// Opaque.
pub struct AVirtualizationService;
/// Opaque.
pub struct AVirtualMachine;
/// Why a VM ended.
pub struct AVirtualMachineStopReason(pub i32);
/// C's, on 64-bit systems.
pub struct timespec {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds.
    pub tv_nsec: i64,
}

macro_rules! absent {
    ($($name:ident($($kind:ty),*) $(-> $answer:ty = $value:expr)?;)*) => {
        $(
            /// See the header.
            ///
            /// # Safety
            ///
            /// Does nothing.
            pub unsafe fn $name($(_: $kind),*) $(-> $answer)? { $($value)? }
        )*
    };
}

absent! {
    AVirtualMachineRawConfig_create() -> *mut AVirtualMachineRawConfig = std::ptr::null_mut();
    AVirtualMachineRawConfig_destroy(*mut AVirtualMachineRawConfig);
    AVirtualMachineRawConfig_setName(*mut AVirtualMachineRawConfig, *const c_char) -> c_int = ABSENT;
    AVirtualMachineRawConfig_setKernel(*mut AVirtualMachineRawConfig, c_int);
    AVirtualMachineRawConfig_setMemoryMiB(*mut AVirtualMachineRawConfig, i32);
    AVirtualMachineRawConfig_setProtectedVm(*mut AVirtualMachineRawConfig, bool);
    AVirtualizationService_create(*mut *mut AVirtualizationService, bool) -> c_int = ABSENT;
    AVirtualizationService_destroy(*mut AVirtualizationService);
    AVirtualMachine_createRaw(
        *const AVirtualizationService, *mut AVirtualMachineRawConfig, c_int, c_int, c_int,
        *mut *mut AVirtualMachine
    ) -> c_int = ABSENT;
    AVirtualMachine_start(*mut AVirtualMachine) -> c_int = ABSENT;
    AVirtualMachine_stop(*mut AVirtualMachine) -> c_int = ABSENT;
    AVirtualMachine_waitForStop(
        *mut AVirtualMachine, *const timespec, *mut AVirtualMachineStopReason
    ) -> bool = false;
    AVirtualMachine_destroy(*mut AVirtualMachine);
}
