// SPDX-License-Identifier: Apache-2.0
//! Configurations.

use std::ffi::{c_char, c_int, CStr};
use std::os::fd::{FromRawFd, OwnedFd};

use avf_aidl::aidl::virtualizationservice::VirtualMachineRawConfig::VirtualMachineRawConfig;
use binder::ParcelFileDescriptor;

use crate::destroy;

/// What a VM is to have.
pub struct AVirtualMachineRawConfig(pub(crate) VirtualMachineRawConfig);

/// One in which nothing is said but the platform's version.
///
/// # Safety
///
/// Asks for nothing; bindings made from the header have it unsafe.
pub unsafe extern "C" fn AVirtualMachineRawConfig_create() -> *mut AVirtualMachineRawConfig {
    let platform = VirtualMachineRawConfig { platformVersion: "~1.0".into(), ..Default::default() };
    Box::into_raw(Box::new(AVirtualMachineRawConfig(platform)))
}

/// Gives it up. Null is allowed.
///
/// # Safety
///
/// `config` is null or a configuration, and is not used again.
pub unsafe extern "C" fn AVirtualMachineRawConfig_destroy(config: *mut AVirtualMachineRawConfig) {
    // SAFETY: the caller's promise.
    unsafe { destroy(config) }
}

/// The VM's name; -EINVAL if it is not UTF-8.
///
/// # Safety
///
/// `config` is a configuration, `name` a string that ends with NUL.
pub unsafe extern "C" fn AVirtualMachineRawConfig_setName(
    config: *mut AVirtualMachineRawConfig,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let (config, name) = unsafe { (&mut *config, CStr::from_ptr(name)) };
    match name.to_str() {
        Ok(name) => {
            config.0.name = name.to_owned();
            0
        }
        Err(_) => -libc::EINVAL,
    }
}

/// The kernel's file; -1 for none.
///
/// # Safety
///
/// `config` is a configuration, `fd` the caller's own descriptor, which becomes the configuration's, or -1.
pub unsafe extern "C" fn AVirtualMachineRawConfig_setKernel(
    config: *mut AVirtualMachineRawConfig,
    fd: c_int,
) {
    // SAFETY: the caller's promise.
    unsafe { (*config).0.kernel = file(fd) };
}

/// MiB of memory; 0 or less for the default.
///
/// # Safety
///
/// `config` is a configuration.
pub unsafe extern "C" fn AVirtualMachineRawConfig_setMemoryMiB(
    config: *mut AVirtualMachineRawConfig,
    memory: i32,
) {
    // SAFETY: the caller's promise.
    unsafe { (*config).0.memoryMib = memory };
}

/// Whether the host must not see the VM's memory.
///
/// # Safety
///
/// `config` is a configuration.
pub unsafe extern "C" fn AVirtualMachineRawConfig_setProtectedVm(
    config: *mut AVirtualMachineRawConfig,
    protected: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { (*config).0.protectedVm = protected };
}

/// A descriptor that becomes ours; -1 is none.
///
/// # Safety
///
/// `fd` is the caller's own, or -1.
pub(crate) unsafe fn file(fd: c_int) -> Option<ParcelFileDescriptor> {
    // SAFETY: the caller's promise.
    (fd != -1).then(|| ParcelFileDescriptor::new(unsafe { OwnedFd::from_raw_fd(fd) }))
}
