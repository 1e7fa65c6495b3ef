// SPDX-License-Identifier: Apache-2.0
//! The VMM as a child process, started as virtmgr starts it: files are inherited descriptors.

use crate::console::Console;
use crate::PATIENCE;
use anyhow::{bail, Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// The first number of a descriptor that a test hands over; below are those of fixed command lines.
const FIRST_FD: RawFd = 60;
/// Bytes that are read from a failure port.
const FAILURE: u64 = 4096;
/// Between two looks at a child.
const INTERVAL: Duration = Duration::from_millis(20);

/// A command line in the making.
pub struct Setup {
    args: Vec<String>,
    files: Vec<FdMapping>,
    next: RawFd,
    failure: Option<File>,
    user: Option<u32>,
}

impl Setup {
    /// `gzvm_vmm --extended-status run`, with a failure port whose reader is this process.
    pub fn new() -> Result<Self> {
        let mut setup = Self::with(&["--extended-status", "--log-level", "info", "run"]);
        let (reader, writer) = pipe()?;
        let path = setup.file(writer);
        setup.arg(&format!("--serial=type=file,path={path},hardware=serial,num=2"));
        setup.failure = Some(reader);
        Ok(setup)
    }

    /// Exactly these arguments.
    pub fn with(args: &[&str]) -> Self {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        Self { args, files: Vec::new(), next: FIRST_FD, failure: None, user: None }
    }

    /// Has the VMM run as another user, without privileges.
    pub fn user(&mut self, user: u32) -> &mut Self {
        self.user = Some(user);
        self
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: &str) -> &mut Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds arguments that contain no spaces.
    pub fn args(&mut self, args: &str) -> &mut Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// Hands over a file; the answer is its name there.
    pub fn file(&mut self, file: impl Into<OwnedFd>) -> String {
        let number = self.next;
        self.next += 1;
        self.file_as(number, file);
        format!("/proc/self/fd/{number}")
    }

    /// Hands over a file under a fixed number.
    pub fn file_as(&mut self, child_fd: RawFd, file: impl Into<OwnedFd>) -> &mut Self {
        self.files.push(FdMapping { parent_fd: file.into(), child_fd });
        self
    }

    /// Hands over a file by name, for reading.
    pub fn open(&mut self, path: &str) -> Result<String> {
        Ok(self.file(File::open(path).with_context(|| path.to_owned())?))
    }

    /// Adds a port with output and input that this process has.
    pub fn console(&mut self, spec: &str) -> Result<Console> {
        let (output, theirs) = pipe()?;
        let (input, mine) = pipe()?;
        let (out_path, in_path) = (self.file(theirs), self.file(input));
        self.arg(&format!("--serial=type=file,path={out_path},input={in_path},{spec}"));
        Ok(Console::new(output, Some(mine)))
    }

    /// Adds a disk.
    pub fn disk(&mut self, path: &Path, writable: bool) -> Result<&mut Self> {
        let file = OpenOptions::new().read(true).write(writable).open(path)?;
        let name = self.file(file);
        Ok(self.arg("--block").arg(&format!("path={name},ro={},lock=false", !writable)))
    }

    /// Starts the VMM.
    pub fn start(self) -> Result<Vmm> {
        let mut command = Command::new("gzvm_vmm");
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.fd_mappings(self.files)?;
        let mut child = command.spawn().context("gzvm_vmm")?;
        // The command holds copies of what the child has.
        drop(command);
        let stderr = child.stderr.take().context("no standard error")?;
        let (sender, messages) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Vmm { child, messages, said: Vec::new(), failure: self.failure })
    }
}

/// Both ends of a pipe: for reading, for writing.
pub fn pipe() -> Result<(File, File)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// A running VMM.
pub struct Vmm {
    child: Child,
    messages: Receiver<String>,
    said: Vec<String>,
    failure: Option<File>,
}

/// How a VMM ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status, or the negative number of the signal that killed it.
    pub status: i32,
    /// Its messages.
    pub said: String,
    /// What the guest wrote to the failure port.
    pub failure: String,
}

impl Ended {
    /// Checks status and a part of the messages.
    pub fn check(&self, status: i32, part: &str) -> Result<()> {
        if self.status != status || !self.said.contains(part) {
            bail!("status {}, not {status} with \"{part}\":\n{}", self.status, self.said);
        }
        Ok(())
    }
}

impl Vmm {
    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).context("kill")
    }

    /// Closes this process's end of the failure port, as a parent that dies does.
    pub fn abandon(&mut self) {
        self.failure = None;
    }

    /// Whether it is still there.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.messages.try_iter());
        self.said.join("\n")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Ended> {
        let deadline = Instant::now() + PATIENCE;
        while self.runs() {
            if Instant::now() > deadline {
                bail!("the VMM does not end; it said:\n{}", self.said());
            }
            thread::sleep(INTERVAL);
        }
        let status = self.child.wait()?;
        let status = status.code().or(status.signal().map(|signal| -signal)).unwrap_or(i32::MIN);
        // The rest of the messages, up to the end of the pipe.
        self.said.extend(self.messages.iter());
        let mut failure = Vec::new();
        if let Some(port) = self.failure.take() {
            port.take(FAILURE).read_to_end(&mut failure)?;
        }
        let failure = String::from_utf8_lossy(&failure).into_owned();
        Ok(Ended { status, said: self.said.join("\n"), failure })
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        if self.runs() {
            // It may have ended by itself meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
