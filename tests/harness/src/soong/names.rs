// SPDX-License-Identifier: Apache-2.0
//! Names in Android.bp files: types, properties, our modules, AOSP's modules, paths.

use std::collections::{BTreeMap, BTreeSet};

use super::blueprint::{File, Module, Property};
use super::{Tree, FACTS};
use crate::source::Source;

/// What our module names start with. There is no `soong_namespace`: the APEX must see them.
const PREFIXES: [&str; 4] = ["gzvm", "libgzvm", "com.android.gzvm", "vts_gzvm"];
/// Properties (their last part) that name other modules.
const REFERENCES: [&str; 10] = [
    "rustlibs",
    "proc_macros",
    "shared_libs",
    "static_libs",
    "header_libs",
    "defaults",
    "stdlibs",
    "imports",
    "default_applicable_licenses",
    "data_bins",
];
/// Properties (their last part) that name files.
const PATHS: [&str; 9] = [
    "srcs",
    "src",
    "init_rc",
    "data",
    "test_config",
    "test_config_template",
    "license_text",
    "wrapper_src",
    "crate_root",
];
/// Templates: they are copied to where their files are.
const TEMPLATES: &str = "docs/";

fn modules<'a>(tree: &'a Tree<'_>) -> impl Iterator<Item = (&'a File, &'a Module)> {
    tree.files.iter().flat_map(|file| file.modules.iter().map(move |module| (file, module)))
}

fn last(property: &str) -> &str {
    property.rsplit('.').next().unwrap_or(property)
}

/// Module types and properties that the facts do not have.
pub fn properties(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    for (file, module) in modules(tree) {
        let (path, kind) = (&file.path, &module.kind);
        if tree.facts.get("type", kind).is_none() {
            errors.push(format!("{path}: {FACTS} has no module type {kind}"));
            continue;
        }
        for (name, value) in &module.properties {
            match tree.facts.get("property", &format!("{kind}.{name}")) {
                None => errors.push(format!("{path}: {FACTS} has no property {kind}.{name}")),
                Some(fact) if fact.detail != value.kind() => errors.push(format!(
                    "{path}: {}: {name} is a {}, not a {}",
                    module.name(),
                    fact.detail,
                    value.kind()
                )),
                Some(_) => (),
            }
        }
    }
    errors
}

/// Names that are missing, foreign-looking, or taken.
pub fn own(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut seen = BTreeMap::new();
    for (file, module) in modules(tree).filter(|(_, module)| module.kind != "package") {
        let path = &file.path;
        let Some(name) = module.text("name") else {
            errors.push(format!("{path}: a {} has no name", module.kind));
            continue;
        };
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            errors.push(format!("{path}: {name} does not start with {}", PREFIXES.join(", ")));
        }
        if let Some(other) = seen.insert(name, path) {
            errors.push(format!("{path}: the name {name} is taken in {other}"));
        }
    }
    errors
}

/// What generated modules are called: `aidl_interface` makes one for each language.
fn provided(tree: &Tree<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, module) in modules(tree) {
        names.insert(module.name().to_owned());
        if module.kind == "aidl_interface" {
            names.insert(format!("{}-rust", module.name()));
        }
    }
    names
}

/// `(property, module name)` of everything that a module refers to: lists of modules, and `:name`, the output
/// of one, in the place of a file.
fn referred(module: &Module) -> impl Iterator<Item = (&str, &str)> {
    module.properties.iter().flat_map(|(name, value)| {
        let (modules, files) = (REFERENCES.contains(&last(name)), PATHS.contains(&last(name)));
        let named =
            texts(value).iter().filter(move |text| modules || files && text.starts_with(':'));
        named.map(move |text| (&**name, text.strip_prefix(':').unwrap_or(text)))
    })
}

/// The strings of a property.
fn texts(value: &Property) -> &[String] {
    match value {
        Property::Text(text) => std::slice::from_ref(text),
        Property::List(list) => list,
        _ => &[],
    }
}

