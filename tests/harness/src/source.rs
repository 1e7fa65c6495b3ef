// SPDX-License-Identifier: Apache-2.0
//! Rules for source files that no compiler checks: the licence line, and a reason for each `unsafe`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Files that carry a licence line in a comment.
const WITH_LICENCE: &[&str] = &[
    "rs", "c", "h", "S", "sh", "bp", "te", "aidl", "toml", "config", "ld", "bazel", "rst", "yaml",
    "mk", "m4",
];
const WITH_LICENCE_BY_NAME: &[&str] = &["Makefile", "Kbuild", "Kconfig", "init", "run"];
/// Starts of executable scripts without an extension.
const SCRIPT: &str = "#!/";

/// A tracked or new file of the project.
pub struct Source {
    /// Path relative to the top.
    pub path: String,
    /// Contents.
    pub text: String,
}

/// All text files of the project that Git tracks or would add.
///
/// # Errors
///
/// When Git cannot list them.
pub fn all(top: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(top).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = process::output(&mut git).context("cannot list the project's files")?;
    let mut sources = Vec::new();
    for path in names.split('\0').filter(|path| !path.is_empty()) {
        // Deleted files and binary ones have no text.
        if let Ok(text) = std::fs::read_to_string(top.join(path)) {
            sources.push(Source { path: path.to_owned(), text });
        }
    }
    Ok(sources)
}

/// The licences that a file of ours may name: the kernel's for what becomes part of a kernel.
fn licences(path: &str) -> &'static [&'static str] {
    let dual = ["driver/abi/", "driver/model/"];
    if path.starts_with("driver/include/uapi/") {
        &["((GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0)"]
    } else if path.starts_with("driver/Documentation/devicetree/") {
        // As the kernel wants of bindings: others than Linux read them.
        &["(GPL-2.0-only OR BSD-2-Clause)"]
    } else if dual.iter().any(|dir| path.starts_with(dir)) {
        &["GPL-2.0 OR Apache-2.0"]
    } else if path.starts_with("driver/") || path.starts_with("tests/device/raw/") {
        &["GPL-2.0", "GPL-2.0-only"]
    } else if path.starts_with("tests/guests/linux/") {
        // A module of the guest's kernel, and a script beside it.
        &["GPL-2.0", "Apache-2.0"]
    } else {
        &["Apache-2.0"]
    }
}

fn wants_licence(source: &Source) -> bool {
    let path = Path::new(&source.path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ext = path.extension().unwrap_or_default().to_string_lossy();
    WITH_LICENCE.contains(&&*ext)
        || WITH_LICENCE_BY_NAME.contains(&&*name)
        || source.text.starts_with(SCRIPT)
}

/// Files without the right licence line on their first line (the second after `#!`).
pub fn licence_errors(sources: &[Source]) -> Vec<String> {
    let mut errors = Vec::new();
    for source in sources.iter().filter(|source| wants_licence(source)) {
        let want = licences(&source.path);
        let mut lines = source.text.lines().skip_while(|line| line.starts_with(SCRIPT));
        let first = lines.next().unwrap_or_default();
        let got = first
            .split_once("SPDX-License-Identifier: ")
            .map(|(_, got)| got.trim().trim_end_matches("*/").trim());
        match got {
            Some(got) if want.contains(&got) => {}
            Some(got) => errors.push(format!("{}: licence {got}, not {}", source.path, want[0])),
            None => errors.push(format!("{}: no SPDX line ({}) first", source.path, want[0])),
        }
    }
    errors
}

/// Uses of `unsafe` without a `SAFETY:` comment directly above. Other `unsafe` lines may stand in
/// between: one comment may speak for a group.
pub fn safety_errors(sources: &[Source]) -> Vec<String> {
    let mut errors = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".rs")) {
        let mut explained = false;
        for (number, line) in (1..).zip(source.text.lines()) {
            let code = code_of(line);
            let uses = code.split("unsafe").skip(1).any(opens);
            if uses && !explained && !line.contains("SAFETY:") {
                errors.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
            if line.contains("SAFETY:") {
                explained = true;
            } else if line.trim().is_empty() || !(code.trim().is_empty() || code.contains("unsafe"))
            {
                explained = false;
            }
        }
    }
    errors
}

