// SPDX-License-Identifier: Apache-2.0
//! The process that a client starts to have VMs: `--rpc-server-fd N --ready-fd M`. It writes one
//! byte to the second when it serves on the first, and ends when the client closes that.
use crate::backend::Backend;
use crate::context::LocalContexts;
use crate::global::{self, Global};
use crate::service::{Contexts, Shared, VirtualizationService};
use crate::signals;
use anyhow::{bail, ensure, Context, Result};
use avf_aidl::aidl::virtualizationservice::IVirtualizationService::BnVirtualizationService;
use binder::Interface;
use clap::Parser;
use com_android_gzvm::aidl::com::android::gzvm::IGzvmBackend::BnGzvmBackend;
use gzvm_host::permissions::Permissions;
use gzvm_host::props::Props;
use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::resource::{setrlimit, Resource, RLIM_INFINITY};
use nix::unistd::{getppid, getuid};
use rpcbinder::{FileDescriptorTransportMode, RpcServer};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// What the client waits for.
const READY: &[u8] = b"o";
/// Below are the standard streams.
const FIRST_FD: RawFd = 3;

#[derive(Debug, Parser)]
#[command(name = "gzvm_virtmgr", version, about = "Manages the VMs of the process that starts it")]
struct Args {
    /// Inherited socket that the client's connections come from
    #[arg(long, value_name = "FD")]
    rpc_server_fd: RawFd,

    /// Inherited descriptor that is written to when the service is ready
    #[arg(long, value_name = "FD")]
    ready_fd: RawFd,
}

/// The program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    // Before there are other threads, which inherit it, and other files.
    signals::outlive_the_terminal();
    keep_files();
    // What binder's library says of a client that goes, or of a missing service manager, is no news.
    gzvm_logging::init("gzvm_virtmgr", "warn,rsbinder=error,rsbinder::hub=off");
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gzvm_virtmgr: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    ensure!(args.rpc_server_fd != args.ready_fd, "the two descriptors are the same");
    let socket = inherited(args.rpc_server_fd, "--rpc-server-fd")?;
    let ready = inherited(args.ready_fd, "--ready-fd")?;
    let props = Props::load()?;
    if !props.supports(false) && !props.supports(true) {
        bail!("this machine has no VMs: so its bootloader says");
    }
    let uid = getuid().as_raw();
    let contexts = contexts(uid)?;
    let global = matches!(contexts, Contexts::Global(_));
    let shared = Shared::new(props, Permissions::load()?, uid, getppid().as_raw(), contexts);
    let shared = Arc::new(shared);
    if global {
        global::offer(BnGzvmBackend::new_binder(Backend(Arc::clone(&shared))));
    }
    let root = BnVirtualizationService::new_binder(VirtualizationService(Arc::clone(&shared)));
    let server = RpcServer::new_unix_domain_bootstrap(root.as_binder(), socket)
        .context("cannot serve on --rpc-server-fd")?;
    server.set_supported_file_descriptor_transport_modes(&[FileDescriptorTransportMode::Unix]);
    File::from(ready).write_all(READY).context("cannot write to --ready-fd")?;
    server.join();
    // The client is gone, and so is what its VMs were for.
    shared.end();
    Ok(())
}

/// Has VMMs not inherit what the client left open by mistake.
fn keep_files() {
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = number.filter(|&fd| fd >= FIRST_FD) {
            // It may be that of the directory, which is closed by then.
            let _ = fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
}

/// Takes an inherited descriptor; no process that is started later gets it.
fn inherited(fd: RawFd, option: &str) -> Result<OwnedFd> {
    ensure!(fd >= FIRST_FD, "{option}: {fd} is a standard stream");
    let path = format!("/proc/self/fd/{fd}");
    let taken = gzvm_vmm::files::take_inherited(Path::new(&path))
        .with_context(|| format!("{option}: {fd} is not open"))?
        .with_context(|| format!("{option}: {fd} is no descriptor"))?;
    nix::unistd::close(fd).with_context(|| format!("{option}: {fd}"))?;
    Ok(taken)
}

/// The global service's, if there is one.
fn contexts(uid: u32) -> Result<Contexts> {
    match Global::find(uid) {
        Ok(global) => {
            if let Err(e) = global.ask(|service| service.removeMemlockRlimit()) {
                // If it is too little for a VM, the VMM says so.
                log::info!("the limit of locked memory stays: {e}");
            }
            Ok(Contexts::Global(global))
        }
        Err(why) => {
            log::info!("without the global service: {why}");
            // Root may; others keep what they have, and the VMM says if it is too little.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
            Ok(Contexts::Local(LocalContexts::new()?))
        }
    }
}
