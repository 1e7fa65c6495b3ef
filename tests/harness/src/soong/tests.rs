// SPDX-License-Identifier: Apache-2.0
//! Each check on a small tree that is right, and on that tree with one mistake.

use super::*;
use crate::soong::crates::{Dependency, Target};

const BLUEPRINT: &str = r#"
package { default_applicable_licenses: ["gzvm_license"] }
license { name: "gzvm_license", license_text: ["LICENSE"] }
rust_defaults { name: "gzvm_defaults", edition: "2021", cfgs: ["soong"] }
rust_library {
    name: "libgzvm_a",
    defaults: ["gzvm_defaults"],
    crate_name: "gzvm_a",
    srcs: ["a/lib.rs"],
    rustlibs: ["libanyhow", "libgz_mem"],
}
rust_binary { name: "gzvm_prog", defaults: ["gzvm_defaults"], srcs: ["a/main.rs"], rustlibs: ["libgzvm_a"] }
"#;

const TABLE: &str = "# a comment
type\tpackage\tother\tAVF
type\tlicense\tother\tAVF
type\trust_defaults\tdefaults\tAVF
type\trust_library\trust\tAVF
type\trust_binary\trust\tAVF
property\tpackage.default_applicable_licenses\tlist\tAVF
property\tlicense.name\tstr\tAVF
property\tlicense.license_text\tlist\tAVF
property\trust_defaults.name\tstr\tAVF
property\trust_defaults.edition\tstr\tAVF
property\trust_defaults.cfgs\tlist\tAVF
property\trust_library.name\tstr\tAVF
property\trust_library.defaults\tlist\tAVF
property\trust_library.crate_name\tstr\tAVF
property\trust_library.srcs\tlist\tAVF
property\trust_library.rustlibs\tlist\tAVF
property\trust_binary.name\tstr\tAVF
property\trust_binary.defaults\tlist\tAVF
property\trust_binary.srcs\tlist\tAVF
property\trust_binary.rustlibs\tlist\tAVF
module\tlibanyhow\tdevice\tAVF
change\tlibgz_mem\thost only\tdocs/aosp/crates.md
crate\tanyhow\tlibanyhow 1.0.99\tAOSP
crate\tgz-mem\tlibgz_mem 0.16.2\tAOSP
cargo-only\tharness\ttests\tthis tree
";

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn sources() -> Vec<Source> {
    vec![
        source("Android.bp", BLUEPRINT),
        source(FACTS, TABLE),
        source("LICENSE", ""),
        source("a/lib.rs", "#[cfg(not(soong))] mod facade;"),
        source("a/main.rs", "use gzvm_a::run;"),
        source("docs/aosp/crates.md", "## `libgz_mem`"),
    ]
}

fn package(name: &str, dir: &str, targets: Vec<Target>) -> Package {
    Package { name: name.to_owned(), dir: dir.to_owned(), targets, dependencies: Vec::new() }
}

fn target(name: &str, kind: &str, root: &str) -> Target {
    let own = str::to_owned;
    Target { name: own(name), kind: own(kind), root: own(root), edition: own("2021") }
}

fn packages() -> Vec<Package> {
    let targets = vec![target("gzvm_a", "lib", "a/lib.rs"), target("prog", "bin", "a/main.rs")];
    let mut a = package("gzvm-a", "a", targets);
    let dependency = |name: &str, version: &str, dev| Dependency {
        name: name.to_owned(),
        version: version.to_owned(),
        dev,
    };
    a.dependencies = vec![
        dependency("anyhow", "=1.0.99", false),
        dependency("gz-mem", "=0.16.2", false),
        dependency("proptest", "1", true),
    ];
    vec![a, package("harness", "tests/harness", Vec::new())]
}

/// The errors of all checks after a change to the tree.
fn errors(change: impl FnOnce(&mut Vec<Source>, &mut Vec<Package>)) -> String {
    let (mut sources, mut packages) = (sources(), packages());
    change(&mut sources, &mut packages);
    let found = checks(&sources, packages).into_iter();
    found
        .flat_map(|(name, errors)| errors.into_iter().map(move |e| format!("{name}: {e}\n")))
        .collect()
}

/// The errors after a replacement in the file `path`, which must have been there.
fn replaced(path: &str, from: &str, to: &str) -> String {
    errors(|sources, _| {
        let file = sources.iter_mut().find(|source| source.path == path).unwrap();
        assert!(file.text.contains(from), "no {from} in {path}");
        file.text = file.text.replace(from, to);
    })
}

