// SPDX-License-Identifier: Apache-2.0
//! The device tree binding against the meta-schemas, and its example against the binding.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, Context, Result};

use crate::process;
use crate::project::Project;

/// Where bindings are, in the kernel.
const BINDINGS: &str = "Documentation/devicetree/bindings";
/// The binding, there.
const BINDING: &str = "firmware/mediatek,geniezone.yaml";

/// Checks the binding in `laid`, a directory with our files in the places that they have in the kernel `tree`.
///
/// # Errors
///
/// When the binding or its example is wrong.
pub fn check(project: &Project, tree: &Path, laid: &Path) -> Result<()> {
    if !process::in_path("dt-doc-validate") || !process::in_path("dtc") {
        eprintln!(
            "patches     the binding is not checked: dt-schema or device-tree-compiler is missing"
        );
        return Ok(());
    }
    let binding = laid.join(BINDINGS).join(BINDING);
    let out = project.out().join("patches/binding");
    fs::create_dir_all(&out)?;
    silent(
        "dt-doc-validate",
        Command::new("dt-doc-validate").arg("-u").arg(laid.join(BINDINGS)).arg(&binding),
    )?;
    let dtb = example(&binding, &out)?;
    let schema = out.join("schema.json");
    let mut make = Command::new("dt-mk-schema");
    // Without the schema of all vendors' names this version of the tool has too few properties to know types.
    make.arg("-j").arg("-o").arg(&schema).arg(&binding);
    process::output(make.arg(tree.join(BINDINGS).join("vendor-prefixes.yaml")))?;
    silent("dt-validate", Command::new("dt-validate").arg("-s").arg(&schema).arg(&dtb))?;
    // The same, with a property that the binding does not have.
    let text = fs::read_to_string(out.join("example.dts"))?;
    let wrong = text.replace("hypervisor {", "hypervisor {\n memory = <1>;");
    let bad = compile(&wrong, &out, "wrong")?;
    let said = silent("dt-validate", Command::new("dt-validate").arg("-s").arg(&schema).arg(&bad));
    if said.is_ok() {
        bail!("dt-validate finds nothing wrong with a property that the binding does not have");
    }
    eprintln!("patches     the binding and its example are valid");
    Ok(())
}

fn example(binding: &Path, out: &Path) -> Result<PathBuf> {
    let text = process::output(Command::new("dt-extract-example").arg(binding))?;
    fs::write(out.join("example.dts"), &text)?;
    compile(&text, out, "example")
}

fn compile(dts: &str, out: &Path, name: &str) -> Result<PathBuf> {
    let (source, dtb) = (out.join(format!("{name}.dts")), out.join(format!("{name}.dtb")));
    fs::write(&source, dts)?;
    let mut dtc = Command::new("dtc");
    process::output(dtc.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(&dtb).arg(&source))
        .context("the binding's example")?;
    Ok(dtb)
}

/// Runs a checker that must find nothing: these exit with 0 whatever they find.
fn silent(name: &str, command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !output.status.success() || !said.trim().is_empty() {
        bail!("{name}: {}", said.trim());
    }
    Ok(())
}
