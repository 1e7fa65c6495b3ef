// SPDX-License-Identifier: Apache-2.0
//! Android's C interface for VMs, made safe: each handle is owned and destroyed once.

use std::ffi::CStr;
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::IntoRawFd;
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

#[cfg(soong)]
use gzvm_avf_bindgen as sys;
#[cfg(not(soong))]
use libavf_standin as sys;

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReason(i32);

impl StopReason {
    /// It was ended from outside.
    pub const KILLED: Self = Self(3);
    /// Its guest turned it off.
    pub const SHUTDOWN: Self = Self(5);
}

/// A configuration.
pub struct Config(NonNull<sys::AVirtualMachineRawConfig>);

impl Config {
    /// A VM with this kernel and so many MiB of memory.
    ///
    /// # Errors
    ///
    /// When the interface refuses the name.
    pub fn new(name: &CStr, kernel: File, memory: i32, protected: bool) -> Result<Self> {
        // SAFETY: takes nothing; gives a handle of our own.
        let config = unsafe { sys::AVirtualMachineRawConfig_create() };
        let config = Self(NonNull::new(config).context("AVirtualMachineRawConfig_create")?);
        let handle = config.0.as_ptr();
        // SAFETY: the handle is ours and valid, and the name ends with NUL.
        let status = unsafe { sys::AVirtualMachineRawConfig_setName(handle, name.as_ptr()) };
        ensure!(status == 0, "AVirtualMachineRawConfig_setName: {status}");
        // SAFETY: the handle is valid; the descriptor becomes the configuration's.
        unsafe {
            sys::AVirtualMachineRawConfig_setKernel(handle, kernel.into_raw_fd());
            sys::AVirtualMachineRawConfig_setMemoryMiB(handle, memory);
            sys::AVirtualMachineRawConfig_setProtectedVm(handle, protected);
        }
        Ok(config)
    }

    /// Gives the handle away.
    fn into_raw(self) -> *mut sys::AVirtualMachineRawConfig {
        let handle = self.0.as_ptr();
        std::mem::forget(self);
        handle
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the handle is ours; it is used no more.
        unsafe { sys::AVirtualMachineRawConfig_destroy(self.0.as_ptr()) }
    }
}

/// A manager of VMs, started for us.
pub struct Service(NonNull<sys::AVirtualizationService>);

impl Service {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn new() -> Result<Self> {
        let mut service = ptr::null_mut();
        // SAFETY: the place for the handle is live.
        let status = unsafe { sys::AVirtualizationService_create(&mut service, false) };
        ensure!(status == 0, "AVirtualizationService_create: {status}");
        Ok(Self(NonNull::new(service).context("AVirtualizationService_create gave nothing")?))
    }

    /// Creates a VM, which keeps its console to itself.
    ///
    /// # Errors
    ///
    /// When the manager refuses it.
    pub fn create(&self, config: Config) -> Result<Vm<'_>> {
        let mut vm = ptr::null_mut();
        // SAFETY: both handles are valid, the configuration becomes the callee's; no descriptors are given.
        let status = unsafe {
            sys::AVirtualMachine_createRaw(self.0.as_ptr(), config.into_raw(), -1, -1, -1, &mut vm)
        };
        ensure!(status == 0, "AVirtualMachine_createRaw: {status}");
        let vm = NonNull::new(vm).context("AVirtualMachine_createRaw gave nothing")?;
        Ok(Vm(vm, PhantomData))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SAFETY: the handle is ours; its VMs, which borrow this value, are gone.
        unsafe { sys::AVirtualizationService_destroy(self.0.as_ptr()) }
    }
}

/// A VM.
pub struct Vm<'a>(NonNull<sys::AVirtualMachine>, PhantomData<&'a Service>);

impl Vm<'_> {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When its VMM does not start it.
    pub fn start(&self) -> Result<()> {
        // SAFETY: the handle is valid.
        let status = unsafe { sys::AVirtualMachine_start(self.0.as_ptr()) };
        ensure!(status == 0, "AVirtualMachine_start: {status}");
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn stop(&self) -> Result<()> {
        // SAFETY: the handle is valid.
        let status = unsafe { sys::AVirtualMachine_stop(self.0.as_ptr()) };
        ensure!(status == 0, "AVirtualMachine_stop: {status}");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it goes on.
    pub fn wait(&self, patience: Duration) -> Result<StopReason> {
        let timeout = sys::timespec {
            tv_sec: patience.as_secs().try_into()?,
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut reason = sys::AVirtualMachineStopReason(0);
        let vm = self.0.as_ptr();
        // SAFETY: the handle is valid, and both places are live.
        let ended = unsafe { sys::AVirtualMachine_waitForStop(vm, &timeout, &mut reason) };
        ensure!(ended, "the VM goes on after {patience:?}");
        Ok(StopReason(reason.0))
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is ours; it is used no more.
        unsafe { sys::AVirtualMachine_destroy(self.0.as_ptr()) }
    }
}
