// SPDX-License-Identifier: Apache-2.0
//! Programs for arm64, built by Cargo: bare-metal images and static Linux programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};
use serde_json::Value;

use crate::process;
use crate::project::Project;
use crate::toolchain::Recipe;
use crate::ui::Step;

/// An executable that Cargo made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Package that it belongs to.
    pub package: String,
    /// Name of the target (binary or integration test).
    pub name: String,
    /// An integration test or a binary.
    pub is_test: bool,
    /// The file.
    pub path: PathBuf,
}

/// Runs `cargo <subcommand>` for `packages` and returns the executables.
///
/// # Errors
///
/// When the build fails; the message has the compiler's last lines.
pub fn build(
    project: &Project,
    recipe: &Recipe,
    subcommand: &str,
    packages: &[&str],
    more: &[&str],
    name: &str,
) -> Result<Vec<Program>> {
    let mut command = recipe.command(subcommand);
    command.current_dir(&project.top).arg("--release");
    // A directory for each target: build scripts look at the compiler and at RUSTC_BOOTSTRAP, and
    // would run again at each change.
    command.arg("--target-dir").arg(project.target.join("cross").join(recipe.target()));
    command.arg("--message-format=json-render-diagnostics");
    for package in packages {
        command.args(["-p", package]);
    }
    command.args(more);
    let mut step = Step::start(name);
    let mut programs = Vec::new();
    let mut compiled = 0;
    process::logged(&mut command, &project.log(&format!("cargo-{name}")), |line| {
        if line.starts_with('{') {
            programs.extend(program(line));
        } else if line.trim_start().starts_with("Compiling") {
            compiled += 1;
            step.update(line.trim());
        }
    })?;
    step.done(if compiled > 0 { "built" } else { "" });
    Ok(programs)
}

/// The executable in one message of Cargo's, if any.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    let kind = target.get("kind")?.as_array()?.first()?.as_str()?;
    let unit_test = message.get("profile")?.get("test")?.as_bool()? && kind != "test";
    if unit_test {
        return None;
    }
    let id = message.get("package_id")?.as_str()?;
    // `path+file:///…/tests/device#gzvm-device-test@0.1.0`, or without the name when it is the
    // directory's.
    let (path_part, fragment) = id.rsplit_once('#')?;
    let package = match fragment.split_once('@') {
        Some((package, _)) => package,
        None => path_part.rsplit('/').next()?,
    };
    Some(Program {
        package: package.to_owned(),
        name: target.get("name")?.as_str()?.to_owned(),
        is_test: kind == "test",
        path: PathBuf::from(path),
    })
}

/// Turns an ELF file into a flat image.
///
/// # Errors
///
/// When objcopy fails.
pub fn flat_image(elf: &Path, image: &Path) -> Result<()> {
    let mut command = binutil("objcopy", image)?;
    process::output(command.args(["-O", "binary"]).arg(elf).arg(image))?;
    Ok(())
}

/// Copies a program without its debug information.
///
/// # Errors
///
/// When strip fails.
pub fn stripped(elf: &Path, copy: &Path) -> Result<()> {
    let mut command = binutil("strip", copy)?;
    process::output(command.arg("-o").arg(copy).arg(elf))?;
    Ok(())
}

/// One of the cross binutils, and the directory for its output.
fn binutil(name: &str, output: &Path) -> Result<Command> {
    let cross = format!("aarch64-linux-gnu-{name}");
    if !process::in_path(&cross) {
        bail!("no {cross}: install binutils for arm64 (Debian: gcc-aarch64-linux-gnu)");
    }
    let dir = output.parent().context("no directory to write to")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(Command::new(cross))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, kind: &str, test: bool, executable: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"{id}","target":{{"kind":["{kind}"],
            "name":"n"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
        )
    }

    #[test]
    fn executables_are_found_in_cargo_s_messages() {
        let id = "path+file:///x/tests/device#gzvm-device-test@0.1.0";
        let found = program(&message(id, "test", true, "\"/t/a\"")).unwrap();
        assert!(found.is_test && found.package == "gzvm-device-test");
        let id = "path+file:///x/avf-backend/vm#0.1.0";
        let found = program(&message(id, "bin", false, "\"/t/vm\"")).unwrap();
        assert!(!found.is_test && found.package == "vm" && found.name == "n");
    }

    #[test]
    fn libraries_and_unit_tests_are_left_out() {
        let id = "path+file:///x/vm#0.1.0";
        assert_eq!(program(&message(id, "lib", false, "null")), None);
        assert_eq!(program(&message(id, "bin", true, "\"/t/vm-123\"")), None);
        assert_eq!(program("{\"reason\":\"build-finished\",\"success\":true}"), None);
        assert_eq!(program("{ not JSON"), None);
    }
}
