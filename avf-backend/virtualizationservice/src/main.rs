// SPDX-License-Identifier: Apache-2.0
//! The global service behind all virtmgr processes: context ids, directories, the list of VMs.
//! Needs binder and a service manager.
#![forbid(unsafe_code)]

mod internal;
mod orphans;
mod registry;
mod vms;

use anyhow::{anyhow, Context, Result};
use avf_aidl::aidl::virtualizationservice_internal::IVirtualizationServiceInternal::BnVirtualizationServiceInternal;
use binder::{Interface, ProcessState, SpIBinder};
use clap::Parser;
use com_android_gzvm::aidl::com::android::gzvm::IGzvmRegistry::BnGzvmRegistry;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// AVF's name of the service.
const SERVICE: &str = "android.system.virtualizationservice";
/// The name of what is ours.
const REGISTRY: &str = "com.android.gzvm";
/// How often a service manager is looked for, and when again.
const TRIES: u32 = 30;
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "gzvm_virtualizationservice", version, max_term_width = 100)]
/// Hands out context ids and directories to the VMs of all users
struct Args {
    /// Where each VM gets a directory, called like its context id
    #[arg(long, value_name = "DIR", default_value = "/run/gzvm")]
    directory: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    gzvm_logging::init("gzvm_virtualizationservice", "warn,rsbinder=error,rsbinder::hub=off");
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gzvm_virtualizationservice: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let vms = Arc::new(vms::Vms::open(&args.directory)?);
    connect()?;
    ProcessState::start_thread_pool();
    let service = BnVirtualizationServiceInternal::new_binder(internal::Service::new(vms));
    offer(SERVICE, service.as_binder())?;
    offer(REGISTRY, BnGzvmRegistry::new_binder(registry::Registry::default()).as_binder())?;
    ProcessState::join_thread_pool();
    Ok(())
}

/// The service manager may be starting at the same time.
fn connect() -> Result<()> {
    let mut tries = 0;
    loop {
        match binder::connect_kernel() {
            Ok(()) => return Ok(()),
            Err(e) if tries == TRIES => return Err(anyhow!(e)),
            Err(_) => thread::sleep(INTERVAL),
        }
        tries += 1;
    }
}

fn offer(name: &str, service: SpIBinder) -> Result<()> {
    binder::add_service(name, service)
        .with_context(|| format!("the service manager does not take {name}: does its policy?"))
}
