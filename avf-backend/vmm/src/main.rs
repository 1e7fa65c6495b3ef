// SPDX-License-Identifier: Apache-2.0
//! The process that runs one VM: understands its command line, runs the VM and turns its end into
//! the exit status that the parent expects.

use gzvm_vmm::cli::{self, Invocation};
use gzvm_vmm::status::ExitStatus;
use gzvm_vmm::{files, machine, signals};
use std::io::{self, Write};
use std::process::ExitCode;

/// The program's name in messages and in Android's log.
const TAG: &str = "gzvm_vmm";

fn main() -> ExitCode {
    files::remember_handed_over();
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) if error.status == ExitStatus::Success => {
            // Who asks for help and does not read it is not told that.
            let _ = io::stdout().write_all(error.message.as_bytes());
            return error.status.into();
        }
        Err(error) => {
            gzvm_logging::init_with(TAG, "error");
            say(&error.message);
            return error.status.into();
        }
    };
    run(&invocation).into()
}

fn run(invocation: &Invocation) -> ExitStatus {
    // crosvm's filters name its own crates; those words simply match nothing here.
    gzvm_logging::init_with(TAG, &invocation.log_filter);
    let config = &invocation.config;
    let name = config.name.as_deref().unwrap_or("VM");
    let ending = match machine::run(config) {
        Ok(ending) => ending,
        Err(error) => {
            report(&format!("{name} cannot be started: {error}"));
            return ExitStatus::StartFailed;
        }
    };
    if let Some(message) = &ending.message {
        report(&format!("{name}: {message}"));
    }
    if let Some(signal) = ending.signal {
        log::info!("{name}: ended by {signal}");
        signals::die_of(signal);
    }
    match invocation.extended_status {
        true => ending.status,
        false => ending.status.without_extension(),
    }
}

/// The one line that says why; the parent shows it beside the VM's end.
fn report(message: &str) {
    say(&format!("{TAG}: error: {message}\n"));
}

/// Says it where the parent reads. On Android that is nobody's: virtmgr has no standard error there,
/// so the log gets it, too.
fn say(text: &str) {
    // The parent may be gone, and nobody else could be told.
    let _ = io::stderr().write_all(text.as_bytes());
    if cfg!(target_os = "android") {
        log::error!("{}", text.trim_end());
    }
}
