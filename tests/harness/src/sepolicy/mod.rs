// SPDX-License-Identifier: Apache-2.0
//! Does our policy do what it is for: only the VMM's domain opens `/dev/gzvm`? Compiled over a stub of
//! AOSP's policy with AOSP's rules about VMs restated; in QEMU the same policy is enforced.

mod mistakes;
pub mod policy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Result};

use self::mistakes::{Mistake, MISTAKES};
use self::policy::Build;
use crate::libtest::{Case, Outcome};
use crate::process;
use crate::project::Project;

/// Who may do what to our types, and nobody else (`kernel` stands for the tests themselves).
const EXPECTED: [(&str, &str, &str, &[&str]); 6] = [
    ("gzvm_device", "chr_file", "open", &["crosvm"]),
    ("gzvm_device", "chr_file", "ioctl", &["crosvm"]),
    ("gzvm_device", "chr_file", "write", &["crosvm"]),
    ("gzvm_device", "chr_file", "getattr", &["crosvm", "shell", "ueventd"]),
    ("sysfs_gzvm", "file", "write", &["vendor_init"]),
    ("debugfs_gzvm", "file", "read", &["dumpstate"]),
];
/// Labels of files that exist on a device.
const LABELS: [(&str, &str); 1] = [("/dev/gzvm", "u:object_r:gzvm_device:s0")];

/// All checks, one case each; one skipped case where SELinux' tools are missing.
///
/// # Errors
///
/// Never so far: what is wrong is among the cases.
pub fn cases(project: &Project) -> Vec<Case> {
    let missing = policy::missing();
    if !missing.is_empty() {
        let detail = format!("not installed: {}", missing.join(", "));
        eprintln!("form        sepolicy: {detail}: skipped");
        return vec![Case { name: "sepolicy".to_owned(), outcome: Outcome::Skipped, detail }];
    }
    let tree = project.top.join("sepolicy");
    let out = project.out().join("sepolicy");
    [
        ("sepolicy: compiles", compiles(&tree, &out)),
        ("sepolicy: neverallow rules catch mistakes", catches(&tree, &out)),
        ("sepolicy: who may do what", allowed(&tree, &out, "")),
        ("sepolicy: file contexts", contexts(&tree, &out, &tree.join("vendor/file_contexts"))),
    ]
    .into_iter()
    .map(|(name, done)| match done {
        Ok(()) => Case { name: name.to_owned(), outcome: Outcome::Passed, detail: String::new() },
        Err(error) => Case::failed(name, &format!("{error:#}")),
    })
    .collect()
}

/// The policy for the machine in QEMU.
///
/// # Errors
///
/// When it does not compile.
pub fn for_machine(project: &Project) -> Result<Option<PathBuf>> {
    if policy::missing().is_empty() {
        let out = project.out().join("sepolicy/machine");
        policy::compile(&project.top.join("sepolicy"), &out, Build::Userdebug, "").map(Some)
    } else {
        Ok(None)
    }
}

fn compiles(tree: &Path, out: &Path) -> Result<()> {
    policy::compile(tree, out, Build::Userdebug, "")?;
    policy::compile(tree, out, Build::User, "")?;
    policy::compile_as_cil(tree, out)
}

/// Each mistake is refused because of a neverallow, and each neverallow refuses one.
fn catches(tree: &Path, out: &Path) -> Result<()> {
    let mut bad = Vec::new();
    for mistake in &MISTAKES {
        if let Err(error) = refused(tree, out, mistake) {
            bad.push(format!("{} (rule {}): {error:#}", mistake.rule, mistake.breaks));
        }
    }
    let text = fs::read_to_string(tree.join("tests/neverallow.te"))?;
    for number in text.lines().filter_map(rule) {
        if !MISTAKES.iter().any(|mistake| mistake.breaks == number) {
            bad.push(format!("no mistake breaks neverallow {number}"));
        }
    }
    if bad.is_empty() {
        Ok(())
    } else {
        bail!("{}", bad.join("\n"))
    }
}

/// The compiler refuses a mistake because of the neverallow that it is about.
fn refused(tree: &Path, out: &Path, mistake: &Mistake) -> Result<()> {
    let Err(error) = policy::compile(tree, out, mistake.build, mistake.rule) else {
        bail!("compiles");
    };
    let said = format!("{error:#}");
    let conf = fs::read_to_string(out.join(policy::CONF))?;
    let violated: Vec<_> =
        said.lines().filter_map(violation).map(|at| rule_at(&conf, at)).collect();
    match &violated[..] {
        [] => Err(error.context("is refused for another reason")),
        rules if rules.contains(&Some(mistake.breaks)) => Ok(()),
        rules => bail!("is refused because of {rules:?}"),
    }
}

