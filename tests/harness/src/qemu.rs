// SPDX-License-Identifier: Apache-2.0
//! The test machine: QEMU's `virt` with EL2, its console watched line by line.

use std::io::Write;
use std::ops::Mul;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

use crate::console::{self, Defect};
use crate::interrupt;
use crate::process::{self, Job};

/// Where refhyp expects the host's kernel (its own memory lies below).
const HOST_IMAGE: &str = "0x44000000";
/// Where refhyp looks for the firmware of protected VMs (`refhyp::firmware::ADDRESS`).
const FIRMWARE: &str = "0x43c00000";
/// What a dying machine may still say.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A machine to boot.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Linux, the host's kernel.
    pub image: PathBuf,
    /// The hypervisor's image; without one Linux boots with no EL2 at all.
    pub hypervisor: Option<PathBuf>,
    /// What refhyp starts protected VMs with, if anything.
    pub firmware: Option<PathBuf>,
    /// The host's initramfs.
    pub initramfs: PathBuf,
    /// Words for the command line, beside the console's.
    pub append: String,
    /// RAM in MiB.
    pub memory: u32,
    /// Host CPUs.
    pub cpus: u32,
    /// QEMU's CPU model.
    pub cpu: String,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
}

impl Machine {
    /// QEMU's command line; `serial` is QEMU's name for where the console goes.
    fn command(&self, serial: &str) -> Command {
        // QEMU ends with the harness, even when that is killed.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--", "qemu-system-aarch64"]);
        let el2 = if self.hypervisor.is_some() { "on" } else { "off" };
        qemu.arg("-M").arg(format!("virt,virtualization={el2},gic-version=3,its=off"));
        qemu.args(["-cpu", &self.cpu, "-smp", &self.cpus.to_string()]);
        qemu.args(["-m", &format!("{}M", self.memory), "-nic", "none", "-no-reboot"]);
        qemu.args(["-display", "none", "-serial", serial, "-monitor", "none"]);
        match &self.hypervisor {
            Some(hypervisor) => {
                qemu.arg("-kernel").arg(hypervisor);
                let image = self.image.display();
                qemu.arg("-device");
                qemu.arg(format!("loader,file={image},addr={HOST_IMAGE},force-raw=on"));
                if let Some(firmware) = &self.firmware {
                    let file = firmware.display();
                    qemu.arg("-device");
                    qemu.arg(format!("loader,file={file},addr={FIRMWARE},force-raw=on"));
                }
            }
            None => {
                qemu.arg("-kernel").arg(&self.image);
            }
        }
        qemu.arg("-initrd").arg(&self.initramfs);
        let append = format!("console=ttyAMA0 panic=-1 oops=panic {}", self.append);
        qemu.arg("-append").arg(append.trim_end()).args(&self.extra);
        qemu
    }

    /// Boots with the terminal connected to the console, until the machine powers off.
    ///
    /// # Errors
    ///
    /// When QEMU cannot be started or fails.
    pub fn interactive(&self) -> Result<()> {
        // In the harness's own process group: QEMU must be able to read the terminal.
        let status = self.command("mon:stdio").status().context("cannot start QEMU")?;
        if !status.success() {
            bail!("QEMU failed ({status})");
        }
        Ok(())
    }

