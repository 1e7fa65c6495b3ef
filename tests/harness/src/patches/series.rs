// SPDX-License-Identifier: Apache-2.0
//! How the driver is cut into patches: the file `driver/upstream/series.txt` explains its own format.

use anyhow::{bail, Context, Result};

/// Where the driver goes in the kernel.
const HOME: &str = "drivers/virt/geniezone";
/// Directories of `driver/` whose place in the kernel is their own name.
const AT_TOP: [&str; 2] = ["Documentation/", "include/"];
/// Files of `driver/` that the kernel does not want: those of other builds, and the series itself.
const NOT_FOR_THE_KERNEL: [&str; 7] =
    ["Cargo.toml", "Android.bp", "BUILD.bazel", "gzvm.defconfig", "lib.rs", "tests/", "upstream/"];

/// One patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// First line of its message.
    pub subject: String,
    /// The rest of its message.
    pub message: String,
    /// What it adds: files, or directories with `/` at the end.
    pub adds: Vec<String>,
    /// Its changes to files of the kernel.
    pub edits: Vec<Edit>,
}

/// Lines that are put into a file of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// The kernel's file.
    pub path: String,
    /// The line before which they go.
    pub before: String,
    /// The lines.
    pub lines: Vec<String>,
}

/// Parses the series.
///
/// # Errors
///
/// At a line that has no meaning where it is.
pub fn parse(text: &str) -> Result<Vec<Patch>> {
    let mut patches: Vec<Patch> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(subject) = line.strip_prefix("== ") {
            patches.push(Patch { subject: subject.to_owned(), ..Patch::default() });
            continue;
        }
        let place = || format!("series.txt:{}: {line}", index + 1);
        let Some(patch) = patches.last_mut() else {
            if line.is_empty() {
                continue;
            }
            bail!("{}: no patch has begun", place());
        };
        if let Some(path) = line.strip_prefix("+ ") {
            patch.adds.push(path.to_owned());
        } else if let Some(path) = line.strip_prefix("> ") {
            patch.edits.push(Edit { path: path.to_owned(), ..Edit::default() });
        } else if let Some(before) = line.strip_prefix("@ ") {
            patch.edits.last_mut().with_context(place)?.before = before.to_owned();
        } else if let Some(text) = line.strip_prefix("| ") {
            patch.edits.last_mut().with_context(place)?.lines.push(text.to_owned());
        } else if patch.adds.is_empty() && patch.edits.is_empty() {
            patch.message += line;
            patch.message.push('\n');
        } else if !line.is_empty() {
            bail!("{}: neither + nor > nor @ nor |", place());
        }
    }
    for patch in &mut patches {
        patch.message = patch.message.trim().to_owned();
    }
    Ok(patches)
}

impl Edit {
    /// The file after the edit.
    ///
    /// # Errors
    ///
    /// When the line before which it goes is not there exactly once.
    pub fn apply(&self, text: &str) -> Result<String> {
        let found = text.lines().filter(|line| *line == self.before).count();
        if found != 1 {
            bail!("{} has the line \"{}\" {found} times, not once", self.path, self.before);
        }
        let mut edited = String::with_capacity(text.len());
        for line in text.lines() {
            if line == self.before {
                self.lines.iter().for_each(|new| edited += &format!("{new}\n"));
            }
            edited += &format!("{line}\n");
        }
        Ok(edited)
    }
}

/// Nothing is built before all of it is there: so each patch alone leaves a tree that builds.
///
/// # Errors
///
/// When a patch before the last touches what Kbuild reads.
pub fn build_comes_last(patches: &[Patch]) -> Result<()> {
    let build = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        ["Kbuild", "Kconfig", "Makefile"].contains(&name)
    };
    let Some((_, before)) = patches.split_last() else { bail!("the series has no patch") };
    for patch in before {
        let mut touched = patch.edits.iter().map(|edit| &edit.path).chain(&patch.adds);
        if let Some(path) = touched.find(|path| build(path)) {
            bail!("\"{}\" has {path}, which belongs into the last patch", patch.subject);
        }
    }
    Ok(())
}

/// Where a file of `driver/` goes in the kernel, if it does.
pub fn home(file: &str) -> Option<String> {
    let unwanted = |name: &str| file.starts_with(name) || file.contains(&format!("/{name}"));
    if NOT_FOR_THE_KERNEL.into_iter().any(unwanted) {
        None
    } else if AT_TOP.iter().any(|dir| file.starts_with(dir)) {
        Some(file.to_owned())
    } else {
        Some(format!("{HOME}/{file}"))
    }
}

