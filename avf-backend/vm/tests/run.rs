// SPDX-License-Identifier: Apache-2.0
//! `vm run` as a process, with scripts in the VMM's place.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::virtmgr;
use tempfile::TempDir;

struct World {
    dir: TempDir,
}

impl World {
    /// A VMM that runs `script`; its arguments are in `$dir/args`, the number of its failure port
    /// in `$failure`.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let vmm = dir.path().join("gzvm_vmm");
        let common = r#"for a in "$@"; do case $a in *num=2) case $a in *=serial,*)
            failure=${a#*path=}; failure=${failure%%,*};; esac;; esac; done"#;
        let path = dir.path().display();
        fs::write(&vmm, format!("#!/bin/sh\necho \"$@\" > {path}/args\n{common}\n{script}\n"))
            .unwrap();
        fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("Image"), "kernel").unwrap();
        fs::write(dir.path().join("props"), "hypervisor.pvmfw.path=none\n").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, text: &str) -> PathBuf {
        let path = self.path("vm.json");
        fs::write(&path, text.replace("DIR", &self.dir.path().display().to_string())).unwrap();
        path
    }

    fn plain(&self) -> PathBuf {
        self.config(r#"{"kernel": "DIR/Image", "platform_version": "~1.0"}"#)
    }

    fn vm(&self, config: &Path, args: &[&str]) -> Output {
        self.command(config, args).output().unwrap()
    }

    fn command(&self, config: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vm"));
        command
            .arg("run")
            .arg(config)
            .args(args)
            .env("GZVM_VIRTMGR", virtmgr())
            .env("TMPDIR", self.dir.path())
            .env("GZVM_VMM", self.path("gzvm_vmm"))
            .env("GZVM_PROPS", self.path("props"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_vm_that_powers_off() {
    let world = World::new("for a; do case $a in */fd/*) k=$a;; esac; done; exit 0");
    let config = world.plain();
    let output = world.vm(&config, &[]);
    let text = out(&output);
    let mut lines = text.lines();
    let created = lines.next().unwrap();
    assert!(created.starts_with(&format!("Created VM from {config:?} with CID ")), "{created}");
    // It may have ended by then.
    let states = [", state is STARTING.", ", state is DEAD."];
    assert!(states.iter().any(|state| created.ends_with(state)), "{created}");
    assert_eq!(lines.next(), Some("VM ended: Shutdown"));
    assert!(output.status.success() && err(&output).is_empty(), "{}", err(&output));
}

#[test]
fn the_vmm_can_read_what_it_is_given() {
    let world =
        World::new(r#"while [ $# -gt 1 ]; do [ "$2" = --no-pmu ] && cat "$1"; shift; done"#);
    assert!(out(&world.vm(&world.plain(), &[])).contains("kernel"));
}

#[test]
fn console_goes_to_a_file() {
    let world = World::new(
        r#"for a; do case $a in *=serial,num=1) p=${a#*path=}; p=${p%%,*}; echo hi > "$p";; esac; done"#,
    );
    let console = world.path("console");
    world.vm(&world.plain(), &["--console", console.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(console).unwrap(), "hi\n");
}

#[test]
fn a_failed_start_is_an_error_with_the_vmms_words() {
    let world = World::new("echo noise >&2; echo 'gzvm_vmm: error: no such thing' >&2; exit 1");
    let output = world.vm(&world.plain(), &[]);
    assert!(out(&output).ends_with("VM ended: StartFailed\n"));
    assert_eq!(err(&output), "noise\nError: no such thing\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn other_ends_are_no_error() {
    for (script, name) in [("exit 32", "Reboot"), ("exit 33", "Crash"), ("kill -9 $$", "Killed")] {
        let world = World::new(&format!("echo 'gzvm_vmm: error: why' >&2; {script}"));
        let output = world.vm(&world.plain(), &[]);
        assert!(out(&output).ends_with(&format!("VM ended: {name}\n")), "{}", out(&output));
        assert_eq!(err(&output), "VMM: why\n");
        assert!(output.status.success());
    }
}

/// The numbers are in docs/vm.md.
#[test]
fn an_end_is_an_exit_status_for_who_asks() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 32", 32),
        ("exit 33", 33),
        ("exit 35", 34),
        ("exit 36", 36),
        ("kill -9 $$", 38),
        ("printf 'HANGUP|x' > $failure; exit 32", 37),
    ] {
        let world = World::new(script);
        let output = world.vm(&world.plain(), &["--exit-status"]);
        assert_eq!(output.status.code(), Some(status), "{script}: {}", out(&output));
    }
}

#[test]
fn the_guests_own_words_decide() {
    let world = World::new("printf 'HANGUP|too slow' > $failure; exit 32");
    assert!(out(&world.vm(&world.plain(), &[])).ends_with("VM ended: Hangup\n"));
}

#[test]
fn protection_by_flag_and_by_key() {
    let world = World::new("exit 0");
    let args = || fs::read_to_string(world.path("args")).unwrap();
    world.vm(&world.plain(), &[]);
    assert!(!args().contains("--protected"));
    world.vm(&world.plain(), &["--protected", "--mem", "100"]);
    assert!(args().contains("--protected-vm-without-firmware --swiotlb 8"), "{}", args());
    assert!(args().contains("--mem 108"));
    let key = r#"{"kernel": "DIR/Image", "platform_version": "1", "protected": true}"#;
    fs::write(world.path("props"), "").unwrap();
    world.vm(&world.config(key), &[]);
    assert!(args().contains("--protected-vm --swiotlb"), "{}", args());
}

#[test]
fn bad_input_is_one_line_that_names_it() {
    let world = World::new("exit 0");
    for (text, words) in [
        (r#"{"kernel": "DIR/Image"}"#, &["vm.json", "platform_version"][..]),
        (r#"{"kernel": "DIR/nope", "platform_version": "~1.0"}"#, &["\"kernel\"", "nope"]),
        (
            r#"{"kernel": "DIR/Image", "initrd": "DIR/ramdisk", "platform_version": "~1.0"}"#,
            &["\"initrd\"", "ramdisk"],
        ),
        ("{", &["vm.json", "EOF"]),
        (r#"{"kernel": "DIR", "platform_version": "~1.0"}"#, &["\"kernel\"", "is a directory"]),
        (
            r#"{"kernel": "DIR/Image", "memory_mib": 4000000000, "platform_version": "~1.0"}"#,
            &["4000000000 MiB are more than"],
        ),
    ] {
        let output = world.vm(&world.config(text), &[]);
        let error = err(&output);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    }
    let output = world.vm(Path::new("/nonexistent.json"), &[]);
    assert!(err(&output).contains("/nonexistent.json"));
    assert_eq!(world.vm(&world.plain(), &["--frobnicate"]).status.code(), Some(2));
    assert_eq!(world.vm(&world.plain(), &["--gdb", "1"]).status.code(), Some(1));
}

#[test]
fn unknown_keys_are_named_and_ignored() {
    let world = World::new("exit 0");
    let text = r#"{"kernel": "DIR/Image", "platform_version": "~1.0", "colour": "red"}"#;
    let output = world.vm(&world.config(text), &[]);
    assert!(err(&output).contains("\"colour\""), "{}", err(&output));
    assert!(output.status.success());
}

#[test]
fn a_missing_vmm_is_named() {
    let world = World::new("");
    fs::remove_file(world.path("gzvm_vmm")).unwrap();
    let output = world.vm(&world.plain(), &[]);
    assert!(err(&output).contains("gzvm_vmm"), "{}", err(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_service_that_dies_is_said() {
    let world = World::new("echo $$ > ${0%/*}/pid; echo $PPID > ${0%/*}/virtmgr; exec sleep 1000");
    let mut tool = world.command(&world.plain(), &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tool.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("Created VM"));
    let virtmgr = (0..1000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::read_to_string(world.path("virtmgr")).ok()?.trim().parse().ok()
    });
    kill(Pid::from_raw(virtmgr.unwrap()), Signal::SIGKILL).unwrap();
    let ended = lines.next().unwrap().unwrap();
    assert_eq!(ended, "VM ended: VirtualizationServiceDied");
    assert!(tool.wait().unwrap().success());
    // A VMM notices that by itself; this one is a script.
    let vmm = fs::read_to_string(world.path("pid")).unwrap();
    kill(Pid::from_raw(vmm.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

/// Control-C at the terminal: all processes have it, and nothing stays behind.
#[test]
fn an_interrupt_ends_it_all() {
    let world = World::new("echo $$ > ${0%/*}/pid; echo $PPID > ${0%/*}/virtmgr; exec sleep 1000");
    let mut command = world.command(&world.plain(), &[]);
    let mut tool = command.process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let done = (0..3000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            done()
        });
        assert!(done, "{what} does not come");
    };
    let pid = |name: &str| {
        let text = fs::read_to_string(world.path(name)).ok()?;
        Some(Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?))
    };
    until("the VM", &|| pid("pid").is_some() && pid("virtmgr").is_some());
    let directories = || {
        let names = fs::read_dir(world.dir.path()).unwrap().flatten();
        names.filter(|e| e.file_name().to_string_lossy().starts_with("gzvm-virtmgr-")).count()
    };
    assert_eq!(directories(), 1);
    killpg(Pid::from_raw(tool.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(tool.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
    let ended = |name| {
        // Whoever has inherited it may let it lie.
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid(name).unwrap()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    };
    for name in ["pid", "virtmgr"] {
        until(name, &|| ended(name));
    }
    assert_eq!(directories(), 0);
}

#[test]
fn nobody_need_read_what_is_printed() {
    let world = World::new("echo noise >&2; exit 0");
    let closed = || {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let config = world.plain();
    let run = world.command(&config, &["--exit-status"]).stdout(closed()).output().unwrap();
    assert_eq!((run.status.code(), err(&run)), (Some(0), "noise\n".into()));
    let run = world.command(&config, &[]).stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(run.code(), Some(0));
    let mut list = Command::new(env!("CARGO_BIN_EXE_vm"));
    list.arg("list").env("GZVM_VIRTMGR", virtmgr()).env("TMPDIR", world.dir.path());
    let list = list.env("GZVM_PROPS", world.path("props")).stdout(closed()).output().unwrap();
    assert_eq!((list.status.code(), err(&list)), (Some(0), String::new()));
}

#[test]
fn what_the_service_refuses_is_an_error() {
    let world = World::new("exit 0");
    let output = world.vm(&world.plain(), &["--gdb", "1"]);
    assert_eq!((out(&output).as_str(), output.status.code()), ("", Some(1)));
    assert!(err(&output).starts_with("Error: gdbPort: "), "{}", err(&output));
}

#[test]
fn a_console_at_a_terminal_of_its_own_is_shown_here_too() {
    let world = World::new(
        r#"for a; do case $a in *=serial,num=1) p=${a#*path=}; p=${p%%,*}; echo hi > "$p";; esac; done"#,
    );
    let output = world.vm(&world.plain(), &["--pty"]);
    assert!(out(&output).contains("Console: /dev/pts/"), "{}", out(&output));
}

#[test]
fn listings_have_avfs_words() {
    let world = World::new("exit 0");
    let ask = |subcommand| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vm"));
        command.arg(subcommand).env("GZVM_VIRTMGR", virtmgr()).env("TMPDIR", world.dir.path());
        command.env("GZVM_PROPS", world.path("props")).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert_eq!(out(&ask("list")), "Running VMs: []\n");
    fs::write(world.path("props"), "ro.boot.hypervisor.version=GenieZone\n").unwrap();
    let info = out(&ask("info"));
    for line in [
        "Both protected and non-protected VMs are supported.",
        "Hypervisor version: GenieZone",
        "Assignable devices: []",
        "Debug policy: DebugPolicy { log: false, ramdump: false, adb: false }",
    ] {
        assert!(info.lines().any(|found| found == line), "no \"{line}\": {info}");
    }
    let console = ask("console");
    assert!(err(&console).contains("must be a terminal") && console.status.code() == Some(1));
}