    /// Boots and watches the console until the machine is off. `on_line` sees each line.
    ///
    /// # Errors
    ///
    /// When QEMU cannot be started, or the user interrupts. A machine that misbehaves is not an
    /// error of this function: see [`Run::problems`].
    pub fn run(&self, log: &Path, limits: Limits, mut on_line: impl FnMut(&str)) -> Result<Run> {
        let mut file = process::create(log)?;
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let mut command = self.command("stdio");
        writeln!(file, "# {command:?}")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut job = Job::spawn(&mut command)?;
        drop(command);
        let (send, receive) = mpsc::channel();
        let reading = thread::spawn(move || {
            for line in process::lines(reader).map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let mut watch = Watch::new(limits);
        loop {
            match receive.recv_timeout(watch.patience()) {
                Ok(line) => {
                    writeln!(file, "{line}")?;
                    watch.line(&line);
                    on_line(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    watch.out_of_time();
                    job.kill();
                    break;
                }
            }
        }
        let status = job.wait()?;
        // Ends because the pipe has no writer any more.
        let _ = reading.join();
        interrupt::check()?;
        Ok(watch.end(status.success(), log))
    }
}

/// How long a machine may take, in wall time. Generous: a slow machine must not fail a test that
/// a fast one passes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From power-on to power-off.
    pub total: Duration,
    /// Without a line on the console.
    pub silence: Duration,
}

impl Limits {
    /// Limits of so many seconds, times `$GZVM_TIMEOUT_FACTOR`.
    pub fn seconds(total: u64, silence: u64) -> Self {
        let (total, silence) = (Duration::from_secs(total), Duration::from_secs(silence));
        Self { total, silence } * Self::factor()
    }

    /// `$GZVM_TIMEOUT_FACTOR`, 1 if it is not set.
    pub fn factor() -> u32 {
        let factor = std::env::var("GZVM_TIMEOUT_FACTOR").ok().and_then(|text| text.parse().ok());
        factor.unwrap_or(1).max(1)
    }
}

impl Mul<u32> for Limits {
    type Output = Self;

    fn mul(self, factor: u32) -> Self {
        Self { total: self.total * factor, silence: self.silence * factor }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    /// All lines of the console.
    pub lines: Vec<String>,
    /// When each of them came, since power-on.
    pub times: Vec<Duration>,
    /// What went wrong with the machine itself; empty when it powered off in good health.
    pub problems: Vec<String>,
}

struct Watch {
    limits: Limits,
    started: Instant,
    dying: Option<Instant>,
    lines: Vec<String>,
    times: Vec<Duration>,
    problems: Vec<String>,
}

impl Watch {
    fn new(limits: Limits) -> Self {
        let (lines, times, problems) = (Vec::new(), Vec::new(), Vec::new());
        Self { limits, started: Instant::now(), dying: None, lines, times, problems }
    }

    /// How long to wait for the next line.
    fn patience(&self) -> Duration {
        if let Some(since) = self.dying {
            return LAST_WORDS.saturating_sub(since.elapsed());
        }
        self.limits.silence.min(self.limits.total.saturating_sub(self.started.elapsed()))
    }

    fn line(&mut self, line: &str) {
        if let Some(defect) = console::defect(line) {
            self.problems.push(format!("the host's console says: {line}"));
            if defect == Defect::Dies {
                self.dying.get_or_insert_with(Instant::now);
            }
        }
        self.lines.push(line.to_owned());
        self.times.push(self.started.elapsed());
    }

    fn out_of_time(&mut self) {
        if self.dying.is_some() {
            return;
        }
        let total = self.started.elapsed() >= self.limits.total;
        let (limit, what) = if total {
            (self.limits.total, "the machine was still running")
        } else {
            (self.limits.silence, "the console said nothing")
        };
        self.problems.push(format!("{what} after {} s: killed", limit.as_secs()));
    }

    fn end(mut self, success: bool, log: &Path) -> Run {
        if !success && self.problems.is_empty() {
            let last = self.lines.last().map_or("", String::as_str);
            self.problems.push(format!("QEMU failed: {last}"));
        }
        if !self.problems.is_empty() {
            self.problems.push(format!("whole console: {}", log.display()));
        }
        Run { lines: self.lines, times: self.times, problems: self.problems }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(hypervisor: bool) -> Machine {
        Machine {
            image: "Image".into(),
            hypervisor: hypervisor.then(|| "refhyp.img".into()),
            firmware: Some("pvmfw.img".into()),
            initramfs: "host.cpio".into(),
            append: "gzvm.mode=test".to_owned(),
            memory: 2048,
            cpus: 4,
            cpu: "cortex-a76".to_owned(),
            extra: vec!["-s".to_owned()],
        }
    }

    fn line(command: &Command) -> String {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        args.join(" ")
    }

    #[test]
    fn linux_is_placed_beside_the_hypervisor() {
        let line = line(&machine(true).command("stdio"));
        assert!(line.contains("-kernel refhyp.img -device loader,file=Image,addr=0x44000000"));
        assert!(line.contains("-device loader,file=pvmfw.img,addr=0x43c00000,force-raw=on"));
        assert!(line.contains("virtualization=on"));
        assert!(line.ends_with("panic=-1 oops=panic gzvm.mode=test -s"), "{line}");
    }

    #[test]
    fn without_a_hypervisor_there_is_no_el2() {
        let line = line(&machine(false).command("stdio"));
        assert!(line.contains("virtualization=off") && line.contains("-kernel Image"));
        assert!(!line.contains("loader"));
    }

    fn watch(total: u64, silence: u64) -> Watch {
        let seconds = Duration::from_secs;
        Watch::new(Limits { total: seconds(total), silence: seconds(silence) })
    }

    #[test]
    fn a_healthy_machine_has_no_problems() {
        let mut watch = watch(100, 10);
        assert!(watch.patience() <= Duration::from_secs(10));
        watch.line("[    0.1] Booting Linux");
        assert!(watch.end(true, Path::new("x.log")).problems.is_empty());
    }

    #[test]
    fn a_warning_fails_the_run_but_does_not_end_it() {
        let mut watch = watch(100, 50);
        watch.line("[    2.1] WARNING: suspicious RCU usage");
        assert!(watch.patience() > LAST_WORDS);
        let run = watch.end(true, Path::new("x.log"));
        assert!(run.problems[0].contains("suspicious RCU usage"));
        assert!(run.problems[1].contains("x.log"));
    }

    #[test]
    fn a_panic_ends_the_run_soon() {
        let mut watch = watch(100, 50);
        watch.line("[    2.1] Kernel panic - not syncing: oops");
        assert!(watch.patience() <= LAST_WORDS);
        watch.out_of_time();
        assert_eq!(watch.problems.len(), 1);
    }

    #[test]
    fn time_limits_say_which_one_it_was() {
        let mut silent = watch(100, 0);
        silent.out_of_time();
        assert!(silent.problems[0].contains("said nothing"));
        let mut long = watch(0, 10);
        long.out_of_time();
        assert!(long.problems[0].contains("still running"));
    }

    #[test]
    fn a_failed_qemu_is_quoted() {
        let mut watch = watch(100, 10);
        watch.line("qemu-system-aarch64: could not load kernel");
        let run = watch.end(false, Path::new("x.log"));
        assert!(run.problems[0].contains("could not load kernel"));
    }
}
