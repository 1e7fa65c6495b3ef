// SPDX-License-Identifier: Apache-2.0
//! What comes over the network: the kernel's source, busybox and Rust's library for arm64, bindgen,
//! binder's service manager.
//! Each is fetched once; while the cache has it, no network is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Apt};
use crate::cache::{Cache, Key};
use crate::process;
use crate::project::Project;
use crate::toolchain::Recipe;
use crate::ui::Step;

/// The kernel that the driver is built and tested against, and the suite that has it.
const KERNEL: &str = "linux-source-7.3";
const KERNEL_SUITE: &str = "trixie-backports";
/// Where to look when that package has left the mirror.
const KERNEL_FALLBACK: &str = "linux-source-7.";
/// The bindgen that the kernel's Rust bindings were tried with.
const BINDGEN: &str = "0.73.2";

/// The package with binder's service manager for systems without Android's, its programs, and the
/// library that they share with ours, whose version they have.
const BINDER_TOOLS: &str = "rsbinder-tools";
const BINDER_PROGRAMS: &[&str] = &["rsb_hub", "rsb_service"];
const BINDER_LIBRARY: &str = "rsbinder";

/// Fetches things into the cache.
pub struct Fetcher<'a> {
    project: &'a Project,
    cache: Cache,
}

/// An unpacked kernel source tree.
pub struct KernelSource {
    /// Top of the tree.
    pub dir: PathBuf,
    /// The package's version, which names the tree's contents.
    pub version: String,
}

impl<'a> Fetcher<'a> {
    /// A fetcher for the project's cache.
    pub fn new(project: &'a Project) -> Self {
        Self { project, cache: Cache::new(&project.cache) }
    }

    /// APT's lists are kept between packages of one run, and thrown away with `target/`.
    fn apt(&self, arch: &str) -> Result<Apt> {
        let dir = self.project.out().join("apt").join(arch);
        Apt::machine(&dir, arch, &self.project.log(&format!("apt-{arch}")))
    }

    /// The kernel's source.
    ///
    /// # Errors
    ///
    /// When the mirror has no Linux 7 source package; the message says what to do.
    pub fn kernel_source(&self) -> Result<KernelSource> {
        let cached = self.cache.entries("linux", "7.");
        if let Some(dir) = cached.into_iter().next() {
            let version = fs::read_to_string(dir.join(VERSION_FILE))?.trim().to_owned();
            return Ok(KernelSource { dir: dir.join("linux"), version });
        }
        let mut step = Step::start("linux");
        step.announce("looking for the kernel's source package");
        let arch = process::output(Command::new("dpkg").arg("--print-architecture"))?;
        let arch = arch.trim();
        let machine = self.apt(arch)?;
        let log = self.project.log("apt-linux");
        let apt = Apt::suite(&machine, KERNEL_SUITE, arch, &log)?;
        let names = apt.names(KERNEL_FALLBACK)?;
        let package = pick_kernel(&names).with_context(|| {
            format!(
                "{KERNEL_SUITE} on this machine's mirror has no {KERNEL_FALLBACK}x any more: \
                 unpack a Linux 7.3 tree and name it with KERNEL_SRC=/path"
            )
        })?;
        if package != KERNEL {
            step.announce(&format!("{KERNEL} has left the mirror, taking {package} instead"));
            eprintln!();
        }
        let version = apt.versions(&package)?.into_iter().next().context("no version of it")?;
        step.announce(&format!("downloading {package} {version} (170 MB)"));
        let key = Key::new(&version).with("package", &package);
        let dir = self.cache.get("linux", &key, |dir| {
            let deb = apt.download(&package, &version, |_| ())?;
            step.announce(&format!("unpacking {package} {version}"));
            unpack_linux(&deb, &package, dir, &self.project.log("unpack"))?;
            fs::remove_file(&deb)?;
            Ok(fs::write(dir.join(VERSION_FILE), &version)?)
        })?;
        step.done(&format!("source of {package} {version}"));
        Ok(KernelSource { dir: dir.join("linux"), version })
    }

