// SPDX-License-Identifier: Apache-2.0
//! Kernel binder: the process's threads, named services, and who calls.

use rsbinder::{hub, FromIBinder, SIBinder, StatusCode, Strong};
use std::path::Path;

/// Opens kernel binder, once per process and before anything else in this module.
///
/// # Errors
///
/// What is missing, in words: the device, or a service manager.
pub fn connect_kernel() -> Result<(), String> {
    let device = rsbinder::DEFAULT_BINDER_PATH;
    if !rsbinder::ProcessState::is_initialized() {
        if !Path::new(device).exists() {
            return Err(format!("there is no {device}"));
        }
        rsbinder::ProcessState::init_default().map_err(|e| format!("cannot use {device}: {e}"))?;
    }
    hub::default().map(drop).map_err(|e| format!("no service manager answers: {e}"))
}

/// The process's threads for incoming calls.
#[derive(Debug)]
pub struct ProcessState;

impl ProcessState {
    /// Starts them.
    pub fn start_thread_pool() {
        rsbinder::ProcessState::start_thread_pool();
    }

    /// Makes the calling thread one of them.
    pub fn join_thread_pool() {
        if let Err(e) = rsbinder::ProcessState::join_thread_pool() {
            // Only a broken device ends it.
            eprintln!("binder: {e}");
        }
    }
}

/// Who called what the calling thread serves, over kernel binder or a socket.
#[derive(Debug)]
pub struct ThreadState;

impl ThreadState {
    /// Its user id.
    pub fn get_calling_uid() -> u32 {
        rsbinder::get_calling_uid()
    }

    /// Its process id.
    pub fn get_calling_pid() -> i32 {
        rsbinder::get_calling_pid()
    }
}

/// Offers an object under a name.
pub fn add_service(name: &str, binder: SIBinder) -> crate::Result<()> {
    hub::add_service(name, binder)
}

/// The object of that name, if there is one now.
pub fn check_interface<T: FromIBinder + ?Sized>(name: &str) -> Result<Strong<T>, StatusCode> {
    hub::check_interface(name)
}

/// The object of that name, as soon as there is one.
pub fn wait_for_interface<T: FromIBinder + ?Sized>(name: &str) -> Result<Strong<T>, StatusCode> {
    hub::wait_for_interface(name)
}
