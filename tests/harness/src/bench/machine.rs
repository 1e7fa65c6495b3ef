// SPDX-License-Identifier: Apache-2.0
//! Machines for benchmarks: one instruction is a nanosecond there, and nothing but the instructions
//! decides what happens when.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use super::symbols::{self, Symbols};
use super::windows::{self, Measure, Window};
use crate::boot::Options;
use crate::cargo;
use crate::fetch::Fetcher;
use crate::initramfs::Archive;
use crate::parts::{self, Parts};
use crate::process;
use crate::project::Project;
use crate::qemu::Limits;
use crate::toolchain;
use crate::ui::Step;

/// Seconds for one machine, and without a word on its console.
const LIMITS: (u64, u64) = (1500, 600);
/// QEMU's versions that have the plugin's interface: from, to, as major and minor.
const QEMU_VERSIONS: [(u32, u32); 2] = [(7, 2), (8, 2)];

/// A machine that one part of the benchmarks needs.
pub struct Group {
    /// Its name, which the program knows.
    pub name: &'static str,
    /// Host CPUs.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory: u32,
    /// Does it need the guests, and what starts them?
    pub guests: bool,
}

/// All benchmarks.
pub const ALL: [Group; 4] = [
    Group { name: "one", cpus: 1, memory: 6144, guests: false },
    Group { name: "two", cpus: 2, memory: 2048, guests: false },
    Group { name: "eight", cpus: 8, memory: 4096, guests: false },
    Group { name: "guests", cpus: 1, memory: 2048, guests: true },
];
/// The short part of them that is measured with the tests.
pub const GUARD: [Group; 1] = [Group { name: "guard", cpus: 2, memory: 2048, guests: false }];

/// What one machine measured.
pub struct Measured {
    /// Counts of instructions.
    pub windows: Vec<Window>,
    /// Other numbers.
    pub values: Vec<Measure>,
}

/// What is measured, by what.
pub struct Bench<'a> {
    project: &'a Project,
    parts: &'a Parts,
    plugin: PathBuf,
    program: PathBuf,
    module: PathBuf,
}

/// The first line of QEMU's word about itself.
///
/// # Errors
///
/// When there is no QEMU.
pub fn qemu_version() -> Result<String> {
    first_line("qemu-system-aarch64")
}

