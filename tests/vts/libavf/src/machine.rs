// SPDX-License-Identifier: Apache-2.0
//! VMs.

use std::ffi::c_int;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, Result};
use avf_aidl::aidl::virtualizationcommon::{DeathReason::DeathReason, ErrorCode::ErrorCode};
use avf_aidl::aidl::virtualizationservice::{
    IVirtualMachine::IVirtualMachine,
    IVirtualMachineCallback::{BnVirtualMachineCallback, IVirtualMachineCallback},
    VirtualMachineConfig::VirtualMachineConfig,
};
use binder::{DeathRecipient, IBinder, Interface, ParcelFileDescriptor, Strong};
use gzvm_client::exception;

use crate::config::file;
use crate::{destroy, said, timespec, AVirtualMachineRawConfig, AVirtualizationService};

/// Why a VM ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AVirtualMachineStopReason(pub i32);

/// A VM.
pub struct AVirtualMachine {
    machine: Strong<dyn IVirtualMachine>,
    end: Arc<End>,
    // Whoever is told lives as long as the VM.
    _listener: Strong<dyn IVirtualMachineCallback>,
    _recipient: DeathRecipient,
}

/// What is known of its end.
#[derive(Default)]
struct End {
    reason: Mutex<Option<i32>>,
    told: Condvar,
}

