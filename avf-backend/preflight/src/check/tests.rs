// SPDX-License-Identifier: Apache-2.0
//! Machines as they are met, and what is said about them.

use super::*;
use crate::memory::HostMemory;
use crate::presence::Tree;
use crate::MIB;
use gzvm::abi::ext;
use gzvm::Error;

const NEEDED: u64 = 256 * MIB;

/// A root shell on a machine that has everything.
fn good() -> Facts {
    Facts {
        machine: "aarch64".into(),
        page_size: 4096,
        module: true,
        tree: Tree::Node { path: "/hypervisor".into(), compatible: "mediatek,geniezone" },
        kvm: false,
        version: Reading::Value("16.0.0".into()),
        driver_error: Reading::Value(None),
        device: Reading::Value(Node { mode: 0o600, uid: 0, gid: 0 }),
        asked: Ok(Asked {
            limits: Some(16 | 256 << 16 | 40 << 32 | 1 << 40),
            address_bits: Some(40),
            protected: Some(1),
            extensions: Some(ext::LIMITS | ext::UNMAP),
            vm: Ok(()),
            firmware: Ok(0x8000),
        }),
        memory: HostMemory { available: Some(1000 * MIB), memlock: None },
        free_blocks: Reading::Value(900 * MIB),
        huge_pages: Reading::Value(true),
        vsock: Reading::Value(()),
        binder: Reading::Value("dev/binderfs/binder"),
        selinux: Reading::Absent,
        context: Reading::Absent,
        properties: None,
    }
}

fn text(facts: &Facts) -> String {
    Report::new(facts, NEEDED).text(&|word, _| word.into())
}

fn line(facts: &Facts, name: &str) -> Line {
    let lines = Report::new(facts, NEEDED).lines;
    lines.into_iter().find(|line| line.name == name).unwrap()
}

/// The verdicts on VMs and protected VMs.
fn verdicts(facts: &Facts) -> [&'static str; 2] {
    let report = Report::new(facts, NEEDED);
    [report.vms.word(), report.protected_vms.word()]
}

#[test]
fn a_machine_that_has_everything() {
    let expected = "\
architecture           yes: aarch64
page-size              yes: 4096 bytes
device-tree            yes: /hypervisor is mediatek,geniezone
driver                 yes: module gzvm is loaded
hypervisor             yes: it answers the driver
abi-version            yes: version 16.0.0
device                 yes: /dev/gzvm
access                 yes: mode 0600, owner 0:0
vm-creation            yes: one was made and removed
protection             yes
firmware               yes: 32768 bytes
vcpu-limit             yes: 16
interrupt-limit        yes: 256
address-bits           yes: 40
extensions             yes: UNMAP LIMITS
memory                 yes: 1000 MiB available
memory-lock            yes: no limit
contiguous-memory      yes: 900 MiB free in blocks of 2 MiB
huge-pages             yes: for guest memory
vsock                  yes: /dev/vhost-vsock
binder                 yes: /dev/binderfs/binder
selinux                no
VMs                    yes
protected VMs          yes
";
    assert_eq!(text(&good()), expected);
}