#[test]
fn a_right_tree_has_no_errors() {
    assert_eq!(errors(|_, _| ()), "");
}

#[test]
fn syntax() {
    let error = replaced("Android.bp", "rust_library {", "rust_library [");
    assert!(error.contains("syntax: Android.bp:"), "{error}");
    assert!(errors(|sources, _| drop(sources.remove(0))).contains("no Android.bp found"));
}

#[test]
fn types_and_properties() {
    let error = replaced("Android.bp", "rust_binary {", "rust_binary_x {");
    assert!(error.contains("has no module type rust_binary_x"), "{error}");
    let error = replaced("Android.bp", "crate_name:", "crates_name:");
    assert!(error.contains("has no property rust_library.crates_name"), "{error}");
    let error = replaced("Android.bp", "srcs: [\"a/lib.rs\"]", "srcs: \"a/lib.rs\"");
    assert!(error.contains("libgzvm_a: srcs is a list, not a str"), "{error}");
}

#[test]
fn names() {
    let error = replaced("Android.bp", "\"gzvm_prog\"", "\"prog\"");
    assert!(error.contains("prog does not start with gzvm"), "{error}");
    let error = replaced("Android.bp", "\"gzvm_prog\"", "\"gzvm_license\"");
    assert!(error.contains("the name gzvm_license is taken in Android.bp"), "{error}");
    let error = replaced("Android.bp", "name: \"gzvm_prog\",", "");
    assert!(error.contains("a rust_binary has no name"), "{error}");
}

#[test]
fn modules_of_others() {
    let error = replaced("Android.bp", "\"libanyhow\"", "\"libanyhow2\"");
    assert!(error.contains("rustlibs names libanyhow2, which is neither ours nor"), "{error}");
    let error = replaced("Android.bp", "\"LICENSE\"", "\":notice\"");
    assert!(error.contains("license_text names notice, which is neither ours nor"), "{error}");
    let error = replaced(FACTS, "libanyhow\tdevice", "libanyhow\thost");
    assert!(error.contains("libanyhow, which AOSP has for the host only"), "{error}");
}

#[test]
fn paths() {
    let error = replaced("Android.bp", "\"LICENSE\"", "\"LICENCE\"");
    assert!(error.contains("license_text names LICENCE, which does not exist"), "{error}");
}

#[test]
fn the_table_itself() {
    let error = replaced(FACTS, "libanyhow\tdevice\tAVF", "libanyhow\tdevice\t");
    assert!(error.contains("libanyhow has no detail or no source"), "{error}");
    let error = replaced(FACTS, "type\tlicense\tother\tAVF", "type\tlicense\tother");
    assert!(error.contains("3 cells instead of 4"), "{error}");
    let error = replaced(FACTS, "# a comment", "module\tlibold\tdevice\tAVF");
    assert!(error.contains("nothing uses module libold"), "{error}");
    let error = replaced(FACTS, "# a comment", "module\tlibanyhow\tdevice\tAVF");
    assert!(error.contains("module libanyhow is there twice"), "{error}");
    let error = replaced(FACTS, "# a comment", "modul\tx\tdevice\tAVF");
    assert!(error.contains("kind modul is none of"), "{error}");
    let error = replaced("docs/aosp/crates.md", "`libgz_mem`", "libgz");
    assert!(error.contains("does not say how to change `libgz_mem`"), "{error}");
    assert!(errors(|sources, _| drop(sources.remove(1))).contains("facts.tsv is missing"));
}

#[test]
fn a_crate_without_android_bp_is_named() {
    let error = errors(|_, packages| {
        packages.push(package("gzvmctl", "avf-backend/gzvmctl", Vec::new()));
    });
    assert!(error.contains("package gzvmctl: no avf-backend/gzvmctl/Android.bp"), "{error}");
    let error = replaced(FACTS, "cargo-only\tharness", "cargo-only\tgzvm-a");
    assert!(error.contains("gzvm-a is not cargo-only, Soong builds it"), "{error}");
    assert!(error.contains("package harness: no tests/harness/Android.bp"), "{error}");
    let error = replaced(FACTS, "# a comment", "cargo-only\tgone\tx\tthis tree");
    assert!(error.contains("there is no package gone"), "{error}");
}

