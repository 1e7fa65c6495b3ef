// SPDX-License-Identifier: Apache-2.0
//! Do C and Rust see the same kernel structures?
//!
//! The kernel's bindings are made by bindgen without layout tests, and bindgen is known to lay
//! `task_struct` out wrongly in some configurations (no SCHEDSTATS): `current!()` then reads
//! garbage. Two objects, one from C and one from Rust, hold a table of the same sizes and offsets;
//! they are compared here without booting anything.

use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::kernel::Kernel;
use crate::module;
use crate::project::Project;

/// Builds both tables against a kernel and compares them.
///
/// # Errors
///
/// When they differ, with the entries that do; or when they cannot be built.
pub fn check(project: &Project, kernel: &Kernel) -> Result<()> {
    let source = project.top.join("tests/harness/layout");
    let names = names(&fs::read_to_string(source.join("layout_c.c"))?);
    let dir =
        module::objects(project, kernel, &source, "layout", &["layout_c.o", "layout_rust.o"])?;
    let c = table(&dir.join("layout_c.o"))?;
    let rust = table(&dir.join("layout_rust.o"))?;
    let wrong = differences(&names, &c, &rust);
    if !wrong.is_empty() {
        bail!("C and Rust disagree (is SCHEDSTATS on?):\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// Names of the table's entries: the indented lines `OFFSET(..),` and `SIZE(..),` of the C file.
fn names(source: &str) -> Vec<String> {
    let entries =
        source.lines().filter(|line| line.starts_with("\tOFFSET(") || line.starts_with("\tSIZE("));
    entries.map(|line| line.trim().trim_end_matches(',').to_owned()).collect()
}

fn differences(names: &[String], c: &[u64], rust: &[u64]) -> Vec<String> {
    let mut wrong = Vec::new();
    if names.len() != c.len() || c.len() != rust.len() {
        wrong.push(format!(
            "tables of different lengths: {} names, C {}, Rust {}",
            names.len(),
            c.len(),
            rust.len()
        ));
    }
    for ((name, c), rust) in names.iter().zip(c).zip(rust) {
        if c != rust {
            wrong.push(format!("{name}: C {c}, Rust {rust}"));
        }
    }
    wrong
}

/// The numbers in the object's symbol `gzvm_layout_table`.
fn table(path: &Path) -> Result<Vec<u64>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*data).with_context(|| format!("{}", path.display()))?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok("gzvm_layout_table"))
        .with_context(|| format!("{} has no table", path.display()))?;
    let section = symbol.section_index().context("the table is in no section")?;
    let section = file.section_by_index(section)?;
    let start = symbol.address().checked_sub(section.address()).context("table outside")?;
    let (start, size) = (usize::try_from(start)?, usize::try_from(symbol.size())?);
    let bytes = section.data()?.get(start..start + size).context("the table is cut short")?;
    let words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok());
    Ok(words.map(u64::from_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn differences_are_named() {
        let names = own(&["OFFSET(task_struct, mm)", "SIZE(file)"]);
        assert!(differences(&names, &[1, 2], &[1, 2]).is_empty());
        let wrong = differences(&names, &[1088, 2], &[1040, 2]);
        assert_eq!(wrong, ["OFFSET(task_struct, mm): C 1088, Rust 1040"]);
        assert_eq!(differences(&names, &[1, 2], &[1]).len(), 1);
        assert_eq!(differences(&names, &[], &[]).len(), 1);
    }

    #[test]
    fn the_table_has_the_fields_that_the_driver_reads() {
        let names = names(include_str!("../layout/layout_c.c"));
        assert!(names.contains(&"OFFSET(task_struct, mm)".to_owned()), "{names:?}");
        assert!(names.len() > 20);
    }
}
