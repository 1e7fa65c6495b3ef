// SPDX-License-Identifier: Apache-2.0
//! `vm check` on a machine that has everything, and on the same one with something taken away.

use crate::NOBODY;
use anyhow::{ensure, Context, Result};
use gzvm_vmm::layout::MIB;
use gzvm_vmm_test::GUESTS;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use serde_json::Value;
use std::fs::{set_permissions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// Exit statuses (docs/vm.md).
const YES: i32 = 0;
const NO: i32 = 3;
const UNKNOWN: i32 = 4;
/// Pages of a VM that may lock what it needs, and not a MiB more.
const LOCK_MIB: u32 = 64;

/// What `check --json` said.
struct Said {
    status: Option<i32>,
    json: Value,
}

impl Said {
    fn new(output: &Output) -> Result<Self> {
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text);
        let json =
            json.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Self { status: output.status.code(), json })
    }

    fn line(&self, name: &str) -> Result<&Value> {
        let lines = self.json["checks"].as_array().context("no checks")?;
        lines.iter().find(|line| line["name"] == name).with_context(|| format!("no {name}"))
    }

    /// What a field of a line says.
    fn field(&self, name: &str, field: &str) -> Result<String> {
        Ok(self.line(name)?[field].as_str().unwrap_or_default().to_owned())
    }

    /// Checks the status and the answers of some lines.
    fn expect(&self, status: i32, answers: &[(&str, &str)]) -> Result<()> {
        for (name, answer) in answers {
            let line = self.line(name)?;
            ensure!(line["answer"] == *answer, "not {answer}: {line}");
        }
        ensure!(self.status == Some(status), "status {:?}, not {status}", self.status);
        Ok(())
    }

    /// Names and answers.
    fn answers(&self) -> Vec<(String, String)> {
        let lines = self.json["checks"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines.map(|line| (text(&line["name"]), text(&line["answer"]))).collect()
    }
}

fn check(args: &[&str]) -> Result<Said> {
    Said::new(&Command::new("vm").args(["check", "--json"]).args(args).output().context("vm")?)
}

/// As another user, who may lock so much memory.
fn check_as_nobody(lock_mib: u32, args: &str) -> Result<Said> {
    Said::new(&as_nobody(lock_mib, &format!("vm check --json {args}"))?)
}

fn as_nobody(lock_mib: u32, command: &str) -> Result<Output> {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().context("no command")?);
    command.args(words).uid(NOBODY).gid(NOBODY);
    // The child inherits it; only root may raise it again.
    let before = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let limit = u64::from(lock_mib) * MIB;
    setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit)?;
    let output = command.output();
    setrlimit(Resource::RLIMIT_MEMLOCK, before.0, before.1)?;
    output.context("vm or gzvm_vmm")
}

/// Whether the hypervisor is one without extensions, as on phones.
fn strict() -> Result<bool> {
    let words = std::fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    Ok(words.split_whitespace().any(|word| word == "refhyp.strict"))
}

