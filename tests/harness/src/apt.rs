// SPDX-License-Identifier: Apache-2.0
//! Debian packages from the machine's own mirror, without touching the machine's APT state.
//!
//! APT gets private lists and a private cache, and verifies signatures as always. Packages are
//! unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::process;

/// The key ring that signs Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private view of a Debian archive for one architecture.
pub struct Apt {
    dir: PathBuf,
    log: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// The archives that the machine itself uses, but for `arch`. State goes below `dir`.
    ///
    /// # Errors
    ///
    /// When the lists cannot be fetched.
    pub fn machine(dir: &Path, arch: &str, log: &Path) -> Result<Self> {
        let apt = Self::prepare(dir, arch, log)?;
        apt.update()?;
        Ok(apt)
    }

    /// The suite `suite` on the mirror that `machine` has for Debian itself.
    ///
    /// # Errors
    ///
    /// When the machine's own sources name no Debian mirror, or the lists cannot be fetched.
    pub fn suite(machine: &Apt, suite: &str, arch: &str, log: &Path) -> Result<Self> {
        let mirror = machine.mirror()?;
        let mut apt = Self::prepare(&machine.dir.join(suite), arch, log)?;
        let parts = apt.dir.join("sources");
        fs::create_dir_all(&parts)?;
        let signed = if Path::new(KEYRING).exists() {
            format!("Signed-By: {KEYRING}\n")
        } else {
            String::new()
        };
        let text =
            format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n{signed}");
        fs::write(parts.join("suite.sources"), text)?;
        apt.options.push("Dir::Etc::sourcelist=/dev/null".to_owned());
        apt.options.push(format!("Dir::Etc::sourceparts={}", parts.display()));
        apt.update()?;
        Ok(apt)
    }

    fn prepare(dir: &Path, arch: &str, log: &Path) -> Result<Self> {
        if !process::in_path("apt-get") {
            bail!("no apt-get here: on a system that is not Debian set KERNEL_SRC to a Linux 7.3 tree");
        }
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let options = vec![
            format!("APT::Architecture={arch}"),
            format!("APT::Architectures={arch}"),
            format!("Dir::State::lists={}", dir.join("lists").display()),
            format!("Dir::Cache={}", dir.join("cache").display()),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ];
        Ok(Self { dir: dir.to_path_buf(), log: log.to_path_buf(), options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    fn update(&self) -> Result<()> {
        process::logged(self.command("apt-get").arg("update"), &self.log, |_| ())
            .context("cannot fetch Debian's package lists: is the network there?")
    }

    /// URI of the archive that serves the machine's own release.
    fn mirror(&self) -> Result<String> {
        let release =
            fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release has no VERSION_CODENAME")?;
        let targets = process::output(self.command("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Identifier: Packages",
        ]))?;
        pick_mirror(&targets, codename.trim_matches('"'))
            .with_context(|| format!("the machine's APT sources have no {codename} main"))
    }

    /// Names of the packages that start with `prefix`.
    ///
    /// # Errors
    ///
    /// When `apt-cache` fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = process::output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Versions of a package, best first.
    ///
    /// # Errors
    ///
    /// When `apt-cache` fails.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let text = process::output(self.command("apt-cache").args(["madison", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|version| version.trim().to_owned())
            .collect())
    }

    /// Downloads a package and returns the file.
    ///
    /// # Errors
    ///
    /// When the archive does not have it or its signature chain does not hold.
    pub fn download(
        &self,
        package: &str,
        version: &str,
        on_line: impl FnMut(&str),
    ) -> Result<PathBuf> {
        let dir = self.dir.join("download");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let mut command = self.command("apt-get");
        command.arg("download").arg(format!("{package}={version}")).current_dir(&dir);
        process::logged(&mut command, &self.log, on_line)
            .with_context(|| format!("cannot download {package} {version}"))?;
        let file = fs::read_dir(&dir)?.next().context("apt-get downloaded nothing")??.path();
        Ok(file)
    }
}

fn pick_mirror(targets: &str, codename: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (release == codename && component == "main").then(|| uri.to_owned())
    })
}

/// Unpacks `member` of a package's file tree (all of it with `.`) into `dir`.
///
/// # Errors
///
/// When the package is damaged or the directory cannot be written.
pub fn unpack(package: &Path, member: &str, dir: &Path, log: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = Command::new("sh");
    // tar notices when dpkg-deb fails: its input is no archive, or ends early.
    command
        .args(["-c", "dpkg-deb --fsys-tarfile \"$1\" | tar -x --no-same-owner -C \"$2\" \"$3\""]);
    command.arg("sh").args([package, dir]).arg(member);
    process::logged(&mut command, log, |_| ())
        .with_context(|| format!("cannot unpack {}", package.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_package_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("x.deb");
        fs::write(&package, "not a package").unwrap();
        let log = dir.path().join("log");
        let error = unpack(&package, ".", &dir.path().join("out"), &log).unwrap_err();
        assert!(format!("{error:#}").contains("x.deb"), "{error:#}");
    }

    #[test]
    fn the_mirror_of_the_release_itself_is_picked() {
        let targets = "http://security.example/ bookworm-security main\n\
                       http://mirror.example/debian/ bookworm-updates main\n\
                       http://mirror.example/debian/ bookworm contrib\n\
                       http://mirror.example/debian/ bookworm main\n";
        let mirror = pick_mirror(targets, "bookworm");
        assert_eq!(mirror.as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(pick_mirror(targets, "trixie"), None);
        assert_eq!(pick_mirror("\nx\n", "x"), None);
    }
}
