// SPDX-License-Identifier: Apache-2.0
//! The series built inside the kernel's tree, without building that kernel again: tree and objects of the
//! cache appear under their own paths with a layer above them, in a mount namespace of their own. So
//! Kbuild finds everything up to date but what the series changes, and the cache stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernel::Kernel;
use crate::process;
use crate::project::Project;
use crate::ui::Step;

/// What the configuration gets before the driver's own option; what else it would switch on stays off.
const OPTIONS: &str = "CONFIG_VIRT_DRIVERS=y\n# CONFIG_VMGENID is not set\nCONFIG_MTK_GZVM_RUST=";
/// The driver's option, what Kbuild is to make then, and a file that must be there.
const WAYS: [(&str, &str, &str); 2] = [
    // As a part of the kernel: build robots do that.
    ("y", "drivers/virt/geniezone/", "drivers/virt/geniezone/gzvm_main.o"),
    ("m", "drivers/virt/geniezone/gzvm.ko", "drivers/virt/geniezone/gzvm.ko"),
];

/// Mounts two layers, `$1` (lower) over `$2` with `$3` (upper) and `$4` (work), and likewise `$5` to `$8`, and becomes the
/// rest.
const MOUNT: &str = "mount -t overlay gzvm -o \"lowerdir=$1,upperdir=$3,workdir=$4\" \"$2\" && \
    mount -t overlay gzvm -o \"lowerdir=$5,upperdir=$7,workdir=$8\" \"$6\" && shift 8 && exec \"$@\"";

/// Builds the driver in `tree` with the files of `laid` above it, as a part of the kernel and as a module.
///
/// # Errors
///
/// When namespaces or overlays cannot be had, or the build fails.
pub fn build(project: &Project, kernel: &Kernel, tree: &Path, laid: &Path) -> Result<()> {
    let work = project.out().join("patches/build");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let layers = Layers { kernel, tree, laid, work: &work };
    let config = fs::read_to_string(kernel.build.join(".config"))
        .context("the kernel's configuration cannot be read")?;
    let kept = config.lines().filter(|line| !line.contains("CONFIG_VIRT_DRIVERS"));
    let kept = kept.collect::<Vec<_>>().join("\n");
    for (way, target, made) in WAYS {
        layers.make(project, &format!("{kept}\n{OPTIONS}{way}\n"), target, made)?;
    }
    Ok(())
}

struct Layers<'a> {
    kernel: &'a Kernel,
    tree: &'a Path,
    laid: &'a Path,
    work: &'a Path,
}

impl Layers<'_> {
    /// Has Kbuild make a target with this configuration.
    fn make(&self, project: &Project, config: &str, target: &str, made: &str) -> Result<()> {
        let upper = self.directory("objects")?;
        fs::write(upper.join(".config"), config)?;
        let mut step = Step::start("in tree");
        let mut compiled = 0_usize;
        for target in ["olddefconfig", target] {
            let mut make = self.inside(self.kernel.kbuild.make(&self.kernel.build).arg(target))?;
            let name = target.trim_end_matches('/').replace('/', "-");
            process::logged(&mut make, &project.log(&format!("patches-{name}")), |line| {
                let object = ["  CC", "  RUSTC"].iter().any(|what| line.starts_with(what));
                compiled += usize::from(object);
                step.update(line.trim());
            })?;
        }
        let file = upper.join(made);
        let size = fs::metadata(&file)
            .with_context(|| format!("Kbuild did not make {}", file.display()))?
            .len();
        step.done(&format!("{made} built in tree, {size} bytes, {compiled} objects compiled"));
        Ok(())
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// `command` where tree and objects have their layers.
    fn inside(&self, command: &Command) -> Result<Command> {
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--mount", "sh", "-c", MOUNT, "sh"]);
        unshare.arg(format!("{}:{}", self.laid.display(), self.tree.display())).arg(self.tree);
        unshare.arg(self.directory("tree")?).arg(self.directory("tree.work")?);
        unshare.arg(&self.kernel.build).arg(&self.kernel.build);
        unshare.arg(self.directory("objects")?).arg(self.directory("objects.work")?);
        unshare.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => unshare.env(name, value),
                None => unshare.env_remove(name),
            };
        }
        Ok(unshare)
    }
}
