// SPDX-License-Identifier: Apache-2.0
//! Do Android.bp and Cargo.toml describe the same crates?

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::blueprint::Module;
use super::names::join;
use super::{Tree, FACTS};

/// A Cargo package of the workspace.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its directory, relative to the top.
    pub dir: String,
    /// What Cargo builds from it.
    pub targets: Vec<Target>,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A library, program or test.
pub struct Target {
    /// The crate's name as Rust code says it.
    pub name: String,
    /// `lib`, `bin`, `test`, ...
    pub kind: String,
    /// Its root file, relative to the top.
    pub root: String,
    /// Its edition.
    pub edition: String,
}

/// A dependency.
#[derive(Clone)]
pub struct Dependency {
    /// Its package name.
    pub name: String,
    /// The versions that do, as Cargo.toml says it.
    pub version: String,
    /// Whether only tests need it.
    pub dev: bool,
}

impl Package {
    /// The packages in the output of `cargo metadata`.
    ///
    /// # Errors
    ///
    /// When it has not the form that Cargo documents.
    pub fn all(metadata: &Value, top: &Path) -> Result<Vec<Self>> {
        let list = metadata["packages"].as_array().context("cargo metadata has no packages")?;
        list.iter().map(|package| Self::new(package, top)).collect()
    }