    /// A static busybox for arm64.
    ///
    /// # Errors
    ///
    /// When it cannot be fetched.
    pub fn busybox(&self) -> Result<PathBuf> {
        let dir = match self.cache.entries("busybox", "").into_iter().next() {
            Some(dir) => dir,
            None => self.arm64_package("busybox", "busybox-static", None, "./bin/busybox")?,
        };
        Ok(dir.join("bin/busybox"))
    }

    /// A sysroot with Debian's build of Rust's standard library for arm64, of exactly the version
    /// of the machine's `rustc-web`.
    ///
    /// # Errors
    ///
    /// When the mirror does not have that version (any more).
    pub fn rust_sysroot(&self, version: &str) -> Result<PathBuf> {
        let package = "libstd-rust-web-dev";
        let dir = self.arm64_package("sysroot", package, Some(version), ".")?;
        Ok(dir.join("usr"))
    }

    fn arm64_package(
        &self,
        kind: &str,
        package: &str,
        version: Option<&str>,
        member: &str,
    ) -> Result<PathBuf> {
        if let Some(version) = version {
            if let Some(dir) = self.cache.lookup(kind, &arm64_key(package, version)) {
                return Ok(dir);
            }
        }
        let mut step = Step::start(kind);
        step.announce(&format!("downloading {package} for arm64"));
        let apt = self.apt("arm64")?;
        let versions = apt.versions(package)?;
        let version = match version {
            Some(wanted) => versions.into_iter().find(|found| found == wanted).with_context(|| {
                format!("the mirror has no {package} {wanted} for arm64: run `apt-get update` and \
                         `apt-get install rustc-web rust-web-src cargo-web`, so that versions agree")
            })?,
            None => versions
                .into_iter()
                .next()
                .with_context(|| format!("the mirror has no {package} for arm64"))?,
        };
        let dir = self.cache.get(kind, &arm64_key(package, &version), |dir| {
            let deb = apt.download(package, &version, |_| ())?;
            apt::unpack(&deb, member, dir, &self.project.log("unpack"))?;
            Ok(fs::remove_file(&deb)?)
        })?;
        step.done(&format!("{package} {version} for arm64"));
        Ok(dir)
    }

    /// bindgen: `$BINDGEN`, else one that is built into the cache.
    ///
    /// # Errors
    ///
    /// When it cannot be built.
    pub fn bindgen(&self) -> Result<PathBuf> {
        if let Some(program) = std::env::var_os("BINDGEN") {
            return Ok(PathBuf::from(program));
        }
        let key = Key::new(BINDGEN);
        let dir = self.cache.get("bindgen", &key, |dir| {
            let mut step = Step::start("bindgen");
            step.announce(&format!("building bindgen-cli {BINDGEN} (once, about two minutes)"));
            let mut command = Command::new("cargo");
            command
                .args(["install", "--locked", "--version", BINDGEN, "--root"])
                .arg(dir)
                .arg("bindgen-cli")
                // A target directory of the caller would be littered, and is no help here.
                .env("CARGO_TARGET_DIR", dir.join("build"));
            let log = self.project.log("bindgen");
            process::logged(&mut command, &log, |line| step.update(line.trim()))?;
            fs::remove_dir_all(dir.join("build"))?;
            step.done(&format!("bindgen {BINDGEN}"));
            Ok(())
        })?;
        Ok(dir.join("bin/bindgen"))
    }

