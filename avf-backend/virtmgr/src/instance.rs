// SPDX-License-Identifier: Apache-2.0
//! A VM: not started, running, dead, or failed to start.

use crate::argv::Request;
use crate::context::VmContext;
use crate::control::Control;
use crate::files::Files;
use crate::global::Global;
use crate::launch::{launch, Launched, Outcome};
use crate::ramdump::Ramdump;
use anyhow::{bail, Context, Result};
use avf_aidl::aidl::virtualizationcommon::{DeathReason::DeathReason, ErrorCode::ErrorCode};
use avf_aidl::aidl::virtualizationservice::{
    IVirtualMachineCallback::IVirtualMachineCallback, VirtualMachineState::VirtualMachineState,
};
use avf_aidl::aidl::virtualizationservice_internal::AtomVmExited::AtomVmExited;
use binder::Strong;
use shared_child::SharedChild;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

type Callback = Strong<dyn IVirtualMachineCallback>;

/// What is needed to start a VM, once.
#[derive(Debug)]
pub struct Prepared {
    /// The VMM.
    pub program: PathBuf,
    /// What it is told.
    pub request: Request,
    /// Its files.
    pub files: Files,
    /// The end of the failure port that this process reads.
    pub failure: OwnedFd,
    /// What the guest's kernel may leave.
    pub ramdump: Option<Ramdump>,
}

#[derive(Debug)]
enum State {
    NotStarted(Box<Prepared>),
    Running { child: Arc<SharedChild>, monitor: Option<JoinHandle<()>> },
    Dead,
    Failed,
}

/// A VM.
#[derive(Debug)]
pub struct VmInstance {
    name: String,
    context: VmContext,
    control: Control,
    state: Mutex<State>,
    callbacks: Mutex<Vec<Callback>>,
    global: Option<Global>,
}

/// A panic elsewhere leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VmInstance {
    /// One that is not started.
    pub fn new(
        prepared: Prepared,
        context: VmContext,
        control: Control,
        global: Option<Global>,
    ) -> Self {
        let name = prepared.request.name.clone();
        let state = Mutex::new(State::NotStarted(Box::new(prepared)));
        Self { name, context, control, state, callbacks: Mutex::default(), global }
    }

    /// Its context id and directory.
    pub fn context(&self) -> &VmContext {
        &self.context
    }

    /// Its control socket.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn control(&self) -> Result<&Control> {
        self.pid().map(|_| &self.control)
    }

    /// The VMM's process id.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        match &*lock(&self.state) {
            State::Running { child, .. } => Ok(child.id()),
            _ => bail!("VM {} does not run", self.context.cid()),
        }
    }

    /// How far it is. The guest of a raw VM does not say when it has booted: it stays STARTING.
    pub fn state(&self) -> VirtualMachineState {
        match &*lock(&self.state) {
            State::NotStarted(_) => VirtualMachineState::NOT_STARTED,
            State::Running { .. } => VirtualMachineState::STARTING,
            State::Dead | State::Failed => VirtualMachineState::DEAD,
        }
    }

    /// Has `callback` told of the VM's end; not if that has been.
    pub fn add_callback(&self, callback: &Callback) {
        let state = lock(&self.state);
        if matches!(*state, State::Dead | State::Failed) {
            log::warn!("VM {} is dead: a callback comes too late", self.context.cid());
            return;
        }
        // With the state held, or the end could come between.
        lock(&self.callbacks).push(callback.clone());
    }

    /// Starts the VMM and watches it.
    ///
    /// # Errors
    ///
    /// When it was started before, or there is no such program.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let mut state = lock(&self.state);
        // Whatever happens below, a second try finds no half of a VM.
        match mem::replace(&mut *state, State::Failed) {
            State::NotStarted(prepared) => {
                let Prepared { program, request, files, failure, ramdump } = *prepared;
                let launched = launch(&program, &request, files.into_inner(), failure)?;
                let child = launched.child();
                let (vm, started) = (Arc::clone(self), Instant::now());
                let watch = move || vm.watch(launched, started, ramdump);
                let name = format!("vm-{}", self.context.cid());
                let monitor = thread::Builder::new().name(name).spawn(watch).inspect_err(|_| {
                    // Nobody would notice its end. It may have come already.
                    let _ = child.kill();
                });
                let monitor = Some(monitor.context("cannot watch the VMM")?);
                *state = State::Running { child, monitor };
                Ok(())
            }
            other => {
                *state = other;
                bail!("VM {} was started before", self.context.cid())
            }
        }
    }

    /// Ends it at once, and returns when it has ended.
    ///
    /// # Errors
    ///
    /// When it does not run: it was not started, or has ended.
    pub fn stop(&self) -> Result<()> {
        let monitor = match &mut *lock(&self.state) {
            State::Running { child, monitor } => {
                child.kill().context("cannot end the VMM")?;
                monitor.take()
            }
            State::NotStarted(_) | State::Dead | State::Failed => {
                bail!("VM {} does not run", self.context.cid())
            }
        };
        // Without the lock, which the monitor takes. A panic there has been reported.
        let _ = monitor.map(JoinHandle::join);
        Ok(())
    }

    /// Ends it, for want of somebody who needs it. It may be ending by itself at this moment.
    pub fn end(&self) {
        if let Err(e) = self.stop() {
            log::info!("{e:#}");
        }
    }

    /// The monitor's thread.
    fn watch(&self, launched: Launched, started: Instant, ramdump: Option<Ramdump>) {
        let outcome = launched.wait().unwrap_or_else(|e| {
            log::error!("VM {}: {e:#}", self.context.cid());
            Outcome { reason: DeathReason::INFRASTRUCTURE_ERROR, signal: None, error: None }
        });
        *lock(&self.state) = State::Dead;
        if let Some(ramdump) = ramdump {
            ramdump.collect(self.context.cid());
        }
        // Clients may call back at once: no lock is held while they are told.
        let callbacks = mem::take(&mut *lock(&self.callbacks));
        let cid = i32::try_from(self.context.cid()).unwrap_or(i32::MAX);
        for callback in callbacks {
            let told = match &outcome.error {
                Some(error) => callback.onError(cid, ErrorCode::UNKNOWN, error),
                None => Ok(()),
            };
            if let Err(e) = told.and_then(|()| callback.onDied(cid, outcome.reason)) {
                log::info!("VM {cid}: a client does not hear of its end: {e}");
            }
        }
        if let Some(global) = &self.global {
            let elapsed = started.elapsed().as_millis();
            let atom = AtomVmExited {
                vmIdentifier: self.name.clone(),
                deathReason: outcome.reason,
                exitSignal: outcome.signal.unwrap_or(0),
                elapsedTimeMillis: i64::try_from(elapsed).unwrap_or(i64::MAX),
                ..global.atom_vm_exited()
            };
            global.report(|service| service.atomVmExited(&atom));
        }
    }
}
