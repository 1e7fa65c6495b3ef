// SPDX-License-Identifier: Apache-2.0
//! What `vm` prints where nothing needs a hypervisor, as a process.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::process::{Command, Output};

fn vm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vm")).args(args).env_remove("RUST_LOG").output().unwrap()
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
