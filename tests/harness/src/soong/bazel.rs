// SPDX-License-Identifier: Apache-2.0
//! `BUILD.bazel` for Kleaf: its rules and their attributes are in the table of facts.

use std::collections::BTreeSet;

use super::{Tree, FACTS};

/// Rules and attributes that the facts do not have, and facts that nothing needs.
pub fn errors(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut used = BTreeSet::new();
    for source in tree.sources.iter().filter(|source| source.path.ends_with("BUILD.bazel")) {
        for name in attributes(&source.text) {
            if tree.facts.get("bazel", &name).is_none() {
                errors.push(format!("{}: {FACTS} has no bazel {name}", source.path));
            }
            used.insert(name);
        }
    }
    errors.extend(tree.facts.unused("bazel", &used));
    errors
}

/// "rule.attribute" of all calls at the outermost level, one attribute a line.
fn attributes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rule = "";
    for line in text.lines() {
        if let Some(name) = line.strip_suffix('(').filter(|name| is_word(name)) {
            rule = name;
        } else if let Some((name, _)) = line.strip_prefix("    ").and_then(|l| l.split_once(" = "))
        {
            if is_word(name) {
                found.push(format!("{rule}.{name}"));
            }
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_belong_to_their_rule() {
        let text = "load(\"@x//:y.bzl\", \"ddk_module\")\n\nddk_module(\n    name = \"a\",\n    \
            srcs = glob([\n        \"*.rs\",\n    ], exclude = [\"b\"]),\n)\n";
        assert_eq!(attributes(text), ["ddk_module.name", "ddk_module.srcs"]);
    }
}
