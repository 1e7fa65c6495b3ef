// SPDX-License-Identifier: Apache-2.0
//! What the host knows about the hypervisor below, and its kernel's log.

use anyhow::{anyhow, bail, ensure, Context, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

/// How messages begin that report a defect of the kernel.
const DEFECTS: &[&str] = &[
    "BUG: ",
    "[ BUG: ",
    "INFO: task ",
    "Internal error: ",
    "Kernel panic",
    "Unable to handle kernel ",
    "WARNING: ",
    "kernel BUG at ",
    "rcu: INFO: ",
    "watchdog: BUG: ",
];

/// The kernel's log since boot.
pub struct KernelLog {
    file: io::Result<File>,
    messages: Vec<String>,
}

impl KernelLog {
    /// Opens the log at its beginning. If that fails, reading it will say so.
    pub fn open() -> Self {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        Self { file, messages: Vec::new() }
    }

    /// All messages so far.
    pub fn messages(&mut self) -> Result<&[String]> {
        let file = self.file.as_mut().map_err(|error| anyhow!("cannot open /dev/kmsg: {error}"))?;
        let mut record = [0; 8192];
        loop {
            match file.read(&mut record) {
                Ok(size) => {
                    let record = String::from_utf8_lossy(record.get(..size).unwrap_or_default());
                    self.messages.extend(message(&record));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(&self.messages),
                // Messages were overwritten before they were read; the next read goes on.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => return Err(error).context("cannot read /dev/kmsg"),
            }
        }
    }

    /// Messages that report a defect of the kernel.
    pub fn defects(&mut self) -> Result<Vec<String>> {
        let is_defect = |text: &&String| DEFECTS.iter().any(|defect| text.starts_with(defect));
        Ok(self.messages()?.iter().filter(is_defect).cloned().collect())
    }

    /// The first message that contains `text`.
    pub fn find(&mut self, text: &str) -> Result<String> {
        let found = self.messages()?.iter().find(|message| message.contains(text));
        found.cloned().with_context(|| format!("the kernel's log has no \"{text}\""))
    }
}

/// The text of a record `priority,sequence,time,flags;text`.
fn message(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    text.lines().next().map(str::to_owned)
}

/// A node of the host's device tree that is compatible with `what`.
pub fn device_tree_node(what: &str) -> Result<String> {
    let is_compatible = |path: &Path| {
        let strings = fs::read(path.join("compatible")).unwrap_or_default();
        strings.split(|&byte| byte == 0).any(|string| string == what.as_bytes())
    };
    for entry in fs::read_dir("/proc/device-tree").context("cannot read the device tree")? {
        let path = entry?.path();
        if is_compatible(&path) {
            return Ok(path.display().to_string());
        }
    }
    bail!("the device tree has no node that is compatible with {what}")
}

/// The context id of the VM that a `vm run` with this process id has, as AVF's global service lists it.
pub fn listed(tool: &Path, pid: u32) -> Result<String> {
    let output = Command::new(tool).arg("list").output();
    let output = output.with_context(|| format!("cannot run {}", tool.display()))?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "vm list: {}", String::from_utf8_lossy(&output.stderr));
    let vm = list.split_once(&format!("requesterPid: {pid},")).map(|(before, _)| before);
    let cid = vm.and_then(|vm| vm.rsplit_once("cid: ")?.1.split(',').next());
    Ok(cid.with_context(|| format!("vm list does not have the VM: {list}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_text_behind_a_semicolon() {
        let record = "6,339,5140900,-;NET: Registered; really\n SUBSYSTEM=net\n";
        assert_eq!(message(record).as_deref(), Some("NET: Registered; really"));
        assert_eq!(message("nonsense"), None);
    }
}
