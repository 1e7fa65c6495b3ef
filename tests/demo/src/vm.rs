// SPDX-License-Identifier: Apache-2.0
//! A VM that runs as the child process `vm run`: its console is shown, read and written.

use crate::screen::Screen;
use anyhow::{bail, Context, Result};
use std::io::{self, BufRead, BufReader, PipeReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A running `vm run`.
pub struct Vm {
    screen: Screen,
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    lines: Vec<String>,
    started: Instant,
}

/// A `vm run` that has ended.
pub struct Ended {
    /// How the tool ended.
    pub status: ExitStatus,
    /// All that it and the guest printed.
    pub lines: Vec<String>,
}

impl Vm {
    /// Starts `vm run` with a configuration.
    pub fn start(screen: Screen, tool: &Path, config: &Path) -> Result<Self> {
        screen.note(&format!("$ {} run {}", tool.display(), config.display()));
        let mut command = Command::new(tool);
        command.arg("run").arg(config);
        Self::spawn(screen, command).with_context(|| format!("cannot run {}", tool.display()))
    }

    /// Starts the tool.
    fn spawn(screen: Screen, mut command: Command) -> Result<Self> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        // The command holds the pipe's other end: without it the reader sees the end.
        drop(command);
        let input = child.stdin.take().context("the child has no standard input")?;
        Ok(Self {
            screen,
            child,
            input,
            output: read_lines(reader),
            lines: Vec::new(),
            started: Instant::now(),
        })
    }

    /// The tool's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time since the start.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until a line that begins with `start` comes, and returns what follows.
    pub fn expect(&mut self, start: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_line(deadline) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no line \"{start}...\" within {} s", limit.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the VM ended without a line \"{start}...\"")
                }
            }
        }
    }

    /// Sends a line to the guest's console.
    pub fn send_line(&mut self) -> Result<()> {
        self.input.write_all(b"\n").context("cannot write to the guest's console")?;
        self.input.flush().context("cannot write to the guest's console")
    }

    /// Whether the tool is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended.
    pub fn finish(mut self, limit: Duration) -> Result<Ended> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_line(deadline) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the VM did not end within {} s", limit.as_secs())
                }
            }
        }
        let status = self.child.wait().context("cannot wait for the vm tool")?;
        Ok(Ended { status, lines: std::mem::take(&mut self.lines) })
    }

    /// The next line, which is also shown and kept.
    fn next_line(&mut self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.output.recv_timeout(left)?;
        self.screen.quote(&line);
        self.lines.push(line.clone());
        Ok(line)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.is_running() {
            // The VMM ends with the tool. If this fails, the tool has ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads lines as they come, until all writers have closed.
fn read_lines(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches(['\r', '\n']).to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A shell script in place of the tool.
    fn start(script: &str) -> Vm {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Vm::spawn(Screen::new(), command).unwrap()
    }

    #[test]
    fn lines_are_read_and_a_line_is_sent() {
        let mut vm = start("printf 'a\\r\\nkey: value\\r\\n'; read x; echo got >&2; exit 3");
        assert_eq!(vm.expect("key: ", LIMIT).unwrap(), "value");
        assert!(vm.is_running());
        vm.send_line().unwrap();
        let ended = vm.finish(LIMIT).unwrap();
        assert_eq!((ended.status.code(), ended.lines.last().unwrap().as_str()), (Some(3), "got"));
    }

    #[test]
    fn what_does_not_come_is_an_error() {
        let error = start("echo a").expect("b", LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "the VM ended without a line \"b...\"");
        let mut vm = start("echo a; exec sleep 600");
        let error = vm.expect("b", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "no line \"b...\" within 0 s");
        assert!(vm.finish(Duration::from_millis(50)).is_err());
    }
}
