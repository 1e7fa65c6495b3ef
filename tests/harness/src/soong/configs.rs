// SPDX-License-Identifier: Apache-2.0
//! Configurations of tests for Tradefed: they name the module, push what it needs and nothing else, to where the
//! program looks for it.

use super::blueprint::Module;
use super::names::join;
use super::Tree;

/// Differences between test modules and the files that `test_config` names.
pub fn errors(tree: &Tree<'_>) -> Vec<String> {
    let modules: Vec<_> = tree.files.iter().flat_map(|file| &file.modules).collect();
    let mut errors = Vec::new();
    for module in modules.iter().filter(|module| module.kind.starts_with("rust_test")) {
        let Some(config) = module.text("test_config") else { continue };
        let path = join(&module.dir, config);
        let Some(source) = tree.sources.iter().find(|source| source.path == path) else { continue };
        let found = problems(tree, module, &modules, &source.text);
        errors.extend(found.into_iter().map(|problem| format!("{path}: {problem}")));
    }
    errors
}

fn problems(tree: &Tree<'_>, module: &Module, modules: &[&Module], text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = module.name();
    if options(text, "module-name") != [name] {
        problems.push(format!("module-name is not {name}"));
    }
    let is_vts = module.list("test_suites").iter().any(|suite| suite == "vts");
    if is_vts != options(text, "test-suite-tag").contains(&"vts") {
        problems.push(format!("{name} has vts in one of test_suites and test-suite-tag"));
    }
    let mut needed: Vec<_> = module.list("data").iter().filter_map(|d| file(d, modules)).collect();
    needed.push(name);
    let dir = join(&module.dir, "");
    let code = |path: &str| path.starts_with(&dir) && path.ends_with(".rs");
    let looked_for = |to: &str| {
        let text = format!("\"{to}\"");
        tree.sources.iter().any(|source| code(&source.path) && source.text.contains(&text))
    };
    for push in options(text, "push") {
        let (from, to) = push.split_once("->").unwrap_or((push, ""));
        match needed.iter().position(|file| *file == from) {
            Some(index) => drop(needed.swap_remove(index)),
            None => problems.push(format!("pushes {from}, which {name} does not bring along")),
        }
        if from != name && !looked_for(to) {
            problems.push(format!("pushes {from} to {to}, where nobody looks for it"));
        }
    }
    problems.extend(needed.iter().map(|file| format!("does not push {file}")));
    problems
}

/// The file that an entry of `data` is: another module's output has that module's `filename`.
fn file<'a>(entry: &'a str, modules: &[&'a Module]) -> Option<&'a str> {
    let Some(name) = entry.strip_prefix(':') else { return Some(entry) };
    modules.iter().find(|module| module.text("name") == Some(name))?.text("filename")
}

/// Values of the options of a name.
fn options<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("<option name=\"{name}\" value=\"");
    let values = text.split(&*start).skip(1).filter_map(|rest| rest.split_once('"'));
    values.map(|(value, _)| value).collect()
}