/// Whether what follows the word opens a block or an implementation.
fn opens(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.starts_with('{') || rest.starts_with("impl ")
}

/// `unsafe` in the driver outside of `kx/`, and of host tests, where a part of the kernel is played.
pub fn confinement_errors(sources: &[Source]) -> Vec<String> {
    let confined = |path: &str| {
        let exempt = ["driver/kx/", "driver/model/tests/"];
        path.starts_with("driver/")
            && path.ends_with(".rs")
            && !exempt.iter().any(|place| path.starts_with(place))
    };
    let mut errors = Vec::new();
    for source in sources.iter().filter(|source| confined(&source.path)) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let code = code_of(line);
            let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            if words.into_iter().any(|word| word == "unsafe") {
                errors.push(format!("{}:{number}: unsafe outside of driver/kx", source.path));
            }
        }
    }
    errors
}

/// A line without its comment and without its string literals.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if !in_string => code.push(c),
            _ => {}
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file; `RISKY` stands for the keyword, so that this file itself has none.
    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.replace("RISKY", "unsafe") }
    }

    #[test]
    fn each_directory_has_its_licence() {
        let apache = "// SPDX-License-Identifier: Apache-2.0\n";
        let dual = "// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0\n";
        let good = [
            source("tests/a.rs", apache),
            source("driver/abi/lib.rs", dual),
            source("driver/vm.rs", "// SPDX-License-Identifier: GPL-2.0\n"),
            source("driver/c/x.h", "/* SPDX-License-Identifier: GPL-2.0 */\n"),
            source("tests/x.sh", "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0\n"),
            source(
                "driver/Documentation/devicetree/bindings/x.yaml",
                "# SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)\n",
            ),
            source("README.md", "no licence line needed"),
        ];
        assert_eq!(licence_errors(&good), Vec::<String>::new());
        let bad = [
            source("driver/vm.rs", apache),
            source("tests/a.rs", "//! x\n// SPDX-License-Identifier: Apache-2.0\n"),
            source("Makefile", "all:\n"),
            source("driver/x.yaml", "# SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)\n"),
        ];
        assert_eq!(licence_errors(&bad).len(), bad.len());
    }

    #[test]
    fn unsafe_needs_a_reason_right_above() {
        let good = "// SAFETY: the page is ours.\nlet x = RISKY { f() };\n\
            // SAFETY: no\n// state.\nRISKY impl Send for X {}\nRISKY impl Sync for X {}\n\
            // not RISKY { code }\nlet s = \"RISKY { text }\";\n";
        assert_eq!(safety_errors(&[source("a.rs", good)]), Vec::<String>::new());
        for bad in [
            "let x = RISKY { f() };\n",
            "// SAFETY: y\nlet y = 1;\nlet x = RISKY { f() };\n",
            "// SAFETY: y\n\nlet x = RISKY { f() };\n",
            "// safe\nRISKY impl Send for X {}\n",
            "// SAFETY: y\nlet x = RISKY { f() };\nlet y = 2;\nlet z = RISKY { f() };\n",
        ] {
            assert_eq!(safety_errors(&[source("a.rs", bad)]).len(), 1, "{bad}");
        }
    }

    #[test]
    fn unsafe_stays_in_kx() {
        let text = "// SAFETY: x\nlet x = RISKY { f() };\n";
        assert_eq!(confinement_errors(&[source("driver/vm.rs", text)]).len(), 1);
        assert_eq!(confinement_errors(&[source("driver/abi/lib.rs", "RISKY fn f() {}")]).len(), 1);
        for (path, text) in [
            ("driver/kx/gup.rs", text),
            ("tests/refhyp/src/main.rs", text),
            ("driver/vm.rs", "#![forbid(unsafe_code)]\n// unsafe is a word\n"),
        ] {
            assert_eq!(confinement_errors(&[source(path, text)]), Vec::<String>::new());
        }
    }
}
