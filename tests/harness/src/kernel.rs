// SPDX-License-Identifier: Apache-2.0
//! The Linux kernel that serves as host and as guest: configured, built once, kept in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::cache::{Cache, Key};
use crate::fetch::Fetcher;
use crate::process;
use crate::project::Project;
use crate::toolchain;
use crate::ui::{human, Step};

/// Steps that Kbuild prints for a whole build of our configuration (Linux 7.3.4): what the
/// percentage is relative to.
const USUAL_STEPS: u32 = 1640;
/// File with the number of steps of the last whole build, which is the better estimate.
const STEPS_FILE: &str = "kernel-steps";

/// Which of the three kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Host and guest of every boot.
    Usual,
    /// The host of `test --debug`: the usual one with what finds wrong accesses and leaks.
    Debug,
    /// Host and guest of the benchmarks: the usual one without its checks, as a phone has it.
    Bench,
}

impl Variant {
    /// Its name, in the cache and as the name of steps and logs.
    fn name(self) -> &'static str {
        match self {
            Self::Usual => "kernel",
            Self::Debug => "kernel-debug",
            Self::Bench => "kernel-bench",
        }
    }

    /// How many times slower a machine with it is than one with the usual kernel, for time limits.
    pub fn slowness(self) -> u32 {
        match self {
            Self::Usual | Self::Bench => 1,
            Self::Debug => 6,
        }
    }

    /// What the names of files made for it end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Usual => "",
            Self::Debug => "-debug",
            Self::Bench => "-bench",
        }
    }

    /// Its lines of configuration: later fragments add to earlier ones.
    fn options(self, project: &Project) -> Result<Vec<String>> {
        let fragments: &[&str] = match self {
            Self::Usual => &["kernel.config", "kernel-checks.config"],
            Self::Debug => &["kernel.config", "kernel-checks.config", "kernel-debug.config"],
            Self::Bench => &["kernel.config"],
        };
        let mut all = Vec::new();
        for name in fragments {
            let path = project.top.join("tests/harness").join(name);
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            all.extend(options(&text));
        }
        Ok(all)
    }
}

/// How to run Kbuild: the compilers, the same for the kernel and its modules.
pub struct Kbuild {
    rustc: String,
    library: PathBuf,
    bindgen: PathBuf,
    llvm: Option<PathBuf>,
}

/// A finished kernel build.
pub struct Kernel {
    /// Kbuild's output directory.
    pub build: PathBuf,
    /// The bootable image.
    pub image: PathBuf,
    /// How it was built, for modules.
    pub kbuild: Kbuild,
}

impl Kbuild {
    fn find(fetcher: &Fetcher) -> Result<Self> {
        let (rustc, library) = toolchain::kernel()?;
        Ok(Self { rustc, library, bindgen: fetcher.bindgen()?, llvm: toolchain::llvm()? })
    }

    /// `make` in `dir` with all compilers named.
    pub fn make(&self, dir: &Path) -> Command {
        let mut make = Command::new("make");
        // Flags of a make that called us would change the build.
        for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KERNEL_SRC", "RUSTFLAGS"]
        {
            make.env_remove(name);
        }
        if let Some(bin) = &self.llvm {
            let path = std::env::var("PATH").unwrap_or_default();
            make.env("PATH", format!("{}:{path}", bin.display()));
            if let Some(prefix) = bin.parent() {
                make.env("LIBCLANG_PATH", prefix.join("lib"));
            }
        }
        make.env("LC_ALL", "C").arg("-C").arg(dir);
        make.args(["ARCH=arm64", "LLVM=1"]);
        make.arg(format!("RUSTC={}", self.rustc)).arg(format!("HOSTRUSTC={}", self.rustc));
        make.arg(format!("BINDGEN={}", self.bindgen.display()));
        make.arg(format!("RUST_LIB_SRC={}", self.library.display()));
        // The same source gives the same bytes.
        make.args(["KBUILD_BUILD_TIMESTAMP=2026-01-01", "KBUILD_BUILD_USER=gzvm"]);
        make.arg("KBUILD_BUILD_HOST=gzvm");
        make
    }

    /// Versions of all compilers, for cache keys.
    fn versions(&self) -> Result<String> {
        let clang = match &self.llvm {
            Some(bin) => bin.join("clang"),
            None => PathBuf::from("clang"),
        };
        let first = |program: &Path| -> Result<String> {
            let text = process::output(Command::new(program).arg("--version"))?;
            Ok(text.lines().next().unwrap_or_default().to_owned())
        };
        let [rustc, clang, bindgen] =
            [first(Path::new(&self.rustc))?, first(&clang)?, first(&self.bindgen)?];
        Ok(format!("{rustc}\n{clang}\n{bindgen}"))
    }
}