pub fn machine_has_everything() -> Result<()> {
    let said = check(&[])?;
    let names = [
        "architecture",
        "page-size",
        "device-tree",
        "driver",
        "hypervisor",
        "abi-version",
        "device",
        "access",
        "vm-creation",
        "protection",
        "firmware",
        "memory",
        "memory-lock",
        "contiguous-memory",
        "vsock",
    ];
    said.expect(YES, &names.map(|name| (name, "yes")))?;
    ensure!(said.json["vms"] == "yes" && said.json["protected_vms"] == "yes", "{}", said.json);
    let output = Command::new("vm").args(["check", "--protected"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(YES), "{text}");
    ensure!(text.contains("protected VMs          yes\n"), "{text}");
    ensure!(!text.contains('\x1b'), "colour although nobody looks: {text:?}");
    Ok(())
}

/// refhyp's limits are in docs/hypervisor.md.
pub fn limits_are_the_hypervisors() -> Result<()> {
    let said = check(&[])?;
    let details = ["vcpu-limit", "interrupt-limit", "address-bits", "extensions"];
    let details = details.map(|name| said.field(name, "detail").unwrap_or_default());
    let expected = match strict()? {
        true => ["assumed: 8", "assumed: 32", "assumed: 40", "none, as on phones: VMs run without"],
        false => ["16", "256", "40", "WAKE_MASK UNMAP IRQ_KIND GET_REG LIMITS RANGE_STATE"],
    };
    ensure!(details == expected, "{details:?}");
    Ok(())
}

pub fn gzvmctl_says_the_same() -> Result<()> {
    let output = Command::new("gzvmctl").args(["check", "--json"]).output().context("gzvmctl")?;
    let (gzvmctl, vm) = (Said::new(&output)?, check(&[])?);
    ensure!(gzvmctl.answers() == vm.answers(), "{:?}", gzvmctl.answers());
    ensure!(gzvmctl.status == vm.status, "{:?}", gzvmctl.status);
    Ok(())
}

pub fn memory_that_the_host_lacks() -> Result<()> {
    let said = check(&["--mem", "1000000"])?;
    said.expect(NO, &[("memory", "no"), ("vm-creation", "yes")])?;
    ensure!(said.field("memory", "remedy")?.contains("the VM needs 1000000 MiB"));
    Ok(())
}

/// Loads the module again, whatever happens.
struct Unloaded;

impl Unloaded {
    fn new() -> Result<Self> {
        let status = Command::new("rmmod").arg("gzvm").status().context("rmmod")?;
        ensure!(status.success(), "rmmod: {status}");
        Ok(Self)
    }
}

impl Drop for Unloaded {
    fn drop(&mut self) {
        // The tests that follow see whether it worked.
        let _ = Command::new("insmod").arg("/lib/modules/gzvm.ko").status();
    }
}

pub fn module_that_is_not_loaded() -> Result<()> {
    let unloaded = Unloaded::new()?;
    let said = check(&[])?;
    drop(unloaded);
    said.expect(
        NO,
        &[
            ("device-tree", "yes"),
            ("driver", "no"),
            ("hypervisor", "unknown"),
            ("device", "no"),
            ("vm-creation", "no"),
            ("protection", "unknown"),
            ("memory", "yes"),
        ],
    )?;
    ensure!(said.field("driver", "remedy")?.contains("modprobe gzvm"));
    check(&[])?.expect(YES, &[("driver", "yes")])
}

/// What the device is allowed, until the end of the value.
struct OpenToAll;

impl OpenToAll {
    fn new() -> Result<Self> {
        set_permissions("/dev/gzvm", Permissions::from_mode(0o666)).context("chmod")?;
        Ok(Self)
    }
}

impl Drop for OpenToAll {
    fn drop(&mut self) {
        // The test of the closed device comes first.
        let _ = set_permissions("/dev/gzvm", Permissions::from_mode(0o600));
    }
}

pub fn another_user_gets_what_is_known() -> Result<()> {
    let said = check_as_nobody(1024, "")?;
    said.expect(
        UNKNOWN,
        &[
            ("driver", "yes"),
            ("hypervisor", "yes"),
            ("device", "yes"),
            ("access", "no"),
            ("vm-creation", "unknown"),
            ("protection", "unknown"),
            ("firmware", "unknown"),
            ("vcpu-limit", "unknown"),
            ("memory", "yes"),
        ],
    )?;
    ensure!(said.field("vm-creation", "why")? == "no permission");
    ensure!(said.field("access", "detail")? == "mode 0600, owner 0:0");
    ensure!(said.json["vms"] == "unknown" && said.json["protected_vms"] == "unknown");
    let _open = OpenToAll::new()?;
    check_as_nobody(1024, "")?.expect(YES, &[("access", "yes"), ("protection", "yes")])
}

pub fn limit_on_locked_memory_counts_to_the_byte() -> Result<()> {
    let _open = OpenToAll::new()?;
    let fits = check_as_nobody(LOCK_MIB, &format!("--mem {LOCK_MIB}"))?;
    fits.expect(YES, &[("memory-lock", "yes")])?;
    let over = LOCK_MIB + 1;
    let said = check_as_nobody(LOCK_MIB, &format!("--mem {over}"))?;
    said.expect(NO, &[("memory-lock", "no"), ("memory", "yes")])?;
    // The VMM says the same, in the same words; it rounds up to whole blocks of 2 MiB.
    let mem = over + 1;
    let remedy = check_as_nobody(LOCK_MIB, &format!("--mem {mem}"))?;
    let remedy = remedy.field("memory-lock", "remedy")?;
    let vmm = as_nobody(LOCK_MIB, &format!("gzvm_vmm run --mem {mem} {GUESTS}/payload.bin"))?;
    let vmm = String::from_utf8_lossy(&vmm.stderr).into_owned();
    ensure!(!remedy.is_empty() && vmm.contains(&remedy), "{vmm}, not {remedy}");
    Ok(())
}
