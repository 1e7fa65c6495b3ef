// SPDX-License-Identifier: Apache-2.0
//! `vm run`: opens what the description names, and has virtmgr run it.

use crate::cli::{CommonArgs, DebugArgs, RunArgs};
use crate::config::VmConfig;
use crate::death::End;
use crate::exit;
use crate::raw;
use crate::terminal::Terminal;
use anyhow::{anyhow, Context, Result};
use avf_aidl::aidl::virtualizationcommon::{DeathReason::DeathReason, ErrorCode::ErrorCode};
use avf_aidl::aidl::virtualizationservice::{
    IVirtualMachine::IVirtualMachine,
    IVirtualMachineCallback::{BnVirtualMachineCallback, IVirtualMachineCallback},
    VirtualMachineConfig::VirtualMachineConfig,
    VirtualMachineState::VirtualMachineState,
};
use binder::{DeathRecipient, IBinder, Interface, ParcelFileDescriptor, Strong};
use gzvm_client::{exception, Service};
use gzvm_ctl::output;
use std::fs::OpenOptions;
use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Mutex, PoisonError};

/// Runs a VM to its end.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let config = VmConfig::load(&args.config)?;
    warn_without_effect(&args.common, &args.debug);
    let config = raw::parcelable(&config, args)?;
    let streams = Streams::open(&args.debug)?;
    let service = Service::start()?;
    let machine = service
        .connect()?
        .createVm(
            &VirtualMachineConfig::RawConfig(config),
            Some(&streams.console_out),
            Some(&streams.console_in),
            Some(&streams.log),
            streams.dump_device_tree.as_ref(),
        )
        .map_err(exception)?;
    if let Some(terminal) = &streams.terminal {
        machine.setHostConsoleName(terminal).map_err(exception)?;
        say(&format!("Console: {terminal}"));
    }
    // The VM has copies. Who reads them sees their end with the VM's.
    drop(streams);
    let (end, _listener, _recipient) = watch(&machine)?;
    let cid = machine.getCid().map_err(exception)?;
    machine.start().map_err(exception)?;
    // If the service is gone by now, that is told below.
    let state = state_name(machine.getState().unwrap_or(VirtualMachineState::DEAD));
    say(&format!("Created VM from {:?} with CID {cid}, state is {state}.", args.config));
    let end = end.recv().context("nobody watches the VM")?;
    let name = end.name();
    say(&format!("VM ended: {name}"));
    report(end)?;
    Ok(if args.exit_status { exit::status(&name).into() } else { ExitCode::SUCCESS })
}

/// Prints a line.
fn say(line: &str) {
    // The VM goes on, whether it can be printed or not.
    let _ = output::print(&format!("{line}\n"));
}

/// What the VMM said last: the reason why there is no VM, or something to know about its end.
fn report(end: End) -> Result<()> {
    match end {
        End::Died(DeathReason::START_FAILED, error) => {
            Err(anyhow!(error.unwrap_or_else(|| "the VMM said nothing".into())))
        }
        End::Died(_, Some(error)) => {
            output::tell(format_args!("VMM: {error}"));
            Ok(())
        }
        End::Died(_, None) | End::ServiceDied => Ok(()),
    }
}

/// AVF accepts these silently.
fn warn_without_effect(common: &CommonArgs, debug: &DebugArgs) {
    if common.network_supported {
        log::warn!("--network-supported has no effect: VMs have no network");
    }
    if debug.enable_earlycon {
        log::warn!("--enable-earlycon has no effect: put earlycon into the parameters");
    }
}

fn state_name(state: VirtualMachineState) -> &'static str {
    match state {
        VirtualMachineState::NOT_STARTED => "NOT_STARTED",
        VirtualMachineState::STARTING => "STARTING",
        VirtualMachineState::STARTED => "STARTED",
        VirtualMachineState::READY => "READY",
        VirtualMachineState::FINISHED => "FINISHED",
        VirtualMachineState::DEAD => "DEAD",
        _ => "(invalid state)",
    }
}