/// Builds the kernel, or takes it from the cache.
///
/// With `KERNEL_SRC=/path` that tree is built, and rebuilt as it changes.
///
/// # Errors
///
/// When the source cannot be fetched, the configuration does not survive Kconfig, or the build
/// fails; the message ends with the build's last lines.
pub fn build(project: &Project, fetcher: &Fetcher, variant: Variant) -> Result<Kernel> {
    let kbuild = Kbuild::find(fetcher)?;
    let cache = Cache::new(&project.cache);
    let options = variant.options(project)?;
    let name = variant.name();
    let build = if let Some(tree) = users_tree()? {
        let key = Key::new("tree").with("path", &tree.to_string_lossy());
        let dir = cache.path(&format!("{name}-tree"), &key);
        make_kernel(project, &kbuild, &tree, &dir, (name, &options))?;
        dir
    } else {
        let source = fetcher.kernel_source()?;
        let key = Key::new(&source.version)
            .with("compiler", &kbuild.versions()?)
            .with("option", &options.join("\n"));
        cache.get_resumable(name, &key, |dir| {
            make_kernel(project, &kbuild, &source.dir, dir, (name, &options))
        })?
    };
    let image = build.join("arch/arm64/boot/Image");
    Ok(Kernel { build, image, kbuild })
}

/// The tree that `KERNEL_SRC` names, if it does.
///
/// # Errors
///
/// When that is no Linux tree, or one that is too old.
pub fn users_tree() -> Result<Option<PathBuf>> {
    let Some(tree) = std::env::var_os("KERNEL_SRC").filter(|tree| !tree.is_empty()) else {
        return Ok(None);
    };
    let tree = fs::canonicalize(&tree)
        .with_context(|| format!("KERNEL_SRC={}: no such tree", tree.to_string_lossy()))?;
    check_tree(&tree)?;
    Ok(Some(tree))
}

fn check_tree(tree: &Path) -> Result<()> {
    let makefile = fs::read_to_string(tree.join("Makefile")).unwrap_or_default();
    let field = |name: &str| {
        makefile
            .lines()
            .take(10)
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u32>().ok())
    };
    match (field("VERSION ="), field("PATCHLEVEL =")) {
        (Some(version), Some(level)) if (version, level) >= (7, 3) => Ok(()),
        (Some(version), Some(level)) => bail!(
            "KERNEL_SRC={} is Linux {version}.{level}: the driver needs the Rust interfaces of 7.3",
            tree.display()
        ),
        _ => bail!("KERNEL_SRC={} is not a Linux source tree", tree.display()),
    }
}

/// The lines of a fragment that mean something.
fn options(fragment: &str) -> Vec<String> {
    let lines = fragment.lines().map(str::trim);
    lines.filter(|line| line.starts_with("CONFIG_")).map(str::to_owned).collect()
}

fn make_kernel(
    project: &Project,
    kbuild: &Kbuild,
    source: &Path,
    out: &Path,
    (name, options): (&str, &[String]),
) -> Result<()> {
    fs::create_dir_all(out)?;
    let make = || {
        let mut make = kbuild.make(source);
        make.arg(format!("O={}", out.display()));
        make
    };
    let mut step = Step::start(name);
    configure(project, make, out, options)?;
    let steps_file = project.cache.join(STEPS_FILE);
    let usual = fs::read_to_string(&steps_file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL_STEPS);
    let mut progress = Progress { done: 0, usual };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let log = project.log(name);
    process::logged(make().arg(format!("-j{cpus}")).args(["Image", "modules"]), &log, |line| {
        if progress.saw(line) {
            step.update(&progress.text(step.elapsed(), line));
        }
    })?;
    if progress.done > USUAL_STEPS / 2 {
        fs::write(steps_file, progress.done.to_string())?;
    }
    // A rerun on an unchanged tree is not worth a line.
    step.done(if progress.done > 100 { "built" } else { "" });
    Ok(())
}

