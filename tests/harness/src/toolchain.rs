// SPDX-License-Identifier: Apache-2.0
//! Which Rust builds what: one recipe for machines with rustup targets, with Debian's compiler,
//! or with the library's source only.
//!
//! For a target: (1) plain Cargo when the compiler in PATH has the target's library; (2) for
//! arm64 Linux Debian's prebuilt library beside Debian's compiler; (3) build-std when the
//! library's source is there; (4) an error with the one command that helps.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::fetch::Fetcher;
use crate::process;

/// Debian's compiler: the one that can build the kernel.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The library's source below a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// Static arm64 Linux programs.
pub const LINUX: &str = "aarch64-unknown-linux-gnu";
/// Bare metal without floating point registers.
pub const BARE_METAL: &str = "aarch64-unknown-none-softfloat";

/// How to run Cargo for one target.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    target: String,
    cargo: PathBuf,
    envs: Vec<(String, String)>,
    args: Vec<String>,
}

impl Recipe {
    /// `cargo <subcommand> --target ... ` with all that the recipe needs.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.arg(subcommand).args(&self.args).args(["--target", &self.target]);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The compiler.
    pub fn rustc(&self) -> String {
        let own = self.envs.iter().find(|(name, _)| name == "RUSTC");
        own.map_or_else(|| "rustc".to_owned(), |(_, path)| path.clone())
    }

    /// The target's name.
    pub fn target(&self) -> &str {
        &self.target
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// The recipe for static arm64 Linux programs.
///
/// # Errors
///
/// When no compiler here can do it; the message names the one command that helps.
pub fn linux(fetcher: &Fetcher) -> Result<Recipe> {
    let base = Recipe { target: LINUX.to_owned(), ..Recipe::default() }
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    let flags = "-Ctarget-feature=+crt-static";
    if has_target("rustc", LINUX) {
        return Ok(Recipe { cargo: "cargo".into(), ..base }.env("RUSTFLAGS", flags));
    }
    if let Some(version) = debian_version() {
        let sysroot = fetcher.rust_sysroot(&version)?;
        let flags = format!("--sysroot={} {flags}", sysroot.display());
        let base = base.env("RUSTC", DEBIAN_RUSTC).env("RUSTFLAGS", &flags);
        return Ok(Recipe { cargo: DEBIAN_CARGO.into(), ..base });
    }
    let base = base.env("RUSTFLAGS", flags);
    build_std(base, &["-Zbuild-std=std,panic_unwind"])
}

/// The recipe for bare-metal programs.
///
/// # Errors
///
/// When no compiler here can do it; the message names the one command that helps.
pub fn bare_metal() -> Result<Recipe> {
    let base = Recipe { target: BARE_METAL.to_owned(), ..Recipe::default() }
        .env("CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER", "aarch64-linux-gnu-ld");
    if has_target("rustc", BARE_METAL) {
        return Ok(Recipe { cargo: "cargo".into(), ..base });
    }
    build_std(base, &["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"])
}

fn build_std(base: Recipe, args: &[&str]) -> Result<Recipe> {
    let rustc = with_library_source().map(|(rustc, _)| rustc);
    let Some(rustc) = rustc else {
        bail!(
            "no Rust here can build for {0}: run `rustup target add {0}`, or on Debian \
               `apt-get install rustc-web rust-web-src cargo-web`",
            base.target
        );
    };
    let cargo = if rustc == DEBIAN_RUSTC { DEBIAN_CARGO } else { "cargo" };
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let recipe = Recipe { cargo: cargo.into(), args, ..base };
    Ok(recipe.env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1"))
}

/// The compiler for the kernel, and the library source that belongs to it.
///
/// # Errors
///
/// When there is none; the message names the one command that helps.
pub fn kernel() -> Result<(String, PathBuf)> {
    with_library_source().context(
        "the kernel needs a rustc with its library's source: `rustup component add rust-src`, or \
         on Debian `apt-get install rustc-web rust-web-src`",
    )
}

fn with_library_source() -> Option<(String, PathBuf)> {
    [DEBIAN_RUSTC, "rustc"].into_iter().find_map(|rustc| {
        let library = Path::new(&sysroot(rustc)?).join(LIBRARY);
        library.join("Cargo.lock").exists().then(|| (rustc.to_owned(), library))
    })
}

fn sysroot(rustc: &str) -> Option<String> {
    let text = process::output(Command::new(rustc).args(["--print", "sysroot"])).ok()?;
    Some(text.trim().to_owned())
}

fn has_target(rustc: &str, target: &str) -> bool {
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", target]);
    let Ok(dir) = process::output(&mut command) else { return false };
    std::fs::read_dir(dir.trim()).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Version of Debian's compiler package, when that package is the compiler.
fn debian_version() -> Option<String> {
    if !Path::new(DEBIAN_RUSTC).exists() {
        return None;
    }
    let mut command = Command::new("dpkg-query");
    let text = process::output(command.args(["-W", "-f", "${Version}", "rustc-web"])).ok()?;
    (!text.is_empty()).then_some(text)
}

/// The directory with clang, lld and the binutils of LLVM; empty when they are in PATH by
/// their plain names.
///
/// # Errors
///
/// When there is no clang at all.
pub fn llvm() -> Result<Option<PathBuf>> {
    if let Some(dir) = std::env::var_os("LLVM") {
        let dir = PathBuf::from(dir);
        if dir.join("clang").exists() {
            return Ok(Some(dir));
        }
        bail!("LLVM={} has no clang in it", dir.display());
    }
    let newest = std::fs::read_dir("/usr/lib").ok().into_iter().flatten().flatten();
    let newest = newest
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version: u32 = name.strip_prefix("llvm-")?.parse().ok()?;
            let dir = entry.path().join("bin");
            (dir.join("clang").exists() && dir.join("ld.lld").exists()).then_some((version, dir))
        })
        .max();
    if let Some((_, dir)) = newest {
        return Ok(Some(dir));
    }
    if process::in_path("clang") && process::in_path("ld.lld") {
        return Ok(None);
    }
    bail!("no clang and lld for the kernel: `apt-get install clang-22 lld-22 llvm-22 libclang-22-dev`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_becomes_one_command() {
        let recipe = Recipe {
            target: "t".to_owned(),
            cargo: "cargo".into(),
            args: vec!["-Zbuild-std=core".to_owned()],
            ..Recipe::default()
        }
        .env("RUSTC", "/usr/bin/rustc");
        let command = recipe.command("build");
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(args, ["build", "-Zbuild-std=core", "--target", "t"]);
        let envs: Vec<_> = command.get_envs().collect();
        assert_eq!(envs, [("RUSTC".as_ref(), Some("/usr/bin/rustc".as_ref()))]);
        assert_eq!(recipe.rustc(), "/usr/bin/rustc");
        assert_eq!(Recipe::default().rustc(), "rustc");
    }

    #[test]
    fn an_unknown_target_has_no_library() {
        assert!(!has_target("rustc", "aarch64-unknown-no-such-thing"));
        assert!(!has_target("no-such-rustc", LINUX));
    }
}