/// For each patch the files that it adds, of all the files of `driver/`: each goes with the first
/// patch that names it.
///
/// # Errors
///
/// When a file goes with no patch, or a patch names what is not there.
pub fn assign<'a>(patches: &[Patch], files: &'a [String]) -> Result<Vec<Vec<&'a str>>> {
    let mut left: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| home(file).is_some()).collect();
    let mut assigned = Vec::new();
    for patch in patches {
        let mut own = Vec::new();
        for add in &patch.adds {
            let (mine, rest): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|file| file == add || (add.ends_with('/') && file.starts_with(add)));
            if mine.is_empty() {
                bail!("\"{}\" adds {add}, which is not there or has been added", patch.subject);
            }
            own.extend(mine);
            left = rest;
        }
        assigned.push(own);
    }
    if !left.is_empty() {
        bail!("driver/upstream/series.txt has no patch for {}", left.join(", "));
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# c\n\n== one: First\n\nWhy.\nMore.\n\n+ Kbuild\n+ kx/mod.rs\n\
        > drivers/virt/Makefile\n@ obj-y += a/\n| obj-y += g/\n\n== two: Second\n\nWhy.\n\n+ kx/\n";

    fn files() -> Vec<String> {
        [
            "Kbuild",
            "kx/mod.rs",
            "kx/gup.rs",
            "abi/Cargo.toml",
            "abi/tests/x.rs",
            "upstream/cover.txt",
        ]
        .map(str::to_owned)
        .into()
    }

    #[test]
    fn a_series_is_patches_with_files_and_edits() {
        let patches = parse(TEXT).unwrap();
        assert_eq!(patches.len(), 2);
        assert_eq!(patches[0].message, "Why.\nMore.");
        let edit = &patches[0].edits[0];
        assert_eq!(
            edit.apply("obj-y += 0/\nobj-y += a/\n").unwrap(),
            "obj-y += 0/\nobj-y += g/\nobj-y += a/\n"
        );
        assert!(edit.apply("nothing\n").unwrap_err().to_string().contains("0 times"));
        let files = files();
        assert_eq!(
            assign(&patches, &files).unwrap(),
            [vec!["Kbuild", "kx/mod.rs"], vec!["kx/gup.rs"]]
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("+ x\n").unwrap_err().to_string().contains("no patch has begun"));
        assert!(parse("== a\n| x\n").is_err());
        assert!(parse("== a\n+ x\nwords\n").unwrap_err().to_string().contains("series.txt:3"));
        let mut files = files();
        files.push("new.rs".to_owned());
        let error = assign(&parse(TEXT).unwrap(), &files).unwrap_err().to_string();
        assert!(error.contains("no patch for new.rs"), "{error}");
        let error =
            assign(&parse(&TEXT.replace("+ kx/\n", "+ ky/\n")).unwrap(), &files).unwrap_err();
        assert!(error.to_string().contains("adds ky/, which is not there"), "{error}");
    }

    #[test]
    fn what_builds_the_driver_comes_last() {
        let early = parse(TEXT).unwrap();
        let error = build_comes_last(&early).unwrap_err().to_string();
        assert!(error.contains("belongs into the last patch"), "{error}");
        let (mut late, edits) = (early.clone(), early[0].edits.clone());
        late[0].adds = vec!["kx/mod.rs".to_owned()];
        late[0].edits.clear();
        late[1].edits = edits;
        build_comes_last(&late).unwrap();
    }

    #[test]
    fn every_file_of_the_driver_has_a_place() {
        assert_eq!(home("kx/gup.rs").unwrap(), "drivers/virt/geniezone/kx/gup.rs");
        assert_eq!(home("include/uapi/linux/gzvm.h").unwrap(), "include/uapi/linux/gzvm.h");
        for file in ["abi/lib.rs", "model/tests/prop.rs", "abi/Android.bp", "upstream/series.txt"] {
            assert_eq!(home(file), None, "{file}");
        }
        let top: &std::path::Path = concat!(env!("CARGO_MANIFEST_DIR"), "/../..").as_ref();
        let text = std::fs::read_to_string(top.join("driver/upstream/series.txt")).unwrap();
        let sources = crate::source::all(top).unwrap();
        let files = sources.iter().filter_map(|source| source.path.strip_prefix("driver/"));
        let files: Vec<_> = files.map(str::to_owned).collect();
        let patches = parse(&text).unwrap();
        let assigned = assign(&patches, &files).unwrap();
        assert!(assigned.iter().all(|files| files.len() < 30));
        assert_eq!(too_long(&sources), Vec::<String>::new());
    }

    /// Lines that checkpatch would complain about: rustfmt leaves comments alone.
    fn too_long(sources: &[crate::source::Source]) -> Vec<String> {
        let code = [".rs", ".c", ".h"];
        let ours = sources.iter().filter(|source| {
            let file = source.path.strip_prefix("driver/");
            file.and_then(home).is_some_and(|home| code.iter().any(|end| home.ends_with(end)))
        });
        let width = |line: &str| {
            line.chars().fold(0_usize, |at, c| if c == '\t' { at / 8 * 8 + 8 } else { at + 1 })
        };
        let long = |line: &str| width(line) > 100;
        ours.flat_map(|source| {
            let lines = source.text.lines().enumerate().filter(|(_, line)| long(line));
            lines.map(|(index, _)| format!("{}:{}", source.path, index + 1)).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn long_lines_are_found() {
        let source =
            |path: &str, text: String| crate::source::Source { path: path.to_owned(), text };
        let line = "/".repeat(101);
        let sources = [
            source("driver/vm.rs", format!("a\n{line}\n")),
            source("driver/model/tests/x.rs", line.clone()),
            source("avf-backend/x.rs", line),
        ];
        assert_eq!(too_long(&sources), ["driver/vm.rs:2"]);
    }
}
