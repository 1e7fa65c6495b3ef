// SPDX-License-Identifier: Apache-2.0
//! Kernel modules, built outside of the kernel's tree by Kbuild.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernel::Kernel;
use crate::process;
use crate::project::Project;
use crate::ui::Step;

/// Builds the external module whose Kbuild file is in `source`, and returns Kbuild's directory.
///
/// Kbuild leaves its products beside the sources, so it gets a copy below `target/`: the source
/// tree stays clean, and an own `make -C <kernel> M=driver` there does not get in the way.
///
/// # Errors
///
/// When the build fails; the message has the compiler's last lines.
pub fn build(project: &Project, kernel: &Kernel, source: &Path, name: &str) -> Result<PathBuf> {
    let dir = directory(project, kernel, source, name)?;
    let mut make = make(kernel, &dir);
    make.arg("modules");
    run(project, make, name)?;
    Ok(dir)
}

/// Builds single objects of the directory `source` instead of a module.
///
/// # Errors
///
/// As for [`build`].
pub fn objects(
    project: &Project,
    kernel: &Kernel,
    source: &Path,
    name: &str,
    objects: &[&str],
) -> Result<PathBuf> {
    let dir = directory(project, kernel, source, name)?;
    let mut make = make(kernel, &dir);
    make.args(objects);
    run(project, make, name)?;
    Ok(dir)
}

fn make(kernel: &Kernel, dir: &Path) -> Command {
    let mut make = kernel.kbuild.make(&kernel.build);
    make.arg(format!("M={}", dir.display()));
    make
}

fn run(project: &Project, mut make: Command, name: &str) -> Result<()> {
    let mut step = Step::start(name);
    let mut compiled = false;
    let log = project.log(&format!("module-{name}"));
    process::logged(&mut make, &log, |line| {
        compiled |= line.starts_with("  RUSTC") || line.starts_with("  CC");
        step.update(line.trim());
    })?;
    step.done(if compiled { "kernel module built" } else { "" });
    Ok(())
}

/// The copy of the sources; a new one when the kernel build is another.
fn directory(project: &Project, kernel: &Kernel, source: &Path, name: &str) -> Result<PathBuf> {
    let dir = project.out().join("module").join(name);
    let marker = dir.join(".kernel");
    let built_for = kernel.build.display().to_string();
    if fs::read_to_string(&marker).is_ok_and(|old| old != built_for) {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(&marker, built_for)?;
    mirror(source, &dir)?;
    Ok(dir)
}

/// Whether a file is a source of a module.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Kbuild writes `gzvm.mod.c` and `.gzvm.mod.c...`.
    if name.starts_with('.') || name.ends_with(".mod.c") {
        return false;
    }
    matches!(&*name, "Kbuild" | "Makefile" | "Kconfig")
        || path.extension().is_some_and(|ext| ["rs", "c", "h", "S"].iter().any(|want| ext == *want))
}

/// Makes the sources below `to` equal to those below `from`; unchanged files keep their times.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    let mut wanted = BTreeSet::new();
    collect(from, Path::new(""), &mut wanted)?;
    let mut present = BTreeSet::new();
    collect(to, Path::new(""), &mut present)?;
    for gone in present.difference(&wanted) {
        fs::remove_file(to.join(gone))?;
    }
    for path in &wanted {
        let text = fs::read(from.join(path))?;
        let copy = to.join(path);
        if fs::read(&copy).is_ok_and(|old| old == text) {
            continue;
        }
        if let Some(dir) = copy.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    Ok(())
}

fn collect(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "target" {
            collect(root, &path, found)?;
        } else if kind.is_file() && is_source(&path) {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_not_sources() {
        for yes in ["Kbuild", "abi/src/hvc.rs", "c/trace.h", "kx_helpers.c"] {
            assert!(is_source(Path::new(yes)), "{yes}");
        }
        for no in ["gzvm.o", "gzvm.mod.c", ".gzvm.ko.cmd", "Module.symvers", "Cargo.toml"] {
            assert!(!is_source(Path::new(no)), "{no}");
        }
    }

    #[test]
    fn a_mirror_follows_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("abi")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("abi/a.rs"), "1").unwrap();
        fs::write(from.join("b.c"), "1").unwrap();
        mirror(&from, &to).unwrap();
        fs::write(to.join("b.o"), "product").unwrap();
        let before = fs::metadata(to.join("abi/a.rs")).unwrap().modified().unwrap();
        fs::remove_file(from.join("b.c")).unwrap();
        fs::write(from.join("c.c"), "2").unwrap();
        mirror(&from, &to).unwrap();
        assert!(!to.join("b.c").exists() && to.join("b.o").exists());
        assert_eq!(fs::read_to_string(to.join("c.c")).unwrap(), "2");
        let after = fs::metadata(to.join("abi/a.rs")).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }
}
