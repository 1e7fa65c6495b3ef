// SPDX-License-Identifier: Apache-2.0
//! Running other programs: output into a log file, its last lines shown when the program fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};

use crate::interrupt;

/// Lines of output that an error message quotes.
const QUOTED: usize = 30;

/// A child process that leads a group of its own. The whole group ends with it, or with this value.
pub struct Job {
    child: Child,
    pid: Pid,
    reaped: bool,
}

impl Job {
    /// Starts `command` as the leader of a new process group.
    ///
    /// # Errors
    ///
    /// When the program cannot be started; the message names it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        interrupt::check()?;
        let child = command.process_group(0).spawn().with_context(|| cannot_start(command))?;
        let pid = Pid::from_child(&child);
        interrupt::register(pid);
        Ok(Self { child, pid, reaped: false })
    }

    /// Ends the group, at once.
    pub fn kill(&self) {
        // It may have ended by itself meanwhile.
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Waits for the leader, and ends what it left behind.
    ///
    /// # Errors
    ///
    /// When the child cannot be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        // Not reaped yet, so the group's number is still ours.
        waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        self.kill();
        interrupt::unregister(self.pid);
        self.reaped = true;
        Ok(self.child.wait()?)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Nothing can be done about a child that cannot be waited for.
            let _ = self.wait();
        }
    }
}

fn cannot_start(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    format!("cannot start {program}: is it installed? (tests/harness/bootstrap.sh installs all)")
}

/// Runs a command with its output (both streams, in order) in the file `log`; `on_line` sees
/// each line.
///
/// # Errors
///
/// When the program cannot be started or fails; the message ends with its last lines.
pub fn logged(command: &mut Command, log: &Path, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut file = create(log)?;
    writeln!(file, "# {command:?}")?;
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut job = Job::spawn(command)?;
    // The command keeps copies of the pipe's write end, and with them the pipe would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut last = VecDeque::new();
    for line in lines(reader) {
        let line = line?;
        writeln!(file, "{line}")?;
        on_line(&line);
        // Cargo's messages to programs are of no use to people.
        if line.starts_with("{\"") {
            continue;
        }
        if last.len() == QUOTED {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = job.wait()?;
    interrupt::check()?;
    if !status.success() {
        let quoted: Vec<_> = last.into_iter().map(|line| format!("  | {line}\n")).collect();
        bail!(
            "{} failed ({status}); its last lines:\n{}  whole output: {}",
            command.get_program().to_string_lossy(),
            quoted.concat(),
            log.display()
        );
    }
    Ok(())
}

/// Creates a log file and the directory for it.
///
/// # Errors
///
/// When the file cannot be created.
pub fn create(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

/// The lines of a byte stream that need not be UTF-8, such as a serial console.
pub fn lines(stream: impl io::Read) -> impl Iterator<Item = io::Result<String>> {
    BufReader::new(stream).split(b'\n').map(|line| {
        line.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim_end_matches('\r').to_owned()
        })
    })
}

/// What a short command prints on its standard output.
///
/// # Errors
///
/// When it cannot be started or fails; the message has its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is found in PATH.
pub fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_logged_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a/b.log");
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three"]);
        logged(&mut command, &log, |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
        assert!(fs::read_to_string(log).unwrap().ends_with("one\ntwo\nthree\n"));
    }

    #[test]
    fn a_failure_quotes_the_last_lines_and_names_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let mut command = Command::new("sh");
        command.args(["-c", "seq 100; echo the cause >&2; exit 3"]);
        let error = format!("{:#}", logged(&mut command, &log, |_| ()).unwrap_err());
        assert!(error.contains("the cause") && error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("| 70\n") && error.contains("| 72\n"), "{error}");
        assert!(error.contains("x.log"), "{error}");
    }

    fn alive(pid: &str) -> bool {
        // A zombie that nobody reaps yet is dead, too.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    /// A shell with a child in the background, whose process id it prints.
    fn with_grandchild(script: &str) -> (Job, String) {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(writer);
        let job = Job::spawn(&mut command).unwrap();
        drop(command);
        let pid = lines(reader).next().unwrap().unwrap();
        (job, pid)
    }

    fn ends(pid: &str) -> bool {
        (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !alive(pid)
        })
    }

    #[test]
    fn a_dropped_job_takes_its_group_along() {
        let (job, pid) = with_grandchild("sleep 1000 & echo $!; wait");
        assert!(alive(&pid));
        drop(job);
        assert!(ends(&pid));
    }

    #[test]
    fn nothing_outlives_the_leader() {
        let (mut job, pid) = with_grandchild("sleep 1000 & echo $!; exit 7");
        assert_eq!(job.wait().unwrap().code(), Some(7));
        assert!(ends(&pid));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }
}