/// The first line that a program says about its version.
///
/// # Errors
///
/// When the program cannot be run.
pub fn first_line(program: &str) -> Result<String> {
    let text = process::output(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Why this QEMU cannot count; `None` if it can.
pub fn cannot_count(version: &str) -> Option<String> {
    let number =
        version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = number.unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let [first, last] = QEMU_VERSIONS;
    (number < first || number > last).then(|| {
        format!(
            "{version}: instructions are counted by a plugin for QEMU {}.{} to {}.{}",
            first.0, first.1, last.0, last.1
        )
    })
}

impl<'a> Bench<'a> {
    /// Builds what is needed beside the machine's parts. The module under test is ours or that of
    /// `GZVM_MODULE`.
    ///
    /// # Errors
    ///
    /// When something cannot be built.
    pub fn new(project: &'a Project, parts: &'a Parts) -> Result<Self> {
        if let Some(why) = cannot_count(&qemu_version()?) {
            bail!("{why}");
        }
        let linux = toolchain::linux(&Fetcher::new(project))?;
        let programs =
            cargo::build(project, &linux, "build", &["gzvm-bench"], &["--bins"], "bench")?;
        let program = programs.first().context("gzvm-bench has no program")?;
        let copy = project.out().join("stripped").join(&program.name);
        cargo::stripped(&program.path, &copy)?;
        let module = match std::env::var_os("GZVM_MODULE").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None => parts.module.clone(),
        };
        Ok(Self { project, parts, plugin: plugin(project)?, program: copy, module })
    }

    /// The host's initramfs with the benchmarks and the module under test: what the machine does
    /// not need is not in it, as unpacking is much of what a boot costs.
    fn initramfs(&self, group: &Group) -> Result<PathBuf> {
        let mut archive = Archive::default();
        let mut all = Vec::new();
        if group.guests {
            // Linux unpacks one archive after the other: later files replace earlier ones.
            all = fs::read(&self.parts.initramfs)?;
            all.resize(all.len().next_multiple_of(512), 0);
        } else {
            parts::bare_host(self.project, &mut archive)?;
        }
        archive.file("usr/libexec/gzvm/gzvm-bench", &self.program)?;
        archive.file("lib/modules/gzvm.ko", &self.module)?;
        let path = self.project.out().join(format!("bench-{}.cpio", group.name));
        fs::write(&path, archive.write(all)?)?;
        Ok(path)
    }

    /// QEMU's arguments that have one boot do as the other does.
    fn qemu(&self, counts: &Path) -> Result<Vec<String>> {
        let map = symbols::read_map(self.parts)?;
        let mutex: String = [("lock", "mutex_lock"), ("unlock", "mutex_unlock")]
            .iter()
            .filter_map(|(name, function)| Some(format!(",{name}={}", map.address(function)?)))
            .collect();
        Ok([
            "-icount",
            "shift=0,sleep=off",
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-seed",
            "1",
            // Added to what the harness says of the machine.
            "-M",
            "dtb-randomness=off",
            "-plugin",
            &format!("{},out={}{mutex}", self.plugin.display(), counts.display()),
        ]
        .map(str::to_owned)
        .into())
    }

    /// Boots a machine and has it measure its benchmarks, or one of them.
    ///
    /// # Errors
    ///
    /// When it does not end well, or what it said and what was counted do not fit.
    pub fn measure(&self, group: &Group, row: Option<&str>) -> Result<Measured> {
        let counts = self.project.out().join(format!("bench-{}.txt", group.name));
        let mut options = Options::for_tests(false, self.parts.variant);
        options.cpus = group.cpus;
        options.memory = group.memory;
        options.qemu = self.qemu(&counts)?;
        let mut words =
            format!("loglevel=4 nokaslr norandmaps gzvm.mode=bench gzvm.bench={}", group.name);
        words += &row.map_or_else(String::new, |row| format!(" gzvm.filter={row}"));
        let mut machine = options.machine(self.parts, "");
        // Not what the user's environment adds: limits in the machine are in its own time.
        machine.append = words;
        machine.initramfs = self.initramfs(group)?;
        let name = format!("bench {}", group.name);
        let mut step = Step::start(&name);
        let log = self.project.log(&name.replace(' ', "-"));
        let limits = Limits::seconds(LIMITS.0, LIMITS.1);
        let run = machine.run(&log, limits, |line| step.update(line))?;
        step.done("measured");
        let ended = |line: &String| line.trim_end() == "##suite-end gzvm-bench rc=0";
        if !run.problems.is_empty() || !run.lines.iter().any(ended) {
            bail!(
                "the benchmarks did not end well, see {}\n  {}",
                log.display(),
                run.problems.join("\n  ")
            );
        }
        let counts = fs::read_to_string(&counts)
            .with_context(|| format!("QEMU's plugin left nothing in {}", counts.display()))?;
        let symbols = Symbols::load(self.parts, &self.module, &run.lines)?;
        let windows = windows::join(&run.lines, &counts, &symbols)?;
        if group.cpus == 1 {
            windows::check_clock(&windows)?;
        }
        Ok(Measured { windows, values: windows::values(&run.lines)? })
    }
}

/// Builds QEMU's plugin for this machine.
fn plugin(project: &Project) -> Result<PathBuf> {
    let mut build = Command::new("cargo");
    build.current_dir(&project.top).args(["build", "--release", "-p", "gzvm-bench-plugin"]);
    build.arg("--target-dir").arg(&project.target);
    let mut step = Step::start("bench plugin");
    process::logged(&mut build, &project.log("cargo-bench-plugin"), |line| {
        step.update(line.trim());
    })?;
    step.done("");
    Ok(project.target.join("release/libgzvm_bench_plugin.so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_knows_its_qemu() {
        for yes in ["QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", "x version 8.2.0"] {
            assert_eq!(cannot_count(yes), None, "{yes}");
        }
        for no in ["QEMU emulator version 10.0.2", "x version 9.0.0", "x version 7.1.0", ""] {
            assert!(cannot_count(no).is_some(), "{no}");
        }
    }
}