    /// binder's service manager, and what asks it: static programs for arm64, built into the cache.
    ///
    /// # Errors
    ///
    /// When they cannot be built.
    pub fn binder_tools(&self, linux: &Recipe) -> Result<Vec<(PathBuf, &'static str)>> {
        let version = locked(&self.project.top, BINDER_LIBRARY)?;
        let key = Key::new(&version)
            .with("target", linux.target())
            .with("programs", &BINDER_PROGRAMS.join(" "));
        let dir = self.cache.get(BINDER_TOOLS, &key, |dir| {
            let mut step = Step::start(BINDER_TOOLS);
            step.announce(&format!("building {BINDER_TOOLS} {version} (once, some minutes)"));
            let mut command = linux.command("install");
            command.args(["--locked", "--version", &format!("={version}"), BINDER_TOOLS]);
            for program in BINDER_PROGRAMS {
                command.args(["--bin", program]);
            }
            command
                .arg("--root")
                .arg(dir)
                .env("CARGO_TARGET_DIR", dir.join("build"))
                // What compiles it runs once.
                .env("CARGO_PROFILE_RELEASE_BUILD_OVERRIDE_OPT_LEVEL", "0");
            let log = self.project.log(BINDER_TOOLS);
            process::logged(&mut command, &log, |line| step.update(line.trim()))?;
            fs::remove_dir_all(dir.join("build"))?;
            step.done(&format!("{BINDER_TOOLS} {version}"));
            Ok(())
        })?;
        let bin = dir.join("bin");
        Ok(BINDER_PROGRAMS.iter().map(|&program| (bin.join(program), program)).collect())
    }
}

/// The version of a package that the tree is built with.
fn locked(top: &Path, package: &str) -> Result<String> {
    let lock = fs::read_to_string(top.join("Cargo.lock")).context("Cargo.lock")?;
    let found = version_in(&lock, package).map(str::to_owned);
    found.with_context(|| format!("Cargo.lock has no {package}"))
}

fn version_in<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// File with the version of the kernel's source package, beside the tree.
const VERSION_FILE: &str = "version";

fn arm64_key(package: &str, version: &str) -> Key {
    Key::new(version).with("package", package).with("architecture", "arm64")
}

/// The tested kernel if it is there, else the newest of its series.
fn pick_kernel(names: &[String]) -> Option<String> {
    if names.iter().any(|name| name == KERNEL) {
        return Some(KERNEL.to_owned());
    }
    let minor = |name: &str| name.strip_prefix(KERNEL_FALLBACK)?.parse::<u32>().ok();
    names.iter().filter(|name| minor(name).is_some()).max_by_key(|name| minor(name)).cloned()
}

/// Debian's source package is one archive inside the package.
fn unpack_linux(deb: &Path, package: &str, dir: &Path, log: &Path) -> Result<()> {
    let member = format!("./usr/src/{package}.tar.xz");
    apt::unpack(deb, &member, dir, log)?;
    let archive = dir.join(member);
    let tree = dir.join("linux");
    fs::create_dir(&tree)?;
    let mut command = Command::new("tar");
    command.args(["-xJ", "--no-same-owner", "--strip-components=1", "-f"]).arg(&archive);
    command.arg("-C").arg(&tree).env("XZ_OPT", "-T0");
    process::logged(&mut command, log, |_| ())
        .with_context(|| format!("cannot unpack {}", archive.display()))?;
    Ok(fs::remove_dir_all(dir.join("usr"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str]) -> Option<String> {
        pick_kernel(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_tested_kernel_is_preferred() {
        let found = pick(&["linux-source-7.2", "linux-source-7.3", "linux-source-7.10"]);
        assert_eq!(found.as_deref(), Some("linux-source-7.3"));
    }

    #[test]
    fn a_locked_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"1\"\n\n[[package]]\n\
            name = \"a\"\nversion = \"0.12.0\"\nsource = \"x\"\n";
        assert_eq!(version_in(lock, "a"), Some("0.12.0"));
        assert_eq!(version_in(lock, "c"), None);
    }

    #[test]
    fn else_the_newest_of_the_series_by_number() {
        let found = pick(&["linux-source-7.9", "linux-source-7.10", "linux-source-7.x-doc"]);
        assert_eq!(found.as_deref(), Some("linux-source-7.10"));
        assert_eq!(pick(&["linux-source-7.2-extra"]), None);
        assert_eq!(pick(&[]), None);
    }
}
