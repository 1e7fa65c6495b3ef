// SPDX-License-Identifier: Apache-2.0
//! The policy of `sepolicy/`, enforced: only the VMM's domain opens `/dev/gzvm`, and it opens nothing that
//! others handed to it.
//!
//! The machine's first program loads the policy, so this program has a boot of its own. It is also the
//! programs that run in the domains: a copy of it is labelled as the program it stands for.

mod machine;
mod roles;

use std::process::Command;

use gzvm_device_test::suite::Needs;
use gzvm_device_test::tests;

use machine::{denial, in_domain, label, Machine, DATA};

fn shell_cannot_open_the_device() {
    let machine = Machine::get();
    let said = in_domain(machine.shell(), &["open"]);
    assert_eq!(said, "domain u:r:shell:s0\nopen: Permission denied (os error 13)\n");
    let line = denial("scontext=u:r:shell:s0 tcontext=u:object_r:gzvm_device:s0 tclass=chr_file");
    assert!(line.contains("permissive=0"), "{line}");
    for permission in ["read", "write"] {
        assert!(line.contains(permission), "no {permission} in {line}");
    }
}

fn shell_sees_that_the_device_is_there() {
    assert_eq!(
        in_domain(Machine::get().shell(), &["stat"]),
        "domain u:r:shell:s0\nstat: a device\n"
    );
}

fn manager_cannot_open_the_device() {
    let said = in_domain(Machine::get().manager(), &["open"]);
    let expected = "domain u:r:virtualizationmanager:s0\nopen: Permission denied (os error 13)\n";
    assert_eq!(said, expected);
    denial("scontext=u:r:virtualizationmanager:s0 tcontext=u:object_r:gzvm_device:s0");
}

fn vmm_opens_the_device() {
    assert_eq!(in_domain(Machine::get().vmm(), &["open"]), "domain u:r:crosvm:s0\nopen: a VM\n");
}

/// As on a phone: the shell runs `vm`, which starts the manager, which starts the VMM.
fn shell_starts_manager_starts_vmm() {
    let machine = Machine::get();
    let said =
        in_domain(machine.shell(), &["exec", machine.manager(), "exec", machine.vmm(), "open"]);
    let domains =
        "domain u:r:shell:s0\ndomain u:r:virtualizationmanager:s0\ndomain u:r:crosvm:s0\n";
    assert_eq!(said, format!("{domains}open: a VM\n"));
}

fn shell_cannot_start_the_vmm_itself() {
    let machine = Machine::get();
    let said = in_domain(machine.shell(), &["exec", machine.vmm(), "open"]);
    assert_eq!(said, "domain u:r:shell:s0\nexec: Permission denied (os error 13)\n");
}

fn vmm_without_its_label_cannot_open_the_device() {
    let machine = Machine::get();
    label(machine.vmm(), "u:object_r:system_file:s0");
    let said = in_domain(machine.manager(), &["exec", machine.vmm(), "open"]);
    label(machine.vmm(), "u:object_r:crosvm_exec:s0");
    let manager = "domain u:r:virtualizationmanager:s0\n";
    assert_eq!(said, format!("{manager}{manager}open: Permission denied (os error 13)\n"));
}

fn device_without_its_label_is_nobody_s() {
    let machine = Machine::get();
    label(machine::DEVICE, "u:object_r:device:s0");
    let said = in_domain(machine.vmm(), &["open"]);
    label(machine::DEVICE, "u:object_r:gzvm_device:s0");
    assert_eq!(said, "domain u:r:crosvm:s0\nopen: Permission denied (os error 13)\n");
}

/// What it is given by descriptor it reads, writes and duplicates; it cannot open it again.
fn vmm_cannot_open_what_it_was_handed() {
    let machine = Machine::get();
    let said = in_domain(machine.manager(), &["hand", DATA, machine.vmm(), "reopen"]);
    let expected =
        "domain u:r:virtualizationmanager:s0\ndomain u:r:crosvm:s0\nread: data\nwrite: 4\n\
        duplicate: data\nopen again: Permission denied (os error 13)\n";
    assert_eq!(said, expected);
    let type_ = "tcontext=u:object_r:virtualizationservice_data_file:s0 tclass=file";
    let line = denial(&format!("scontext=u:r:crosvm:s0 {type_}"));
    assert!(line.contains("{ open }"), "{line}");
}

/// The VMM of an app runs at the app's level, which nothing of the system has.
fn vmm_of_an_app_opens_the_device() {
    let machine = Machine::get();
    let context = "u:r:virtualizationmanager:s0:c1";
    let said = in_domain(
        machine.shell(),
        &["as", context, machine.manager(), "exec", machine.vmm(), "open"],
    );
    assert!(said.ends_with("domain u:r:crosvm:s0:c1\nopen: a VM\n"), "{said}");
}

/// The VMM itself, with files handed over as AVF's manager does.
fn a_vm_runs_in_the_vmm_s_domain() {
    let machine = Machine::get();
    let run = |program: &str| {
        let kernel = "/proc/self/fd/9";
        let mut command = Command::new(machine.manager());
        command.args(["hand-as", "9", machine::PAYLOAD, program, "--log-level=info", "run"]);
        command.args([
            "--serial=type=stdout,hardware=serial,num=1",
            "--mem=16",
            "--params=mode=hello",
        ]);
        let output = command.arg(kernel).output().expect("the manager's program starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (status, said) = run(machine.real_vmm());
    assert!(said.contains("payload: 6 checks, 0 failed"), "status {status:?}: {said}");
    assert_eq!(status, Some(0), "{said}");
    label(machine.real_vmm(), "u:object_r:system_file:s0");
    let (status, said) = run(machine.real_vmm());
    label(machine.real_vmm(), "u:object_r:crosvm_exec:s0");
    assert!(said.contains("Permission denied"), "status {status:?}: {said}");
    assert_ne!(status, Some(0), "{said}");
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let Some(role) = arguments.get(1).filter(|role| roles::ROLES.contains(&role.as_str())) {
        std::process::exit(roles::play(role, &arguments[2..]));
    }
    tests![Needs::Policy => [
        shell_cannot_open_the_device,
        shell_sees_that_the_device_is_there,
        manager_cannot_open_the_device,
        vmm_opens_the_device,
        shell_starts_manager_starts_vmm,
        shell_cannot_start_the_vmm_itself,
        vmm_without_its_label_cannot_open_the_device,
        device_without_its_label_is_nobody_s,
        vmm_cannot_open_what_it_was_handed,
        vmm_of_an_app_opens_the_device,
        a_vm_runs_in_the_vmm_s_domain,
    ]]
}