/// What the VM's ports are connected to.
struct Streams {
    /// The terminal that shows the console, if it is one of its own.
    terminal: Option<String>,
    console_out: ParcelFileDescriptor,
    console_in: ParcelFileDescriptor,
    log: ParcelFileDescriptor,
    dump_device_tree: Option<ParcelFileDescriptor>,
}

impl Streams {
    fn open(debug: &DebugArgs) -> Result<Self> {
        let output = |option, path: &Option<PathBuf>| match path {
            Some(path) => write(option, path),
            None => duplicate(stdout(), "standard output"),
        };
        let dump_device_tree = debug.dump_device_tree.as_ref();
        let dump_device_tree =
            dump_device_tree.map(|path| write("--dump-device-tree", path)).transpose()?;
        let log = output("--log", &debug.log)?;
        if debug.pty {
            let Terminal { name, output, input } = Terminal::open().context("--pty")?;
            let [console_out, console_in] = [output, input].map(ParcelFileDescriptor::new);
            let terminal = Some(name);
            return Ok(Self { terminal, console_out, console_in, log, dump_device_tree });
        }
        Ok(Self {
            terminal: None,
            console_out: output("--console", &debug.console)?,
            console_in: match &debug.console_in {
                Some(path) => raw::open("--console-in", path, false)?,
                None => duplicate(stdin(), "standard input")?,
            },
            log,
            dump_device_tree,
        })
    }
}

fn write(option: &str, path: &Path) -> Result<ParcelFileDescriptor> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    let file = file.with_context(|| format!("{option}: cannot open {}", path.display()))?;
    Ok(ParcelFileDescriptor::new(file))
}

fn duplicate(fd: impl AsFd, what: &str) -> Result<ParcelFileDescriptor> {
    let fd = fd.as_fd().try_clone_to_owned();
    let fd = fd.with_context(|| format!("{what} is not open: name a file instead"))?;
    Ok(ParcelFileDescriptor::new(fd))
}

/// Hears what becomes of a VM.
struct Listener {
    end: Mutex<Sender<End>>,
    error: Mutex<Option<String>>,
}

impl Interface for Listener {}

impl IVirtualMachineCallback for Listener {
    fn onPayloadStarted(&self, _cid: i32) -> binder::Result<()> {
        output::tell("payload started");
        Ok(())
    }

    fn onPayloadReady(&self, _cid: i32) -> binder::Result<()> {
        output::tell("payload is ready");
        Ok(())
    }

    fn onPayloadFinished(&self, _cid: i32, exit_code: i32) -> binder::Result<()> {
        output::tell(format_args!("payload finished with exit code {exit_code}"));
        Ok(())
    }

    fn onError(&self, _cid: i32, _code: ErrorCode, message: &str) -> binder::Result<()> {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        Ok(())
    }

    fn onDied(&self, _cid: i32, reason: DeathReason) -> binder::Result<()> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        send(&self.end, End::Died(reason, error));
        Ok(())
    }
}

fn send(to: &Mutex<Sender<End>>, end: End) {
    // Nobody waits for a second end.
    let _ = to.lock().unwrap_or_else(PoisonError::into_inner).send(end);
}

/// What has to be kept while somebody waits for the end.
type Watch = (Receiver<End>, Strong<dyn IVirtualMachineCallback>, DeathRecipient);

/// Has the VM's end told, and the service's.
fn watch(machine: &Strong<dyn IVirtualMachine>) -> Result<Watch> {
    let (sender, receiver) = channel();
    let listener = Listener { end: Mutex::new(sender.clone()), error: Mutex::default() };
    let listener = BnVirtualMachineCallback::new_binder(listener);
    machine.registerCallback(&listener).map_err(exception)?;
    let sender = Mutex::new(sender);
    let mut recipient = DeathRecipient::new(move || send(&sender, End::ServiceDied));
    let linked = machine.as_binder().link_to_death(&mut recipient);
    linked.map_err(|e| anyhow!("virtmgr is gone: {e}"))?;
    Ok((receiver, listener, recipient))
}
