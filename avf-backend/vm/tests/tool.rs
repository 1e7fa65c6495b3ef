// SPDX-License-Identifier: Apache-2.0
//! What `vm` prints where nothing needs a hypervisor, as a process.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::fs;
use std::process::{Command, Output};
use support::virtmgr;

fn vm(args: &[&str]) -> Output {
    let mut vm = Command::new(env!("CARGO_BIN_EXE_vm"));
    vm.args(args).env("GZVM_VIRTMGR", virtmgr()).env_remove("RUST_LOG").output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Status 1, nothing on standard output, one line on standard error.
fn error(args: &[&str]) -> String {
    let output = vm(args);
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""), "{args:?}: {error}");
    assert!(error.starts_with("Error: ") && error.lines().count() == 1, "{error}");
    error
}

#[test]
fn features_are_disabled_in_avfs_words() {
    let output = vm(&["check-feature-enabled", "com.android.kvm.NETWORK"]);
    assert_eq!(out(&output), "Feature com.android.kvm.NETWORK is disabled\n");
    assert!(output.status.success());
    assert_eq!(vm(&["check-feature-enabled"]).status.code(), Some(2));
}

#[test]
fn what_is_unsupported_says_what_to_do_instead() {
    for args in [&["run-app", "a.apk", "a.idsig", "i", "-p"][..], &["run-microdroid", "--gki", "x"]]
    {
        let error = error(args);
        assert!(error.contains(&format!("unsupported: {}: ", args[0])), "{error}");
        assert!(error.contains("`vm run`"), "{error}");
    }
}

#[test]
fn idsig_files_are_for_apks() {
    let dir = tempfile::tempdir().unwrap();
    let idsig = dir.path().join("x.idsig");
    let not_an_apk = env!("CARGO_BIN_EXE_vm");
    let error = error(&["create-idsig", not_an_apk, idsig.to_str().unwrap()]);
    assert!(error.contains(not_an_apk) && error.contains("not an APK"), "{error}");
    assert!(!idsig.exists());
}

#[test]
fn partitions_are_what_avf_makes() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, start) in [
        ("raw", &b""[..]),
        ("instance", b"Android-VM-instance\x01\0"),
        ("encryptedstore", b"UNFORMATTED-STORAGE"),
    ] {
        let path = dir.path().join(kind);
        let output = vm(&["create-partition", "-t", kind, path.to_str().unwrap(), "8192"]);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 8192);
        assert_eq!(&bytes[..start.len()], start);
        assert!(bytes[start.len()..].iter().all(|byte| *byte == 0));
    }
    // The file that exists stays as it is.
    let raw = dir.path().join("raw");
    fs::write(&raw, "mine").unwrap();
    assert!(error(&["create-partition", raw.to_str().unwrap(), "4096"]).contains("cannot create"));
    assert_eq!(fs::read(&raw).unwrap(), b"mine");
    // Sizes are rounded up to pages, as AVF rounds them.
    let small = dir.path().join("small");
    let output = vm(&["create-partition", "-t", "instance", small.to_str().unwrap(), "4"]);
    assert!(output.status.success() && fs::metadata(&small).unwrap().len() == 4096);
    // One that cannot be made is not left.
    let none = dir.path().join("none");
    let error = error(&["create-partition", "-t", "instance", none.to_str().unwrap(), "0"]);
    assert!(error.contains("none: sizeBytes"), "{error}");
    assert!(!none.exists());
}

#[test]
fn a_machine_without_geniezone_fails_the_check() {
    if std::path::Path::new("/dev/gzvm").exists() {
        return;
    }
    let output = vm(&["check"]);
    assert_eq!(output.status.code(), Some(3));
    let text = out(&output);
    assert!(text.contains("\ndevice                 no: /dev/gzvm\n"), "{text}");
    assert!(text.ends_with("\nVMs                    no\nprotected VMs          no\n"), "{text}");
    assert!(!text.contains('\x1b'), "colour although nobody looks: {text:?}");
    let json: serde_json::Value = serde_json::from_str(&out(&vm(&["check", "--json"]))).unwrap();
    assert_eq!(json["vms"], "no");
}

#[test]
fn what_is_not_there_is_named() {
    assert!(error(&["stop", "no-such-vm"]).contains("no-such-vm"));
    if !std::path::Path::new("/sys/kernel/debug/gzvm").exists() {
        assert!(error(&["stats"]).contains("/sys/kernel/debug/gzvm: "));
    }
}

#[test]
fn wrong_command_lines_are_status_2() {
    for args in
        [&[][..], &["frobnicate"], &["stop"], &["check", "--mem", "0"], &["stats", "-w", "0"]]
    {
        assert_eq!(vm(args).status.code(), Some(2), "{args:?}");
    }
}
