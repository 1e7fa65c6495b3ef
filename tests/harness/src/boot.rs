// SPDX-License-Identifier: Apache-2.0
//! Boots of the test machine: the demo, the shell, and one for looking around.

use std::io::IsTerminal;

use anyhow::{bail, Result};
use clap::Args;

use crate::kernel::Variant;
use crate::parts::Parts;
use crate::project::Project;
use crate::qemu::{Limits, Machine, Run};

/// The line with which the demo says that each of its claims really happened.
pub const DEMO_OK: &str = "##demo-result ok";

/// What a user may change about the machine.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// RAM in MiB
    #[arg(long, default_value_t = 4096)]
    pub memory: u32,
    /// Number of host CPUs
    #[arg(long, default_value_t = 4)]
    pub cpus: u32,
    /// QEMU's CPU model
    #[arg(long, default_value = "cortex-a76")]
    pub cpu: String,
    /// Boot Linux without the hypervisor
    #[arg(long)]
    pub no_hypervisor: bool,
    /// Use the hypervisor that has the hooks for tests
    #[arg(long)]
    pub test_hypervisor: bool,
    /// More words for the kernel's and the hypervisor's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// More arguments for QEMU
    #[arg(last = true)]
    pub qemu: Vec<String>,
}

impl Options {
    /// The machine for tests: the least that is supported, for what fits there fits everywhere.
    pub fn for_tests(test_hypervisor: bool, variant: Variant) -> Self {
        Self {
            memory: match variant {
                Variant::Usual | Variant::Bench => 2048,
                // KASAN takes an eighth, and keeps freed memory for a while.
                Variant::Debug => 4096,
            },
            cpus: 4,
            cpu: "cortex-a76".to_owned(),
            no_hypervisor: false,
            test_hypervisor,
            append: String::new(),
            qemu: Vec::new(),
        }
    }

    /// The machine, with `words` on its command line. Programs in it learn by how much their time
    /// limits are to be multiplied.
    pub fn machine(&self, parts: &Parts, words: &str) -> Machine {
        let slow = Limits::factor() * parts.variant.slowness();
        let slow = if slow > 1 { format!(" gzvm.slow={slow}") } else { String::new() };
        let hypervisor = if self.test_hypervisor { &parts.refhyp_test } else { &parts.refhyp };
        Machine {
            image: parts.kernel.image.clone(),
            hypervisor: (!self.no_hypervisor).then(|| hypervisor.clone()),
            firmware: Some(parts.firmware.clone()),
            initramfs: parts.initramfs.clone(),
            append: format!("{words}{slow} {}", self.append).trim().to_owned(),
            memory: self.memory,
            cpus: self.cpus,
            cpu: self.cpu.clone(),
            extra: self.qemu.clone(),
        }
    }
}

/// Boots the demo with its console on the screen.
///
/// # Errors
///
/// When any of the demo's claims did not really happen.
pub fn demo(project: &Project, options: &Options, parts: &Parts) -> Result<()> {
    let color = if std::io::stdout().is_terminal() { "" } else { " gzvm.color=no" };
    let machine = options.machine(parts, &format!("quiet gzvm.mode=run{color}"));
    let limits = Limits::seconds(600, 120);
    // Lines with ## are for reports; people have the summary above them.
    let show = |line: &str| {
        if !line.starts_with("##") {
            println!("{line}");
        }
    };
    let run = machine.run(&project.log("demo"), limits, show)?;
    judge_demo(&run)
}

/// Whether the demo's machine stayed healthy and all of its claims happened.
///
/// # Errors
///
/// Names what went wrong.
pub fn judge_demo(run: &Run) -> Result<()> {
    if !run.problems.is_empty() {
        bail!("the demo's machine failed:\n  {}", run.problems.join("\n  "));
    }
    if !run.lines.iter().any(|line| line.trim_end() == DEMO_OK) {
        bail!("the demo did not end with \"{DEMO_OK}\": not all that it shows really happened");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lines: &[&str], problems: &[&str]) -> Run {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Run { lines: own(lines), times: Vec::new(), problems: own(problems) }
    }

    #[test]
    fn only_the_demo_s_own_word_counts() {
        judge_demo(&run(&["summary", DEMO_OK, "reboot: Power down"], &[])).unwrap();
        for lines in [&["summary"][..], &["##demo-result failed"], &["echo ##demo-result ok"]] {
            assert!(judge_demo(&run(lines, &[])).is_err());
        }
        assert!(judge_demo(&run(&[DEMO_OK], &["the host's console says: WARNING"])).is_err());
    }
}