    fn new(package: &Value, top: &Path) -> Result<Self> {
        let manifest = relative(&package["manifest_path"], top)?;
        let dir = manifest.strip_suffix("/Cargo.toml").unwrap_or_default().to_owned();
        let targets = array(&package["targets"])
            .map(|target| {
                Ok(Target {
                    name: text(&target["name"])?.replace('-', "_"),
                    kind: text(&target["kind"][0])?,
                    root: relative(&target["src_path"], top)?,
                    edition: text(&target["edition"])?,
                })
            })
            .collect::<Result<_>>()?;
        let dependencies = array(&package["dependencies"])
            .map(|dependency| {
                Ok(Dependency {
                    name: text(&dependency["name"])?,
                    version: text(&dependency["req"])?,
                    dev: dependency["kind"] == "dev",
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { name: text(&package["name"])?, dir, targets, dependencies })
    }

    fn library(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.kind == "lib")
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().context("cargo metadata: a string is missing")?.to_owned())
}

fn relative(value: &Value, top: &Path) -> Result<String> {
    let path = text(value)?;
    // Cargo resolves links, the caller's path need not be resolved.
    let top = top.canonicalize().unwrap_or_else(|_| top.to_path_buf());
    let path = Path::new(&path).strip_prefix(top).context("a package outside of the tree")?;
    Ok(path.to_string_lossy().into_owned())
}

/// Rust modules of ours, with what their defaults give, and the Cargo target each is built from.
fn rust<'a>(tree: &'a Tree<'_>) -> Vec<(Module, Option<(&'a Package, &'a Target)>)> {
    let all: Vec<_> = tree.files.iter().flat_map(|file| &file.modules).collect();
    let is_rust = |module: &&&Module| {
        tree.facts.get("type", &module.kind).is_some_and(|fact| fact.detail == "rust")
    };
    let resolved = all.iter().filter(is_rust).map(|module| module.resolved(&all));
    let with_target = |module: Module| {
        let root = module.list("srcs").first().map(|file| join(&module.dir, file));
        let found = tree.packages.iter().find_map(|package| {
            let target = package.targets.iter().find(|target| Some(&target.root) == root.as_ref());
            Some((package, target?))
        });
        (module, found)
    };
    resolved.map(with_target).collect()
}

/// All differences.
pub fn errors(tree: &Tree<'_>) -> Vec<String> {
    let modules = rust(tree);
    let mut errors = without_blueprint(tree, &modules);
    errors.extend(without_module(tree, &modules));
    for (module, found) in &modules {
        let Some((package, target)) = found else {
            errors.push(format!("{}: Cargo builds nothing from its srcs[0]", at(module)));
            continue;
        };
        errors.extend(identity(module, target));
        errors.extend(soong_flag(tree, module, package));
        errors.extend(libraries(tree, module, package, target));
    }
    errors
}

fn at(module: &Module) -> String {
    format!("{}/Android.bp: {}", module.dir, module.name())
}

/// Packages that Soong does not know, and that nobody said it need not know.
fn without_blueprint(
    tree: &Tree<'_>,
    modules: &[(Module, Option<(&Package, &Target)>)],
) -> Vec<String> {
    let mut errors = Vec::new();
    for package in &tree.packages {
        let named = |found: &Option<(&Package, &Target)>| {
            found.is_some_and(|(of, _)| of.name == package.name)
        };
        let generated = tree
            .files
            .iter()
            .flat_map(|file| &file.modules)
            .any(|module| module.kind == "aidl_interface" && module.dir == package.dir);
        let built = generated || modules.iter().any(|(_, found)| named(found));
        let excused = tree.facts.get("cargo-only", &package.name).is_some();
        let (name, dir) = (&package.name, &package.dir);
        match (built, excused) {
            (false, false) => errors.push(format!(
                "package {name}: no {dir}/Android.bp builds it; write one, or say why not \
                 with a line `cargo-only` in {FACTS}"
            )),
            (true, true) => {
                errors.push(format!("{FACTS}: {name} is not cargo-only, Soong builds it"));
            }
            _ => (),
        }
    }
    for (name, _) in tree.facts.all("cargo-only").filter(|(name, _)| !name.contains(':')) {
        if !tree.packages.iter().any(|package| package.name == name) {
            errors.push(format!("{FACTS}: there is no package {name}"));
        }
    }
    errors
}

/// Test programs that Soong does not build although it builds others of their package, and nobody said why.
fn without_module(
    tree: &Tree<'_>,
    modules: &[(Module, Option<(&Package, &Target)>)],
) -> Vec<String> {
    let built: BTreeSet<_> =
        modules.iter().filter_map(|(_, found)| found.map(|(_, target)| &target.root)).collect();
    let mut errors = Vec::new();
    let mut excused = BTreeSet::new();
    for package in &tree.packages {
        let tests: Vec<_> = package.targets.iter().filter(|target| target.kind == "test").collect();
        let some = tests.iter().any(|target| built.contains(&target.root));
        for target in tests.iter().filter(|target| some && !built.contains(&target.root)) {
            let name = format!("{}:{}", package.name, target.name);
            if tree.facts.get("cargo-only", &name).is_none() {
                errors.push(format!(
                    "{}/Android.bp: no module for {}; add a rust_test, or say why not with a line \
                     `cargo-only` {name} in {FACTS}",
                    package.dir, target.root
                ));
            }
            excused.insert(name);
        }
    }
    let lines = tree.facts.all("cargo-only").filter(|(name, _)| name.contains(':'));
    let unused = lines.filter(|(name, _)| !excused.contains(*name));
    errors
        .extend(unused.map(|(name, _)| format!("{FACTS}: no test program is left out as {name}")));
    errors
}

/// Name and edition.
fn identity(module: &Module, target: &Target) -> Vec<String> {
    let mut errors = Vec::new();
    let mut differs = |what: &str, soong: Option<&str>, cargo: &str| {
        if soong != Some(cargo) {
            let soong = soong.unwrap_or("nothing");
            errors.push(format!("{}: {what} is {soong}, Cargo's is {cargo}", at(module)));
        }
    };
    differs("edition", module.text("edition"), &target.edition);
    // The name of a test's crate is nobody's business.
    if target.kind == "lib" && !module.kind.starts_with("rust_test") {
        differs("crate_name", module.text("crate_name"), &target.name);
        let wanted = format!("lib{}", target.name);
        if !module.name().starts_with(&wanted) {
            errors.push(format!("{}: Soong wants a name that starts with {wanted}", at(module)));
        }
    }
    errors
}

/// Code that asks `cfg(soong)` gets its answer.
fn soong_flag(tree: &Tree<'_>, module: &Module, package: &Package) -> Vec<String> {
    let dir = format!("{}/", package.dir);
    let asks = tree.sources.iter().any(|source| {
        source.path.starts_with(&dir)
            && source.path.ends_with(".rs")
            && (source.text.contains("cfg(soong)") || source.text.contains("not(soong)"))
    });
    if asks && !module.list("cfgs").iter().any(|cfg| cfg == "soong") {
        vec![format!("{}: the code asks for cfg(soong), but cfgs has no \"soong\"", at(module))]
    } else {
        Vec::new()
    }
}

/// What each links, against what Cargo.toml lists.
fn libraries(tree: &Tree<'_>, module: &Module, package: &Package, target: &Target) -> Vec<String> {
    let linked = ["rustlibs", "proc_macros", "target.android_arm64.rustlibs"];
    let linked: BTreeSet<_> =
        linked.into_iter().flat_map(|name| module.list(name)).map(|name| plain(name)).collect();
    let test = module.kind.starts_with("rust_test");
    let mut allowed: BTreeSet<String> = BTreeSet::new();
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut known = package.dependencies.clone();
    if target.kind != "lib" {
        if let Some(library) = package.library() {
            let name = library.name.clone();
            known.push(Dependency { name, version: String::new(), dev: false });
        }
    }
    let text = program_text(tree, package, target);
    let elsewhere = |name: &str| tree.facts.get("cargo-only", name).is_some();
    let known = known.iter().filter(|dependency| !elsewhere(&dependency.name));
    for dependency in known.filter(|dependency| test || !dependency.dev) {
        let name = library_name(tree, &dependency.name);
        let crate_name = dependency.name.replace('-', "_");
        let uses = text.contains(&format!("{crate_name}::"));
        if uses || (target.kind == "lib" && !dependency.dev) {
            wanted.insert(plain(&name).to_owned());
        }
        allowed.insert(plain(&name).to_owned());
    }
    // Bindings to C are made by Soong; Cargo builds have something in their place.
    let ours = tree.files.iter().flat_map(|file| &file.modules);
    let bindings = ours.filter(|module| module.kind == "rust_bindgen");
    allowed.extend(bindings.map(|module| plain(module.name()).to_owned()));
    let mut errors = Vec::new();
    for name in linked.iter().filter(|name| !allowed.contains(**name)) {
        errors.push(format!("{}: links {name}, which Cargo.toml does not list", at(module)));
    }
    for name in wanted.iter().filter(|name| !linked.contains(name.as_str())) {
        errors.push(format!("{}: does not link {name}, which Cargo.toml lists", at(module)));
    }
    errors
}

/// A library's name without the ending that says for where it is.
fn plain(name: &str) -> &str {
    ["_nostd", "_android"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Soong's name for a crate: from the facts, or as Soong forms it.
fn library_name(tree: &Tree<'_>, package: &str) -> String {
    let fact = tree.facts.get("crate", package).and_then(|fact| fact.detail.split(' ').next());
    fact.map_or_else(|| format!("lib{}", package.replace('-', "_")), str::to_owned)
}

/// The source of a program: its root, and the files beside it unless they are the library's.
fn program_text(tree: &Tree<'_>, package: &Package, target: &Target) -> String {
    let dir = target.root.rsplit_once('/').map_or("", |(dir, _)| dir);
    let library = package.library().is_some_and(|library| library.root.starts_with(dir));
    let whole = target.root.ends_with("/main.rs") && !library;
    let belongs = |path: &str| {
        let beside = path.rsplit_once('/').is_some_and(|(of, _)| of == dir);
        path == target.root || (whole && beside && path.ends_with(".rs"))
    };
    let files = tree.sources.iter().filter(|source| belongs(&source.path));
    files.map(|source| source.text.as_str()).collect()
}

/// Crates that ship have AOSP's versions.
pub fn versions(tree: &Tree<'_>) -> Vec<String> {
    let mut errors = Vec::new();
    let mut needed = BTreeSet::new();
    for (module, found) in rust(tree) {
        let Some((package, _)) = found else { continue };
        let ships = !module.kind.starts_with("rust_test");
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.dev) {
            let name = &dependency.name;
            if tree.packages.iter().any(|package| package.name == *name) {
                continue;
            }
            needed.insert(name.clone());
            let Some(fact) = tree.facts.get("crate", name) else {
                errors.push(format!("{FACTS} has no crate {name}, which {} links", package.name));
                continue;
            };
            let Some((_, version)) = fact.detail.split_once(' ') else { continue };
            if ships && dependency.version != format!("={version}") {
                errors.push(format!(
                    "{}: {name} is {}, but AOSP has {version}",
                    package.name, dependency.version
                ));
            }
        }
    }
    errors.extend(tree.facts.unused("crate", &needed));
    errors.sort();
    errors.dedup();
    errors
}
