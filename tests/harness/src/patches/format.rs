// SPDX-License-Identifier: Apache-2.0
//! The driver's Rust in the kernel's format: `make rustfmtcheck` there looks at the whole tree, with settings of
//! its own. Nothing else about it is changed, which is checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use super::write;
use crate::process;

/// The driver's first file, from which rustfmt finds all others.
const ROOT: &str = "gzvm_main.rs";
/// The kernel's settings.
const SETTINGS: &str = ".rustfmt.toml";

/// Copies `files` of `driver` to `to`, formatted as the kernel in `tree` wants it.
///
/// # Errors
///
/// When there is no rustfmt, or it changes more than the format.
pub fn copy(driver: &Path, files: &[String], tree: &Path, to: &Path) -> Result<PathBuf> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    for file in files {
        let text = fs::read_to_string(driver.join(file))?;
        write(&to.join(file), &text)?;
    }
    let mut rustfmt = Command::new("rustfmt");
    rustfmt.arg("--edition=2021").arg("--config-path").arg(tree.join(SETTINGS));
    process::output(rustfmt.arg(to.join(ROOT))).context("the kernel's format")?;
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let [ours, theirs] = [driver, to].map(|dir| fs::read_to_string(dir.join(file)));
        if essence(&ours?) != essence(&theirs?) {
            bail!("{file} is another program in the kernel's format");
        }
    }
    Ok(to.to_owned())
}

/// A program without what formats differ in: space, commas at the ends of lists, semicolons at the ends of
/// blocks, braces around a single expression, and the order of imports.
fn essence(program: &str) -> Vec<char> {
    let mut characters: Vec<_> = program
        .chars()
        .filter(|character| !character.is_whitespace() && !",;{}".contains(*character))
        .collect();
    characters.sort_unstable();
    characters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(driver: &[(&str, &str)]) -> Result<String> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        for (file, text) in driver {
            write(&at("driver").join(file), text)?;
        }
        write(&at("tree").join(SETTINGS), "edition = \"2021\"\nnewline_style = \"Unix\"\n")?;
        let files: Vec<_> = driver.iter().map(|(file, _)| (*file).to_owned()).collect();
        let to = copy(&at("driver"), &files, &at("tree"), &at("to"))?;
        Ok(fs::read_to_string(to.join(driver[0].0))?)
    }

    #[test]
    fn the_kernel_s_format_is_narrower() {
        if !process::in_path("rustfmt") {
            return;
        }
        let wide =
            "fn f() -> S {\n    S { first_field: 11_111_111, second_field: 22_222_222 }\n}\n";
        let text = copied(&[(ROOT, wide), ("c/x.h", "int x ;\n")]).unwrap();
        assert!(text.contains("S {\n        first_field: 11_111_111,\n"), "{text}");
        assert!(copied(&[(ROOT, "fn f( {\n")]).is_err());
    }

    #[test]
    fn another_program_is_another() {
        assert_eq!(essence("f(a, b)"), essence("f(\n    a,\n    b,\n)"));
        assert_ne!(essence("f(a, b)"), essence("f(a, c)"));
    }
}