/// Writes `.config` from the options, and checks that Kconfig kept each of them.
fn configure(
    project: &Project,
    make: impl Fn() -> Command,
    out: &Path,
    options: &[String],
) -> Result<()> {
    let all = out.join("allnoconfig.fragment");
    let text = options.join("\n") + "\n";
    // An unchanged configuration is left alone, so that an unchanged tree is not rebuilt.
    if out.join(".config").exists() && fs::read_to_string(&all).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let log = project.log("kernel-config");
    process::logged(make().arg("rustavailable"), &log, |_| ())
        .context("the kernel does not accept this machine's Rust, clang or bindgen")?;
    let new = out.join("allnoconfig.new");
    fs::write(&new, &text)?;
    let mut config = make();
    config.arg(format!("KCONFIG_ALLCONFIG={}", new.display())).arg("allnoconfig");
    process::logged(&mut config, &log, |_| ())?;
    let lost = lost(options, &fs::read_to_string(out.join(".config"))?);
    if !lost.is_empty() {
        bail!(
            "Kconfig dropped these lines of tests/harness/kernel*.config (a missing dependency, or \
             an option that this kernel does not have):\n  {}",
            lost.join("\n  ")
        );
    }
    fs::rename(new, all)?;
    Ok(())
}

fn lost(options: &[String], config: &str) -> Vec<String> {
    let got: std::collections::HashSet<_> = config.lines().collect();
    options.iter().filter(|option| !got.contains(option.as_str())).cloned().collect()
}

/// Counts Kbuild's steps.
struct Progress {
    done: u32,
    usual: u32,
}

impl Progress {
    /// Counts a line of output; false when it is none of a step.
    fn saw(&mut self, line: &str) -> bool {
        // `  CC      init/main.o`: two spaces, an upper-case word, an object.
        let step = line.strip_prefix("  ").is_some_and(|rest| {
            let word = rest.split(' ').next().unwrap_or_default();
            word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        });
        self.done += u32::from(step);
        step
    }

    fn text(&self, elapsed: Duration, line: &str) -> String {
        // The count is an estimate: never claim to be done.
        let percent = (u64::from(self.done) * 100 / u64::from(self.usual.max(1))).min(99);
        let left = if percent >= 3 {
            let total = elapsed.as_secs() * 100 / percent;
            let left = Duration::from_secs(total.saturating_sub(elapsed.as_secs()));
            format!("about {} left", human(left))
        } else {
            "once, about 10 minutes on two cores".to_owned()
        };
        let object = line.rsplit('/').next().unwrap_or_default();
        format!("{percent:>2} %  {left}  {object}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_of_the_fragment_do_not_count() {
        let text = "# SPDX\n\nCONFIG_A=y\n# CONFIG_B is not set\n  CONFIG_C=\"x\"\n";
        assert_eq!(options(text), ["CONFIG_A=y", "CONFIG_C=\"x\""]);
    }

    #[test]
    fn dropped_options_are_named() {
        let options = options("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=8");
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=64\n";
        assert_eq!(lost(&options, config), ["CONFIG_B=y", "CONFIG_C=8"]);
    }

    #[test]
    fn the_project_s_own_fragments_have_no_option_twice() {
        let fragments = [
            include_str!("../kernel.config"),
            include_str!("../kernel-checks.config"),
            include_str!("../kernel-debug.config"),
        ]
        .concat();
        let options = options(&fragments);
        let names: std::collections::HashSet<_> =
            options.iter().map(|option| option.split('=').next()).collect();
        assert_eq!(names.len(), options.len());
        assert!(options.contains(&"CONFIG_SCHEDSTATS=y".to_owned()));
    }

    #[test]
    fn only_build_steps_count() {
        let mut progress = Progress { done: 0, usual: 4 };
        for line in ["  CC      init/main.o", "  RUSTC L rust/core.o", "  LD [M]  a.ko"] {
            assert!(progress.saw(line), "{line}");
        }
        for line in ["make[1]: Entering directory", "", "  warning: x", "CC x", "  A"] {
            assert!(!progress.saw(line), "{line}");
        }
        assert_eq!(progress.done, 3);
        let text = progress.text(Duration::from_secs(30), "  CC      init/main.o");
        assert_eq!(text, "75 %  about 10 s left  main.o");
        progress.done = 400;
        assert!(progress.text(Duration::from_secs(1), "").starts_with("99 %"));
    }

    #[test]
    fn a_tree_is_looked_at_before_it_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let error = check_tree(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a Linux source tree"), "{error}");
        let makefile = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\n";
        fs::write(dir.path().join("Makefile"), makefile).unwrap();
        let error = check_tree(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is Linux 6.12"), "{error}");
        fs::write(dir.path().join("Makefile"), makefile.replace("6", "8")).unwrap();
        check_tree(dir.path()).unwrap();
    }
}
