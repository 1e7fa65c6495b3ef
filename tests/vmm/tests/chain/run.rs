// SPDX-License-Identifier: Apache-2.0
//! `vm run` with the processes below it.

use anyhow::{ensure, Context, Result};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::host::settles;
use gzvm_vmm_test::vmm::pipe;
use gzvm_vmm_test::{GUESTS, PATIENCE};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

/// Where configurations are written.
const DIR: &str = "/tmp/vm_chain";

/// A configuration of the payload in this mode.
pub fn payload(mode: &str, protected: bool) -> Result<String> {
    config(
        &format!("payload-{mode}-{protected}"),
        &format!(
            r#""kernel": "{GUESTS}/payload.bin", "params": "mode={mode}", "protected": {protected}, "memory_mib": 16"#
        ),
    )
}

/// A configuration of Linux that takes commands from its console.
pub fn linux(protected: bool) -> Result<String> {
    config(
        &format!("linux-{protected}"),
        &format!(
            r#""kernel": "{GUESTS}/Image", "initrd": "{GUESTS}/linux-initramfs.cpio.gz", "protected": {protected},
        "params": "{}", "memory_mib": 128"#,
            gzvm_vmm_test::guest::COMMANDS
        ),
    )
}

fn config(name: &str, keys: &str) -> Result<String> {
    fs::create_dir_all(DIR)?;
    let path = format!("{DIR}/{name}.json");
    let text =
        format!(r#"{{ {keys}, "console_input_device": "ttyS0", "platform_version": "~1.0" }}"#);
    fs::write(&path, text).with_context(|| path.clone())?;
    Ok(path)
}

/// A running `vm run`.
pub struct VmRun {
    child: Child,
    console: Console,
    /// What it and the guest printed so far.
    text: String,
}

impl VmRun {
    /// Starts it, as this user; what it and the guest print is read line by line.
    pub fn start(args: &[&str], uid: u32) -> Result<Self> {
        let (output, theirs) = pipe()?;
        let (input, mine) = pipe()?;
        let mut command = Command::new("vm");
        command.arg("run").args(args).stdin(input).stderr(theirs.try_clone()?).stdout(theirs);
        let child = command.uid(uid).gid(uid).spawn().context("vm")?;
        // The command holds copies of the child's ends.
        drop(command);
        Ok(Self { child, console: Console::new(output, Some(mine)), text: String::new() })
    }

    /// Starts it as root, and waits for a line with `ready`; the answer has the VM's context id.
    pub fn ready(args: &[&str], ready: &str) -> Result<(Self, u32)> {
        let mut vm = Self::start(args, 0)?;
        let cid = vm.until_ready(ready)?;
        Ok((vm, cid))
    }

    /// Waits until the VM was created, and until a line with `ready`, in whatever order they come.
    pub fn until_ready(&mut self, ready: &str) -> Result<u32> {
        let deadline = Instant::now() + PATIENCE;
        let (mut cid, mut is_ready) = (None, false);
        while cid.is_none() || !is_ready {
            let line = self.next(deadline).with_context(|| format!("not ready:\n{}", self.text))?;
            cid = cid.or_else(|| created(&line));
            is_ready |= line.contains(ready);
        }
        cid.context("no CID")
    }

    /// Sends the guest a line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.console.send(line)
    }

    /// Waits for a line with this part.
    pub fn expect(&mut self, part: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.next(deadline);
            if line.with_context(|| format!("no line \"{part}\":\n{}", self.text))?.contains(part) {
                return Ok(());
            }
        }
    }

    fn next(&mut self, deadline: Instant) -> Option<String> {
        let line = self.console.next(deadline).ok()?;
        self.text += &line;
        self.text.push('\n');
        Some(line)
    }

    /// The tool's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// virtmgr's process, if there is one.
    pub fn virtmgr(&self) -> Option<u32> {
        child_of(self.pid(), "gzvm_virtmgr")
    }

    /// The VMM's process, if there is one.
    pub fn vmm(&self) -> Option<u32> {
        child_of(self.virtmgr()?, "crosvm_")
    }

    /// Whether the tool has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end; all that it printed, and its status.
    pub fn wait(mut self) -> Result<(String, ExitStatus)> {
        settles("the end of vm run", || Ok(!self.runs()?)).with_context(|| self.text.clone())?;
        let deadline = Instant::now() + PATIENCE;
        while self.next(deadline).is_some() {}
        Ok((std::mem::take(&mut self.text), self.child.wait()?))
    }

    /// Waits for its end, which must be this one.
    pub fn ends(self, how: &str) -> Result<()> {
        let (text, status) = self.wait()?;
        ensure!(
            text.contains(&format!("VM ended: {how}\n")) && status.success(),
            "{status}: {text}"
        );
        Ok(())
    }
}

impl Drop for VmRun {
    fn drop(&mut self) {
        // It may have ended by itself; all that it started ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The context id in the line that says that a VM was created.
fn created(line: &str) -> Option<u32> {
    let rest = line.strip_prefix("Created VM from ")?.split_once(" with CID ")?.1;
    rest.split(',').next()?.parse().ok()
}

/// Kills a process at once.
pub fn kill_now(pid: u32) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("kill")
}

/// Processes whose command line begins with one of these names, and their parents.
pub fn processes(names: &[&str]) -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let dir = Path::new("/proc").join(pid.to_string());
        let line = fs::read(dir.join("cmdline")).ok()?;
        let program = String::from_utf8_lossy(line.split(|&byte| byte == 0).next()?).into_owned();
        let program = program.rsplit('/').next()?;
        let parent = fs::read_to_string(dir.join("stat")).ok()?;
        let parent = parent.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        names.iter().any(|name| program.starts_with(name)).then_some((pid, parent))
    })
    .collect()
}

fn child_of(parent: u32, name: &str) -> Option<u32> {
    processes(&[name]).into_iter().find(|&(_, of)| of == parent).map(|(pid, _)| pid)
}

/// Runs a command of `vm` as this user; status and all that it printed.
pub fn vm_as(args: &str, uid: u32) -> Result<(ExitStatus, String)> {
    let mut command = Command::new("vm");
    let output = command.args(args.split_whitespace()).uid(uid).gid(uid).output().context("vm")?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok((output.status, text.into_owned()))
}

/// Runs a command of `vm` as root, which must succeed; what it printed.
pub fn vm(args: &str) -> Result<String> {
    let (status, text) = vm_as(args, 0)?;
    ensure!(status.success(), "vm {args}: {status}: {text}");
    Ok(text)
}