#[test]
fn test_programs_without_a_module_are_named() {
    let with = |facts: &str| {
        errors(|sources, packages| {
            let module = "rust_binary { name: \"gzvm_t\", defaults: [\"gzvm_defaults\"], srcs: [\"a/t.rs\"] }\n";
            sources[0].text += module;
            sources[1].text += facts;
            sources.push(source("a/t.rs", ""));
            packages[0].targets.push(target("t", "test", "a/t.rs"));
            packages[0].targets.push(target("u", "test", "a/u.rs"));
        })
    };
    assert!(with("").contains("a/Android.bp: no module for a/u.rs; add a rust_test"));
    assert_eq!(with("cargo-only\tgzvm-a:u\tit needs a button pressed\tthis tree\n"), "");
    let error = with("cargo-only\tgzvm-a:u\tx\tthis tree\ncargo-only\tgzvm-a:t\tx\tthis tree\n");
    assert!(error.contains("no test program is left out as gzvm-a:t"), "{error}");
}

#[test]
fn crate_name_and_edition() {
    let error = replaced("Android.bp", "crate_name: \"gzvm_a\"", "crate_name: \"gzvm_b\"");
    assert!(error.contains("crate_name is gzvm_b, Cargo's is gzvm_a"), "{error}");
    let error = replaced("Android.bp", "edition: \"2021\"", "edition: \"2018\"");
    assert!(error.contains("edition is 2018, Cargo's is 2021"), "{error}");
    let error = replaced("Android.bp", "\"libgzvm_a\"", "\"libgzvm_b\"");
    assert!(error.contains("a name that starts with libgzvm_a"), "{error}");
    let error = replaced("Android.bp", "a/main.rs", "a/other.rs");
    assert!(error.contains("gzvm_prog: Cargo builds nothing from its srcs[0]"), "{error}");
}

#[test]
fn dependencies() {
    let error = replaced("Android.bp", "\"libanyhow\", ", "");
    assert!(error.contains("libgzvm_a: does not link libanyhow"), "{error}");
    let error = errors(|_, packages| drop(packages[0].dependencies.remove(0)));
    assert!(error.contains("links libanyhow, which Cargo.toml does not list"), "{error}");
    let own = errors(|_, packages| {
        let harness = Dependency { name: "harness".into(), version: String::new(), dev: false };
        packages[0].dependencies.push(harness);
    });
    assert_eq!(own, "", "what only Cargo builds is only Cargo's to link");
    let error = replaced("Android.bp", "rustlibs: [\"libgzvm_a\"]", "");
    assert!(error.contains("gzvm_prog: does not link libgzvm_a"), "{error}");
}

#[test]
fn versions_are_aosp_s() {
    let error = replaced(FACTS, "libanyhow 1.0.99", "libanyhow 1.0.100");
    assert!(error.contains("anyhow is =1.0.99, but AOSP has 1.0.100"), "{error}");
    let error = replaced(FACTS, "crate\tanyhow\tlibanyhow 1.0.99\tAOSP", "# gone");
    assert!(error.contains("has no crate anyhow, which gzvm-a links"), "{error}");
}

#[test]
fn code_that_asks_for_soong_is_answered() {
    let error = replaced("Android.bp", ", cfgs: [\"soong\"]", "");
    assert!(error.contains("libgzvm_a: the code asks for cfg(soong)"), "{error}");
}

#[test]
fn interfaces() {
    let interface = "\naidl_interface { name: \"com.android.gzvm\", srcs: [\"a/IOne.aidl\"] }\n";
    let facts = "type\taidl_interface\tother\tAVF\nproperty\taidl_interface.name\tstr\tAVF\n\
        property\taidl_interface.srcs\tlist\tAVF\n";
    let with = |files: &[&str]| {
        errors(|sources, packages| {
            sources[0].text += interface;
            sources[1].text += facts;
            sources.extend(files.iter().map(|file| source(file, "")));
            packages.push(package("com_android_gzvm", "", Vec::new()));
        })
    };
    assert_eq!(with(&["a/IOne.aidl"]), "");
    let error = with(&["a/IOne.aidl", "a/ITwo.aidl"]);
    assert!(error.contains("com.android.gzvm does not list a/ITwo.aidl"), "{error}");
    assert!(with(&[]).contains("srcs names a/IOne.aidl, which does not exist"));
}