impl End {
    /// The first word counts.
    fn tell(&self, reason: i32) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.told.notify_all();
    }

    /// Waits for it; for ever without a timeout.
    fn wait(&self, timeout: Option<Duration>) -> Option<i32> {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |reason: &mut Option<i32>| reason.is_none();
        match timeout {
            Some(timeout) => {
                let waited = self.told.wait_timeout_while(reason, timeout, running);
                *waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => *self.told.wait_while(reason, running).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// The header's number for a reason.
fn number(reason: DeathReason) -> i32 {
    match reason {
        DeathReason::INFRASTRUCTURE_ERROR => 2,
        DeathReason::KILLED => 3,
        DeathReason::UNKNOWN => 4,
        DeathReason::SHUTDOWN => 5,
        DeathReason::START_FAILED => 6,
        DeathReason::REBOOT => 7,
        DeathReason::CRASH => 8,
        DeathReason::PVM_FIRMWARE_PUBLIC_KEY_MISMATCH => 9,
        DeathReason::PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED => 10,
        DeathReason::HANGUP => 11,
        _ => 0,
    }
}

/// The header's number for a virtmgr that is gone.
const SERVICE_DIED: i32 = 1;

/// Hears of the end.
struct Listener(Arc<End>);

impl Interface for Listener {}

impl IVirtualMachineCallback for Listener {
    fn onPayloadStarted(&self, _cid: i32) -> binder::Result<()> {
        Ok(())
    }

    fn onPayloadReady(&self, _cid: i32) -> binder::Result<()> {
        Ok(())
    }

    fn onPayloadFinished(&self, _cid: i32, _exit_code: i32) -> binder::Result<()> {
        Ok(())
    }

    fn onError(&self, _cid: i32, _code: ErrorCode, message: &str) -> binder::Result<()> {
        eprintln!("libavf: the VM: {message}");
        Ok(())
    }

    fn onDied(&self, _cid: i32, reason: DeathReason) -> binder::Result<()> {
        self.0.tell(number(reason));
        Ok(())
    }
}

/// A VM, which is not started yet; -EIO if there cannot be one.
///
/// # Safety
///
/// `service` is one; `config` is one, which is given away in any case; descriptors are the caller's own,
/// which are given away too, or -1; `vm` is valid for writing a pointer.
pub unsafe extern "C" fn AVirtualMachine_createRaw(
    service: *const AVirtualizationService,
    config: *mut AVirtualMachineRawConfig,
    console_out: c_int,
    console_in: c_int,
    log: c_int,
    vm: *mut *mut AVirtualMachine,
) -> c_int {
    // SAFETY: the caller's promise, for all of these.
    let (service, config) = unsafe { (&*service, Box::from_raw(config)) };
    // SAFETY: as above.
    let streams = unsafe { [file(console_out), file(console_in), file(log)] };
    match create(service, *config, &streams) {
        Ok(made) => {
            // SAFETY: the caller's promise.
            unsafe { vm.write(Box::into_raw(Box::new(made))) };
            0
        }
        Err(error) => -said(&error, libc::EIO),
    }
}

fn create(
    service: &AVirtualizationService,
    config: AVirtualMachineRawConfig,
    [console_out, console_in, log]: &[Option<ParcelFileDescriptor>; 3],
) -> Result<AVirtualMachine> {
    let config = VirtualMachineConfig::RawConfig(config.0);
    let machine = service
        .connection
        .createVm(&config, console_out.as_ref(), console_in.as_ref(), log.as_ref(), None)
        .map_err(exception)?;
    let end = Arc::new(End::default());
    let listener = BnVirtualMachineCallback::new_binder(Listener(Arc::clone(&end)));
    machine.registerCallback(&listener).map_err(exception)?;
    let gone = Arc::clone(&end);
    let mut recipient = DeathRecipient::new(move || gone.tell(SERVICE_DIED));
    let linked = machine.as_binder().link_to_death(&mut recipient);
    linked.map_err(|error| anyhow!("virtmgr is gone: {error}"))?;
    Ok(AVirtualMachine { machine, end, _listener: listener, _recipient: recipient })
}

/// Starts it; -EIO if that fails.
///
/// # Safety
///
/// `vm` is a VM.
pub unsafe extern "C" fn AVirtualMachine_start(vm: *mut AVirtualMachine) -> c_int {
    // SAFETY: the caller's promise.
    answer(unsafe { &*vm }.machine.start())
}

/// Ends it; -EIO if that fails.
///
/// # Safety
///
/// `vm` is a VM.
pub unsafe extern "C" fn AVirtualMachine_stop(vm: *mut AVirtualMachine) -> c_int {
    // SAFETY: the caller's promise.
    answer(unsafe { &*vm }.machine.stop())
}

fn answer(result: binder::Result<()>) -> c_int {
    result.map_or_else(|status| -said(&exception(status), libc::EIO), |()| 0)
}

/// Waits for its end, and says why; false if the time is over before. Without a timeout, for ever.
///
/// # Safety
///
/// `vm` is a VM, `timeout` null or valid for reading, `reason` valid for writing.
pub unsafe extern "C" fn AVirtualMachine_waitForStop(
    vm: *mut AVirtualMachine,
    timeout: *const timespec,
    reason: *mut AVirtualMachineStopReason,
) -> bool {
    // SAFETY: the caller's promise.
    let (vm, timeout) = unsafe { (&*vm, timeout.as_ref()) };
    let timeout = timeout.map(|time| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    });
    let Some(ended) = vm.end.wait(timeout) else { return false };
    // SAFETY: the caller's promise.
    unsafe { reason.write(AVirtualMachineStopReason(ended)) };
    true
}

/// Ends it if it runs, and gives it up. Null is allowed.
///
/// # Safety
///
/// `vm` is null or a VM, and is not used again.
pub unsafe extern "C" fn AVirtualMachine_destroy(vm: *mut AVirtualMachine) {
    // SAFETY: the caller's promise.
    if let Some(vm) = unsafe { vm.as_ref() } {
        // One that has ended, or never ran, cannot be stopped.
        let _ = vm.machine.stop();
    }
    // SAFETY: the caller's promise.
    unsafe { destroy(vm) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_about_an_end_counts() {
        let end = End::default();
        assert_eq!(end.wait(Some(Duration::ZERO)), None);
        end.tell(number(DeathReason::SHUTDOWN));
        end.tell(SERVICE_DIED);
        assert_eq!(end.wait(None), Some(5));
    }
}
