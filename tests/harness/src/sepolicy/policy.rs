// SPDX-License-Identifier: Apache-2.0
//! A policy compiled from ours and a stub of AOSP's, by SELinux' own tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::process;

/// Newest version of the binary format that Debian's tools and our kernels share.
const FORMAT: &str = "33";
/// The sources, in the order in which the compiler wants them.
const SOURCES: [&str; 5] = [
    "tests/macros.m4",
    "tests/classes.te",
    "tests/base.te",
    "vendor/gzvm.te",
    "tests/neverallow.te",
];
/// What comes after further rules.
const ENDS: [&str; 2] = ["tests/tail.te", "vendor/genfs_contexts"];
/// All rules as one text, in the directory that a policy is compiled in.
pub const CONF: &str = "policy.conf";
/// What the checks run.
const TOOLS: [&str; 5] = ["m4", "checkpolicy", "secilc", "sesearch", "setfiles"];

/// The tools that are missing here.
pub fn missing() -> Vec<&'static str> {
    TOOLS.into_iter().filter(|tool| find(tool).is_none()).collect()
}

/// A tool in PATH, or where Debian has it and PATH may not.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(tool)).find(|file| file.is_file())
}

/// A command that runs a tool of SELinux.
pub fn tool(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// Which of AOSP's builds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// For developers.
    Userdebug,
    /// For everybody.
    User,
}

/// Compiles the policy in `sepolicy` with the rules `more` added, and returns the binary in `out`.
///
/// # Errors
///
/// When it does not compile, neverallow rules included; the message is the compiler's.
pub fn compile(sepolicy: &Path, out: &Path, build: Build, more: &str) -> Result<PathBuf> {
    let conf = expand(sepolicy, out, build, more)?;
    let binary = conf.with_extension("bin");
    let mut checkpolicy = tool("checkpolicy");
    checkpolicy.args(["-M", "-U", "allow", "-c", FORMAT, "-o"]).arg(&binary).arg(&conf);
    let output = checkpolicy.output().context("cannot start checkpolicy")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("{}", said.trim());
    }
    Ok(binary)
}

/// All rules as one text without macros.
fn expand(sepolicy: &Path, out: &Path, build: Build, more: &str) -> Result<PathBuf> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let extra = out.join("more.te");
    fs::write(&extra, more)?;
    let mut m4 = tool("m4");
    if build == Build::User {
        m4.arg("-Duser_build");
    }
    m4.args(SOURCES.map(|file| sepolicy.join(file))).arg(&extra);
    m4.args(ENDS.map(|file| sepolicy.join(file)));
    let conf = out.join(CONF);
    fs::write(&conf, process::output(&mut m4)?)?;
    Ok(conf)
}

/// Compiles the policy a second time, through CIL and its own compiler, as Android's init does.
///
/// # Errors
///
/// When the two compilers do not agree that it is right.
pub fn compile_as_cil(sepolicy: &Path, out: &Path) -> Result<()> {
    let conf = expand(sepolicy, out, Build::Userdebug, "")?;
    let cil = out.join("policy.cil");
    let mut checkpolicy = tool("checkpolicy");
    process::output(checkpolicy.args(["-M", "-C", "-c", FORMAT, "-o"]).arg(&cil).arg(&conf))?;
    let mut secilc = tool("secilc");
    secilc.args(["-M", "true", "-G", "-c", FORMAT]).arg(&cil);
    process::output(secilc.arg("-o").arg(out.join("cil.bin")).arg("-f").arg("/dev/null"))?;
    Ok(())
}

/// The domains that a policy lets do `permission` to objects of a type, by name.
///
/// # Errors
///
/// When the policy cannot be searched.
pub fn who_may(binary: &Path, object: &str, class: &str, permission: &str) -> Result<Vec<String>> {
    let mut sesearch = tool("sesearch");
    sesearch.args(["-A", "-t", object, "-c", class, "-p", permission]).arg(binary);
    let said = process::output(&mut sesearch)?;
    let mut domains: Vec<_> = said.lines().filter_map(domain).map(str::to_owned).collect();
    domains.sort();
    domains.dedup();
    Ok(domains)
}

/// Of `allow crosvm vm_manager_device_type:chr_file { open read };` the first name.
fn domain(line: &str) -> Option<&str> {
    line.trim().strip_prefix("allow ")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_a_rule_is_its_first_name() {
        assert_eq!(domain("allow crosvm vm_manager_device_type:chr_file open;"), Some("crosvm"));
        assert_eq!(domain("type_transition a b:process c;"), None);
    }
}