#[test]
fn modules_named_elsewhere() {
    let with = |path: &str, text: &str| errors(|sources, _| sources.push(source(path, text)));
    assert_eq!(with("docs/gzvm.mk", "PRODUCT_PACKAGES += \\\n    gzvm_prog \\\n    other\n"), "");
    assert!(with("docs/gzvm.mk", "X += \\\n    gzvm_no\n").contains("there is no module gzvm_no"));
    let mapping = |name: &str| format!("{{ \"presubmit\": [{{ \"name\": \"{name}\" }}] }}");
    assert_eq!(with("TEST_MAPPING", &mapping("gzvm_prog")), "");
    assert!(with("TEST_MAPPING", &mapping("libgzvm_no")).contains("no module libgzvm_no"));
    let push = "<option name=\"push\" value=\"vts_gzvm_no->/data/x\" />";
    assert!(with("tests/AndroidTest.xml", push).contains("no module vts_gzvm_no"));
}

#[test]
fn configurations_of_tests() {
    let module =
        "rust_test { name: \"gzvm_t\", defaults: [\"gzvm_defaults\"], srcs: [\"a/t.rs\"], \
        test_suites: [\"vts\"], data: [\":gzvm_guest\"], test_config: \"T.xml\" }\n\
        prebuilt_etc { name: \"gzvm_guest\", src: \"LICENSE\", filename: \"guest.bin\" }\n";
    let facts = "type\trust_test\trust\tAVF\ntype\tprebuilt_etc\tother\tAVF\n\
        property\trust_test.name\tstr\tAVF\nproperty\trust_test.defaults\tlist\tAVF\n\
        property\trust_test.srcs\tlist\tAVF\nproperty\trust_test.test_suites\tlist\tAVF\n\
        property\trust_test.data\tlist\tAVF\nproperty\trust_test.test_config\tstr\tAVF\n\
        property\tprebuilt_etc.name\tstr\tAVF\nproperty\tprebuilt_etc.src\tstr\tAVF\n\
        property\tprebuilt_etc.filename\tstr\tAVF\n";
    let good = "<option name=\"module-name\" value=\"gzvm_t\" />\n\
        <option name=\"test-suite-tag\" value=\"vts\" />\n\
        <option name=\"push\" value=\"gzvm_t->/x/gzvm_t\" />\n\
        <option name=\"push\" value=\"guest.bin->/x/guest.bin\" />\n";
    let with = |from: &str, to: &str| {
        assert!(good.contains(from));
        errors(|sources, packages| {
            sources[0].text += module;
            sources[1].text += facts;
            sources.push(source("a/t.rs", "const GUEST: &str = \"/x/guest.bin\";"));
            sources.push(source("T.xml", &good.replace(from, to)));
            packages[0].targets.push(target("t", "test", "a/t.rs"));
        })
    };
    assert_eq!(with("", ""), "");
    assert!(with("\"gzvm_t\"", "\"gzvm_u\"").contains("T.xml: module-name is not gzvm_t"));
    assert!(with("\"vts\"", "\"cts\"").contains("in one of test_suites and test-suite-tag"));
    assert!(with("->/x/guest", "->/y/guest").contains("to /y/guest.bin, where nobody looks"));
    let error = with("guest.bin->", "host.bin->");
    assert!(error.contains("pushes host.bin, which gzvm_t does not bring along"), "{error}");
    assert!(error.contains("does not push guest.bin"), "{error}");
}

#[test]
fn rules_of_kleaf() {
    let with = |attribute: &str, facts: &str| {
        errors(|sources, _| {
            sources.push(source(
                "driver/BUILD.bazel",
                &format!("ddk_module(\n    {attribute} = \"x\",\n)\n"),
            ));
            sources[1].text += facts;
        })
    };
    let facts = "bazel\tddk_module.out\ta file\tKleaf\n";
    assert_eq!(with("out", facts), "");
    let error = with("outs", facts);
    assert!(
        error.contains("driver/BUILD.bazel: tests/soong/facts.tsv has no bazel ddk_module.outs"),
        "{error}"
    );
    assert!(error.contains("nothing uses bazel ddk_module.out"), "{error}");
}

#[test]
fn formatting() {
    let said = unformatted(Ok("a/Android.bp\n".to_owned()));
    assert_eq!(said, ["run bpfmt -w a/Android.bp"]);
    assert_eq!(unformatted(Ok(String::new())), Vec::<String>::new());
    assert_eq!(unformatted(Err(anyhow::anyhow!("syntax"))), ["syntax"]);
}
