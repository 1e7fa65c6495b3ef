// SPDX-License-Identifier: Apache-2.0
//! The VMM's process: found, started with the files it needs, and waited for.

use crate::argv::{self, Request};
use crate::death;
use anyhow::{Context, Result};
use avf_aidl::aidl::virtualizationcommon::DeathReason::DeathReason;
use command_fds::CommandFdExt;
use gzvm_host::props::Props;
use shared_child::SharedChild;
use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Names another VMM.
const PROGRAM_VARIABLE: &str = "GZVM_VMM";
const PROGRAM: &str = "gzvm_vmm";
/// What the VMM's last word starts with.
const ERROR_PREFIX: &str = "gzvm_vmm: error: ";
/// How much a guest may say about its failure.
const FAILURE_LIMIT: u64 = 50_000;
/// How much of a line of the VMM is kept.
const LINE_LIMIT: u64 = 4096;

/// A VMM that was started.
#[derive(Debug)]
pub struct Launched {
    child: Arc<SharedChild>,
    failure: JoinHandle<String>,
    messages: JoinHandle<Option<String>>,
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: DeathReason,
    /// The signal that killed the VMM, if one did.
    pub signal: Option<i32>,
    /// The VMM's last error.
    pub error: Option<String>,
}

/// Starts the VMM. `files` are what `request` names; `failure` is the other end of its failure
/// port, and as long as this process holds it, the VM may live.
pub fn launch(
    program: &PathBuf,
    request: &Request,
    files: Vec<OwnedFd>,
    failure: OwnedFd,
) -> Result<Launched> {
    let mut command = Command::new(program);
    command.arg0(format!("crosvm_{}", request.name)).args(argv::build(request));
    command.stdin(Stdio::null()).stderr(Stdio::piped()).preserved_fds(files);
    let child = SharedChild::spawn(&mut command);
    let child = child.with_context(|| format!("cannot start {}", program.display()))?;
    // The command holds this process's copies of `files`; the guest's end of the failure port must
    // not stay open here.
    drop(command);
    let stderr = child.take_stderr();
    let messages = thread::spawn(move || stderr.and_then(forward));
    let failure = thread::spawn(move || read_failure(failure.into()));
    Ok(Launched { child: Arc::new(child), failure, messages })
}

impl Launched {
    /// The process.
    pub fn child(&self) -> Arc<SharedChild> {
        Arc::clone(&self.child)
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<Outcome> {
        let status = self.child.wait().context("cannot wait for the VMM")?;
        let failure = self.failure.join().unwrap_or_default();
        let error = self.messages.join().unwrap_or_default();
        Ok(Outcome { reason: death::reason(status, &failure), signal: status.signal(), error })
    }
}

/// The VMM: what the environment or a property names, else the one beside this program, else the
/// one in PATH.
pub fn program(props: &Props) -> PathBuf {
    if let Some(given) = env::var_os(PROGRAM_VARIABLE).map(PathBuf::from).or_else(|| props.vmm()) {
        return given;
    }
    let beside = env::current_exe().ok().map(|exe| exe.with_file_name(PROGRAM));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PROGRAM.into())
}

/// Passes the VMM's messages on, and keeps its last error.
fn forward(messages: impl Read) -> Option<String> {
    let mut reader = BufReader::new(messages);
    let mut last = None;
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return last,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().strip_prefix(ERROR_PREFIX) {
            Some(error) => last = Some(error.to_owned()),
            // Whether anybody reads it is not the VM's concern.
            None => drop(writeln!(io::stderr(), "{}", line.trim_end())),
        }
    }
}

fn read_failure(pipe: File) -> String {
    let mut text = Vec::new();
    // What could be read counts.
    let _ = (&pipe).take(FAILURE_LIMIT).read_to_end(&mut text);
    // The guest may go on; it must not block.
    let _ = io::copy(&mut &pipe, &mut io::sink());
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_kept() {
        let text = "one\ngzvm_vmm: error: first\ngzvm_vmm: error: second\n\n";
        assert_eq!(forward(text.as_bytes()).as_deref(), Some("second"));
        assert_eq!(forward(&b"no newline"[..]), None);
        assert_eq!(forward(&[0xff, b'\n'][..]), None);
    }
}
