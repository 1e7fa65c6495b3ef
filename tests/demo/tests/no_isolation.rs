// SPDX-License-Identifier: Apache-2.0
//! The demo against VMs that nothing protects: each of its attacks must work, and its claims of
//! isolation must fail. Without this, its success would prove nothing.

use std::path::Path;
use std::process::Command;

#[test]
fn every_claim_of_isolation_fails_where_there_is_none() {
    let demo = Path::new(env!("CARGO_BIN_EXE_gzvm-demo"));
    // Cargo builds a package's examples with its tests.
    let vm = demo.with_file_name("examples").join("fake_vm");
    let mut command = Command::new(demo);
    command.arg("run").arg("--vm").arg(vm).args(["--guests", "/nonexistent"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let claim = |name: &str| {
        let start = format!("##demo-claim {name} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let line = line.unwrap_or_else(|| panic!("no claim {name} in:\n{text}"));
        line == "ok"
    };
    for name in ["control-found", "control-stores", "control-run"] {
        assert!(claim(name), "{name} in:\n{text}");
    }
    for name in [
        "isolation-user-load",
        "isolation-user-store",
        "isolation-user-dump",
        "isolation-kernel-dump",
        "isolation-kernel-store",
        "isolation-secret-nowhere",
        "isolation-vm-goes-on",
        "protected-linux",
        "protected-payload",
    ] {
        assert!(!claim(name), "{name} in:\n{text}");
    }
    assert!(text.lines().any(|line| line.starts_with("##demo-result failed: ")));
    assert_eq!(output.status.code(), Some(1));
}