/// The line of the policy whose neverallow a message of the compiler is about.
fn violation(message: &str) -> Option<usize> {
    let (_, rest) = message.split_once("neverallow on line ")?;
    let (line, rest) = rest.split_once(' ')?;
    rest.contains("violated by allow").then(|| line.parse().ok())?
}

/// The number of the rule that has this line: that of the heading above it.
fn rule_at(conf: &str, line: usize) -> Option<u32> {
    let above: Vec<_> = conf.lines().take(line).collect();
    above.into_iter().rev().find_map(rule)
}

/// "# 7. Why."
fn rule(line: &str) -> Option<u32> {
    line.strip_prefix("# ")?.split_once(". ")?.0.parse().ok()
}

/// The rules as a search of the binary policy finds them.
fn allowed(tree: &Path, out: &Path, more: &str) -> Result<()> {
    let binary = policy::compile(tree, out, Build::Userdebug, more)?;
    let mut bad = Vec::new();
    for (object, class, permission, expected) in EXPECTED {
        let found = policy::who_may(&binary, object, class, permission)?;
        if found != expected {
            bad.push(format!("{permission} {object}: {found:?} instead of {expected:?}"));
        }
    }
    if bad.is_empty() {
        Ok(())
    } else {
        bail!("{}", bad.join("\n"))
    }
}

/// All contexts are valid in the policy, and `libselinux` finds the labels that we mean.
fn contexts(tree: &Path, out: &Path, file: &Path) -> Result<()> {
    let binary = policy::compile(tree, out, Build::Userdebug, "")?;
    process::output(policy::tool("setfiles").arg("-c").arg(&binary).arg(file))?;
    for (path, label) in LABELS {
        let mut lookup = policy::tool("selabel_lookup");
        lookup.args(["-b", "file", "-t", "char", "-k", path, "-f"]).arg(file);
        let said = said(&mut lookup);
        if !said.contains(label) {
            bail!("the label of {path} is not {label}: {said}");
        }
    }
    Ok(())
}

fn said(command: &mut Command) -> String {
    process::output(command).unwrap_or_else(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Option<(tempfile::TempDir, PathBuf)> {
        let missing = policy::missing();
        if !missing.is_empty() {
            println!("skipped: {missing:?}");
            return None;
        }
        let top: &Path = concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref();
        Some((tempfile::tempdir().unwrap(), top.join("sepolicy")))
    }

    #[test]
    fn a_rule_too_many_is_found() {
        let Some((out, tree)) = tree() else { return };
        let more = "allow vendor_init debugfs_gzvm:file read;";
        let error = allowed(&tree, out.path(), more).unwrap_err().to_string();
        assert!(
            error.contains(r#"["dumpstate", "vendor_init"] instead of ["dumpstate"]"#),
            "{error}"
        );
    }

    #[test]
    fn what_breaks_no_neverallow_is_no_mistake() {
        let Some((out, tree)) = tree() else { return };
        let rule = "allow dumpstate debugfs_gzvm:file { open read };";
        let mistake = Mistake { breaks: 6, rule, build: Build::Userdebug };
        assert_eq!(refused(&tree, out.path(), &mistake).unwrap_err().to_string(), "compiles");
        let mistake = Mistake { breaks: 1, rule: "allow nobody x:y z;", build: Build::User };
        let error = refused(&tree, out.path(), &mistake).unwrap_err().to_string();
        assert_eq!(error, "is refused for another reason");
        let rule = "allow hal_example_default sysfs_gzvm:file write;";
        let mistake = Mistake { breaks: 7, rule, build: Build::Userdebug };
        let error = refused(&tree, out.path(), &mistake).unwrap_err().to_string();
        assert_eq!(error, "is refused because of [Some(8)]");
    }

    #[test]
    fn wrong_contexts_are_found() {
        let Some((out, tree)) = tree() else { return };
        let file = out.path().join("file_contexts");
        let check = |text: &str| {
            fs::write(&file, text).unwrap();
            contexts(&tree, out.path(), &file)
        };
        check("/dev/gzvm u:object_r:gzvm_device:s0\n").unwrap();
        assert!(check("/dev/gzvm u:object_r:gzvm_devices:s0\n").is_err());
        let error = check("/dev/gzvm2 u:object_r:gzvm_device:s0\n").unwrap_err().to_string();
        assert!(error.contains("the label of /dev/gzvm is not"), "{error}");
    }
}
