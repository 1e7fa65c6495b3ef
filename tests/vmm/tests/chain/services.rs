// SPDX-License-Identifier: Apache-2.0
//! The services that a machine has once: binder's service manager, and AVF's global service.

use anyhow::{Context, Result};
use binder::StatusCode;
use gzvm_vmm_test::host::settles;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The global service's name.
pub const SERVICE: &str = "android.system.virtualizationservice";
/// Where both say what they have to say.
const LOG: &str = "/tmp/vm_chain.log";

/// Both, while tests run; they are killed with the value.
pub struct Services {
    // In the order in which they end: the service would complain.
    service: Option<Running>,
    _hub: Running,
}

/// A process that is killed with the value.
pub struct Running(Child);

impl Running {
    /// Starts a program that says nothing on the console.
    fn start(program: &str) -> Result<Self> {
        let log = File::options().append(true).create(true).open(LOG).context(LOG)?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| program.to_owned())?))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The only ones, which the first test starts. Tests run one after the other.
static SERVICES: Mutex<Option<Services>> = Mutex::new(None);

/// Locks them, started and answering.
pub fn services() -> Result<MutexGuard<'static, Option<Services>>> {
    let mut services = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if services.is_none() {
        let hub = Running::start("rsb_hub")?;
        let answers = || Ok(binder::connect_kernel().is_ok());
        settles("binder's service manager", answers).with_context(log)?;
        *services = Some(Services { service: None, _hub: hub });
    }
    if let Some(services) = services.as_mut() {
        services.start()?;
    }
    Ok(services)
}

/// Ends both, for whatever comes after this program.
pub fn end() {
    *SERVICES.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Services {
    /// The global service's process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.service.as_ref().context("the global service does not run")?.pid())
    }

    /// Kills the global service; returns when nobody finds it any more.
    pub fn kill(&mut self) -> Result<()> {
        self.service = None;
        settles("the end of the global service", || Ok(!registered()?))
    }

    /// Starts the global service, unless it runs.
    pub fn start(&mut self) -> Result<()> {
        if self.service.is_none() {
            self.service = Some(Running::start("gzvm_virtualizationservice")?);
        }
        settles("the global service", registered).with_context(log)
    }

    /// How many descriptors both have open.
    pub fn descriptors(&self) -> Result<usize> {
        let count = |pid: u32| -> Result<usize> {
            Ok(fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| pid.to_string())?.count())
        };
        Ok(count(self.pid()?)? + count(self._hub.pid())?)
    }
}

/// Whether the global service can be found.
fn registered() -> Result<bool> {
    use avf_aidl::aidl::virtualizationservice_internal::IVirtualizationServiceInternal as internal;
    match binder::check_interface::<dyn internal::IVirtualizationServiceInternal>(SERVICE) {
        Ok(_) => Ok(true),
        Err(StatusCode::NameNotFound) => Ok(false),
        Err(e) => Err(anyhow::anyhow!("the service manager: {e}")),
    }
}

/// What the services said.
pub fn log() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Fails with what the services said.
pub fn or_log<T>(result: Result<T>) -> Result<T> {
    result.with_context(|| format!("the services said:\n{}", log()))
}