/// References to modules that are neither ours nor known to exist for a device.
pub fn references(tree: &Tree<'_>) -> Vec<String> {
    let ours = provided(tree);
    let mut errors = Vec::new();
    for (file, module) in modules(tree) {
        let path = &file.path;
        for (property, name) in referred(module).filter(|(_, name)| !ours.contains(*name)) {
            let at = format!("{path}: {}: {property} names {name}", module.name());
            if tree.facts.get("change", name).is_some() {
                continue;
            }
            match tree.facts.get("module", name).map(|fact| &*fact.detail) {
                None => errors.push(format!("{at}, which is neither ours nor in {FACTS}")),
                Some("host") if !module.kind.ends_with("_host") => {
                    errors.push(format!("{at}, which AOSP has for the host only"));
                }
                Some(_) => (),
            }
        }
    }
    errors
}

/// Files that a module names and that are not there.
pub fn paths(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    for (file, module) in modules(tree).filter(|(file, _)| !file.path.starts_with(TEMPLATES)) {
        let named = module.properties.iter().filter(|(name, _)| PATHS.contains(&last(name)));
        for (property, value) in named {
            // `:name` is another module's output.
            for name in texts(value).iter().filter(|name| !name.starts_with(':')) {
                let path = join(&module.dir, name);
                if !tree.sources.iter().any(|source| source.path == path) {
                    errors.push(format!(
                        "{}: {}: {property} names {path}, which does not exist",
                        file.path,
                        module.name()
                    ));
                }
            }
        }
    }
    errors
}

/// AIDL files that the `aidl_interface` of their directory does not list.
pub fn unlisted_aidl(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    for (file, module) in modules(tree).filter(|(_, module)| module.kind == "aidl_interface") {
        let listed: BTreeSet<_> =
            module.list("srcs").iter().map(|name| join(&module.dir, name)).collect();
        let dir = join(&module.dir, "");
        let aidl = tree.sources.iter().map(|source| &source.path);
        let aidl = aidl.filter(|path| path.starts_with(&dir) && path.ends_with(".aidl"));
        for path in aidl.filter(|path| !listed.contains(*path)) {
            errors.push(format!("{}: {} does not list {path}", file.path, module.name()));
        }
    }
    errors
}

/// Files beside Android.bp that name our modules: what a product installs, what is run before and after
/// submission, what a test pushes.
pub fn elsewhere(tree: &Tree<'_>) -> Vec<String> {
    let ours = provided(tree);
    let mut errors = Vec::new();
    for source in tree.sources {
        for name in named(source).filter(|name| !ours.contains(*name)) {
            errors.push(format!("{}: there is no module {name}", source.path));
        }
    }
    errors
}

/// Module names in such a file: words of our prefixes, in quotes or as items of a list in Make.
fn named(source: &Source) -> impl Iterator<Item = &str> {
    let file = source.path.rsplit('/').next().unwrap_or_default();
    let make = file.ends_with(".mk");
    let whole = make || file == "TEST_MAPPING" || file == "AndroidTest.xml";
    let lines = source.text.lines().filter(move |_| whole);
    let words = lines.filter(move |line| !make || line.starts_with("    ")).flat_map(move |line| {
        let parts: Vec<_> = if make {
            line.trim().trim_end_matches('\\').split_whitespace().collect()
        } else {
            line.split('"').skip(1).step_by(2).flat_map(|text| text.split("->").take(1)).collect()
        };
        parts
    });
    // "Runs gzvm..." is a description, not a name.
    words.filter(|word| {
        PREFIXES.iter().any(|prefix| word.starts_with(prefix)) && !word.contains(' ')
    })
}

/// `name` below the directory `dir`, both relative to the top.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

/// Facts that nothing needs: they would rot.
pub fn unused_facts(tree: &Tree<'_>) -> Vec<String> {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (_, module) in modules(tree) {
        used.entry("type").or_default().insert(module.kind.clone());
        let properties = module.properties.keys().map(|name| format!("{}.{name}", module.kind));
        used.entry("property").or_default().extend(properties);
        let names: BTreeSet<_> = referred(module).map(|(_, name)| name.to_owned()).collect();
        used.entry("module").or_default().extend(names.clone());
        used.entry("change").or_default().extend(names);
    }
    used.iter().flat_map(|(kind, used)| tree.facts.unused(kind, used)).collect()
}

/// Changes that AOSP needs are described for the integrator, each under its name.
pub fn undocumented_changes(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, row) in tree.facts.all("change") {
        let page = tree.sources.iter().find(|source| source.path == row.source);
        if !page.is_some_and(|page| page.text.contains(&format!("`{name}`"))) {
            errors.push(format!("{FACTS}: {} does not say how to change `{name}`", row.source));
        }
    }
    errors
}
