// SPDX-License-Identifier: Apache-2.0
//! A Linux guest that runs commands from its console (`guest.mode=commands`).

use crate::console::{why, Console};
use crate::vmm::{Setup, Vmm};
use crate::{GUESTS, PATIENCE};
use anyhow::{bail, ensure, Context, Result};
use std::time::Instant;

/// Kernel parameters of such a guest whose console is ttyS0.
pub const COMMANDS: &str = "console=ttyS0 loglevel=4 guest.mode=commands";

/// A running guest.
pub struct Guest {
    /// Its VMM.
    pub vmm: Vmm,
    console: Console,
}

impl Guest {
    /// Boots Linux with what `setup` has, and waits until it takes commands.
    pub fn boot(mut setup: Setup, params: &str) -> Result<Self> {
        let console = setup.console("hardware=serial,num=1")?;
        let initrd = setup.open(&format!("{GUESTS}/linux-initramfs.cpio.gz"))?;
        let kernel = setup.open(&format!("{GUESTS}/Image"))?;
        setup.arg("--initrd").arg(&initrd).arg("--params").arg(params).arg(&kernel);
        Self::ready(setup.start()?, console)
    }

    /// Waits until the guest of `vmm`, whose commands come from `console`, takes them.
    pub fn ready(mut vmm: Vmm, mut console: Console) -> Result<Self> {
        let ready = console.expect("guest: commands", PATIENCE);
        ready.with_context(|| format!("the VMM said: {}", vmm.said()))?;
        Ok(Self { vmm, console })
    }

    /// Runs a command; returns its status and what it printed.
    pub fn try_run(&mut self, command: &str) -> Result<(i32, String)> {
        self.start(command)?;
        self.finish()
    }

    /// Runs a command that must succeed; returns what it printed.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let (status, text) = self.try_run(command)?;
        ensure!(status == 0, "in the guest: {command}: status {status}: {text}");
        Ok(text)
    }

    /// Starts a command.
    pub fn start(&mut self, command: &str) -> Result<()> {
        self.console.send(command)
    }

    /// Waits for the end of the command that was started.
    pub fn finish(&mut self) -> Result<(i32, String)> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self.console.next(deadline) {
                Ok(line) => match line.rsplit_once("##rc ") {
                    Some((before, status)) => {
                        lines.extend((!before.is_empty()).then(|| before.to_owned()));
                        let status = status.trim().parse().context("a status")?;
                        return Ok((status, lines.join("\n")));
                    }
                    None => lines.push(line),
                },
                Err(e) => bail!(
                    "no end of a command: {}; the VMM said: {}\n{}",
                    why(e),
                    self.vmm.said(),
                    self.console.quote()
                ),
            }
        }
    }

    /// Ends the guest by a command, and the VMM with it.
    pub fn end(mut self, command: &str) -> Result<crate::vmm::Ended> {
        self.start(command)?;
        self.vmm.wait()
    }
}