/// What a shell on a phone may see: that the device is there.
#[test]
fn a_user_who_may_not_open_the_device() {
    let mut facts = good();
    facts.asked = Err(Error::new("open", libc::EACCES));
    facts.version = Reading::Unknown("no permission".into());
    facts.tree = Tree::Unknown("no permission".into());
    facts.free_blocks = Reading::Unknown("no permission".into());
    facts.selinux = Reading::Value(true);
    facts.context = Reading::Value("u:r:shell:s0".into());
    facts.properties = Some([Some(true), None]);
    let text = text(&facts);
    let expected = "\
device-tree            unknown (no permission)
                         look as root
driver                 yes: module gzvm is loaded
hypervisor             yes: it answers the driver
abi-version            unknown (no permission)
device                 yes: /dev/gzvm
access                 no: mode 0600, owner 0:0
                         run as a user who may open /dev/gzvm (on Android only the VMM's domain may)
vm-creation            unknown (no permission)
protection             unknown (no permission)
firmware               unknown (no permission)
vcpu-limit             unknown (no permission)
";
    assert!(text.contains(expected), "{text}");
    let expected = "\
selinux                yes: enforcing, this is u:r:shell:s0
android-vms            yes: ro.boot.hypervisor.vm.supported
android-protected-vms  unknown (not set): ro.boot.hypervisor.protected_vm.supported
                         the bootloader sets it (bootconfig); Android's services refuse VMs without it
VMs                    unknown (no permission)
protected VMs          unknown (no permission)
";
    assert!(text.ends_with(expected), "{text}");
    assert_eq!(Report::new(&facts, NEEDED).vms.status(), STATUS_UNKNOWN);
}

/// Without the device, nothing can be asked.
fn without_device() -> Facts {
    Facts {
        device: Reading::Absent,
        asked: Err(Error::new("open", libc::ENOENT)),
        version: Reading::Absent,
        ..good()
    }
}

#[test]
fn a_module_that_is_not_loaded() {
    let facts = Facts { module: false, ..without_device() };
    assert_eq!(verdicts(&facts), ["no", "no"]);
    let driver = line(&facts, "driver");
    assert_eq!(driver.answer, Answer::No);
    assert!(driver.remedy.unwrap().contains("modprobe"));
    assert!(matches!(line(&facts, "hypervisor").answer, Answer::Unknown(_)));
    assert_eq!(line(&facts, "vm-creation").answer, Answer::No);
    assert!(matches!(line(&facts, "protection").answer, Answer::Unknown(_)));
}

#[test]
fn a_hypervisor_that_did_not_answer() {
    let error = Some("no GenieZone: the hypervisor call PROBE was answered with -1".into());
    let facts = Facts { driver_error: Reading::Value(error), ..without_device() };
    let hypervisor = line(&facts, "hypervisor");
    assert_eq!(hypervisor.answer, Answer::No);
    assert!(hypervisor.detail.contains("answered with -1"), "{hypervisor:?}");
    // Nobody may say what cannot be seen.
    let driver_error = Reading::Unknown("no permission".into());
    let facts = Facts { driver_error, ..without_device() };
    assert!(matches!(line(&facts, "hypervisor").answer, Answer::Unknown(_)));
    let facts = Facts { kvm: true, ..without_device() };
    assert!(line(&facts, "hypervisor").detail.contains("/dev/kvm"));
    let facts = Facts { machine: "x86_64".into(), ..facts };
    assert!(matches!(line(&facts, "hypervisor").answer, Answer::Unknown(_)), "not of Arm");
}

#[test]
fn firmware_that_keeps_quiet_about_the_hypervisor() {
    let traces = vec!["mblock-3-gz".into()];
    let facts = Facts { tree: Tree::None { traces }, ..without_device() };
    let tree = line(&facts, "device-tree");
    assert!(tree.detail.contains("mblock-3-gz") && tree.remedy.unwrap().contains("compatible ="));
    let Answer::Unknown(why) = line(&facts, "hypervisor").answer else { panic!("it is known") };
    assert!(why.contains("did not ask"), "{why}");
}

#[test]
fn a_hypervisor_with_protected_vms_out_of_order() {
    let mut facts = good();
    let Ok(asked) = &mut facts.asked else { panic!("not asked") };
    asked.protected = Some(0);
    asked.firmware = Err(Error::new("GZVM_ENABLE_CAP", libc::EINVAL));
    assert_eq!(verdicts(&facts), ["yes", "no"]);
    assert_eq!(line(&facts, "firmware").answer, Answer::No);
}

#[test]
fn a_hypervisor_that_is_full() {
    let mut facts = good();
    let Ok(asked) = &mut facts.asked else { panic!("not asked") };
    asked.vm = Err(Error::new("GZVM_CREATE_VM", libc::ENOMEM));
    assert_eq!(verdicts(&facts), ["no", "no"]);
    assert!(line(&facts, "vm-creation").remedy.unwrap().contains("end one"));
}

/// A phone's hypervisor has no extensions, so the limits are what v13 had.
#[test]
fn a_hypervisor_without_extensions() {
    let mut facts = good();
    let Ok(asked) = &mut facts.asked else { panic!("not asked") };
    (asked.extensions, asked.limits) = (Some(0), None);
    assert_eq!(verdicts(&facts), ["yes", "yes"]);
    let limit = line(&facts, "vcpu-limit");
    assert!(matches!(limit.answer, Answer::Unknown(_)) && limit.detail == "assumed: 8");
    assert_eq!(line(&facts, "interrupt-limit").detail, "assumed: 32");
    assert_eq!(line(&facts, "extensions").answer, Answer::No);
}

#[test]
fn an_unexpected_version_is_no_reason_against_vms() {
    let facts = Facts { version: Reading::Value("17.1.0".into()), ..good() };
    assert_eq!(line(&facts, "abi-version").answer, Answer::No);
    assert_eq!(verdicts(&facts), ["yes", "yes"]);
}

#[test]
fn too_little_memory() {
    let memory = HostMemory { available: Some(200 * MIB), memlock: Some(64 * MIB) };
    let facts = Facts { memory, ..good() };
    assert_eq!(verdicts(&facts), ["no", "no"]);
    assert!(line(&facts, "memory").remedy.unwrap().contains("200 MiB are available"));
    let lock = line(&facts, "memory-lock");
    assert!(lock.remedy.unwrap().contains("ulimit") && lock.detail == "64 MiB may be locked");
    let unknown = Facts { memory: HostMemory::default(), ..good() };
    assert_eq!(verdicts(&unknown), ["yes", "yes"], "what is not known is no reason to refuse");
}

#[test]
fn for_programs() {
    let facts = Facts { vsock: Reading::Unknown("no permission".into()), ..good() };
    let json = Report::new(&facts, NEEDED).json();
    assert_eq!((json["vms"].as_str(), json["protected_vms"].as_str()), (Some("yes"), Some("yes")));
    let lines = json["checks"].as_array().unwrap();
    assert_eq!(lines.len(), Report::new(&facts, NEEDED).lines.len());
    let named = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap();
    assert_eq!(named("vsock")["answer"], "unknown");
    assert_eq!(named("vsock")["why"], "no permission");
    assert!(named("vsock")["remedy"].is_string());
    assert!(named("driver")["remedy"].is_null() && named("driver")["why"].is_null());
}

#[test]
fn a_no_outweighs_what_is_not_known() {
    let unknown = || Answer::Unknown("why".into());
    for (a, b, both) in [
        (Answer::Yes, Answer::Yes, "yes"),
        (Answer::Yes, unknown(), "unknown"),
        (unknown(), Answer::Yes, "unknown"),
        (unknown(), Answer::No, "no"),
        (Answer::No, unknown(), "no"),
    ] {
        assert_eq!(a.and(&b).word(), both);
    }
}
