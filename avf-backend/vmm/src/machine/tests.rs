// SPDX-License-Identifier: Apache-2.0
//! What can be seen of a VM before the driver takes part.

use super::*;
use crate::config::{SerialInput, SerialOutput};
use crate::fdt::tree::Node;
use crate::layout::MIB;
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node as _, Property as _};
use tempfile::NamedTempFile;

/// A kernel of 64 bytes that occupies 1 MiB.
fn kernel() -> NamedTempFile {
    let mut header = [0; 64];
    header[16..24].copy_from_slice(&MIB.to_le_bytes());
    header[56..60].copy_from_slice(b"ARM\x64");
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&header).unwrap();
    file
}

fn config(args: &[&str]) -> Config {
    let args = [&["gzvm_vmm", "run"], args].concat();
    crate::cli::parse(args).unwrap_or_else(|e| panic!("{}", e.message)).config
}

fn prepare(config: &Config) -> Result<Machine<'_>, StartError> {
    Machine::prepare(config, vcpus(config.vcpus, 17)?, Rule::Followed)
}

#[test]
fn vcpus_are_what_the_hypervisor_allows() {
    assert_eq!(vcpus(Vcpus::Count(8), 8).unwrap(), 8);
    assert_eq!(vcpus(Vcpus::MatchHost, 1).unwrap(), 1);
    let error = vcpus(Vcpus::Count(9), 8).unwrap_err().to_string();
    assert!(error.starts_with("9 vCPUs: the hypervisor allows 8"), "{error}");
}

#[test]
fn memory_holds_kernel_and_device_tree() {
    let (kernel, dump) = (kernel(), NamedTempFile::new().unwrap());
    let (kernel, dump) = (kernel.path().to_str().unwrap(), dump.path().to_str().unwrap());
    let config = config(&[
        "--protected-vm-without-firmware",
        "--swiotlb=8",
        "--mem=40",
        "--params=mode=hello",
        "--dump-device-tree-blob",
        dump,
        kernel,
    ]);
    let machine = prepare(&config).unwrap();
    let memory = machine.ram.memory();
    let magic: u32 = memory.read_obj(GuestAddress(0x8000_0000 + 56)).unwrap();
    assert_eq!(magic.to_le_bytes(), *b"ARM\x64");
    assert_eq!(machine.layout.dtb.start, 0x8000_0000 + 30 * MIB);
    let blob = std::fs::read(dump).unwrap();
    let mut in_memory = vec![0; blob.len()];
    memory.read_slice(&mut in_memory, GuestAddress(machine.layout.dtb.start)).unwrap();
    assert_eq!(in_memory, blob);
    let fdt = Fdt::new(&blob).unwrap();
    let bootargs = fdt.find_node("/chosen").unwrap().property("bootargs").unwrap();
    assert_eq!(bootargs.value(), b"panic=-1 8250.nr_uarts=4 mode=hello\0");
}

/// An overlay with contents for `/`.
fn overlay(fill: impl FnOnce(&mut Node)) -> NamedTempFile {
    let mut root = Node::new("");
    let fragment = root.child("fragment@0");
    fragment.set_strings("target-path", &["/"]);
    fill(fragment.child("__overlay__"));
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&root.to_blob()).unwrap();
    file
}

#[test]
fn what_the_firmware_would_refuse_is_refused_first() {
    let (kernel, dump) = (kernel(), NamedTempFile::new().unwrap());
    let kernel = kernel.path().to_str().unwrap();
    let bad = overlay(|root| _ = root.child("avf").child("untrusted").set_cells("phandle", &[9]));
    let mut firmware = config(&["--protected-vm", "--mem=80", kernel]);
    assert!(prepare(&firmware).is_ok());
    firmware.overlays.push(bad.path().into());
    firmware.dump_device_tree = Some(dump.path().into());
    let error = prepare(&firmware).map(drop).unwrap_err().to_string();
    assert!(error.contains("/avf/untrusted has the property phandle"), "{error}");
    assert!(Fdt::new(&std::fs::read(dump.path()).unwrap()).is_ok(), "it can be looked at");
    let mut without = config(&["--protected-vm-without-firmware", "--mem=80", kernel]);
    without.overlays.push(bad.path().into());
    assert!(prepare(&without).is_ok());
    let cpus = config(&["--protected-vm", "--mem=80", "--cpus=17", kernel]);
    let error = prepare(&cpus).map(drop).unwrap_err().to_string();
    assert!(error.contains("17 CPUs"), "{error}");
}

/// AVF's firmware reads names that are longer than the Devicetree Specification allows.
#[test]
fn long_names_hide_nothing_from_the_check_and_are_kept() {
    const LONG: &str = "vendor_hashtree_descriptor_root_digest";
    let (kernel, dump) = (kernel(), NamedTempFile::new().unwrap());
    let long = overlay(|root| _ = root.child("avf").set_cells(LONG, &[9]));
    let mut firmware = config(&["--protected-vm", "--mem=80", kernel.path().to_str().unwrap()]);
    firmware.overlays.push(long.path().into());
    firmware.dump_device_tree = Some(dump.path().into());
    assert!(prepare(&firmware).is_ok());
    let tree = fdt::read::read(&std::fs::read(dump.path()).unwrap()).unwrap();
    assert_eq!(tree.find("/avf").unwrap().property(LONG), Some(&[0, 0, 0, 9][..]));
    let bad = overlay(|root| _ = root.child("avf").child("untrusted").set_cells("phandle", &[9]));
    firmware.overlays.push(bad.path().into());
    let error = prepare(&firmware).map(drop).unwrap_err().to_string();
    assert!(error.contains("/avf/untrusted has the property phandle"), "{error}");
}

#[test]
fn a_tree_is_not_larger_than_declared_and_in_main_memory() {
    let mut layout = Layout::new(64 * MIB, None, 1, false, false).unwrap();
    let refused = |layout: &Layout, size| {
        fdt::check(&vec![0; size], layout, &Protection::None).unwrap_err().to_string()
    };
    let window = usize::try_from(DTB_WINDOW).unwrap();
    assert!(fdt::check(&vec![0; window], &layout, &Protection::None).is_ok());
    assert!(refused(&layout, window + 1).contains("only 2097152 are declared"));
    layout.dtb.start = layout.ram.end();
    assert!(refused(&layout, 1).contains("not in main memory"));
}

#[test]
fn overlays_are_applied_in_order() {
    let (kernel, dump) = (kernel(), NamedTempFile::new().unwrap());
    let value = |value: u32| overlay(|root| _ = root.child("avf").set_cells("value", &[value]));
    let (first, second) = (value(1), value(2));
    let mut config = config(&[kernel.path().to_str().unwrap()]);
    config.dump_device_tree = Some(dump.path().into());
    config.overlays = vec![first.path().into(), second.path().into()];
    prepare(&config).unwrap();
    let blob = std::fs::read(dump.path()).unwrap();
    let fdt = Fdt::new(&blob).unwrap();
    let value = fdt.find_node("/avf").unwrap().property("value").unwrap();
    assert_eq!(value.value(), [0, 0, 0, 2]);
    config.overlays.push(kernel.path().into());
    let error = prepare(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains(kernel.path().to_str().unwrap()), "{error}");
}

#[test]
fn consoles_come_before_given_parameters() {
    let text = bootargs(&config(&[
        "--serial=hardware=virtio-console,num=3,console",
        "--serial=type=stdout,num=2,console,earlycon",
        "--params=a",
        "--params=b c",
        "/k",
    ]));
    let expected = "panic=-1 8250.nr_uarts=4 console=ttyS1 console=hvc2 \
                    earlycon=uart8250,mmio,0x2f8 a b c";
    assert_eq!(text, expected);
}

#[test]
fn seeds_differ() {
    assert_ne!(seeds().unwrap().rng, seeds().unwrap().rng);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let kernel = kernel();
    let mut config = config(&[kernel.path().to_str().unwrap()]);
    config.serial.push(crate::config::SerialPort {
        number: 3,
        output: SerialOutput::Sink,
        input: Some(SerialInput::File("/nonexistent/input".into())),
        console: false,
        earlycon: false,
    });
    let error = prepare(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("input of ttyS2"), "{error}");
}

#[test]
fn every_end_has_its_status() {
    for (event, code) in [
        (VmEvent::Shutdown, 0),
        (VmEvent::Stopped, 0),
        (VmEvent::Reset, 32),
        (VmEvent::VcpuFailed { vcpu: 0, why: "x".into() }, 33),
        (VmEvent::GuestCrash, 34),
        (VmEvent::Stalled { vcpu: 0 }, 36),
    ] {
        assert_eq!(ending(event).status.code(), code);
    }
    assert_eq!(ending(VmEvent::Signal(Signal::SIGTERM)).signal, Some(Signal::SIGTERM));
}

#[test]
fn a_missing_device_is_explained() {
    let config = config(&["--hypervisor=geniezone[device=/nonexistent/gzvm]", "/k"]);
    let error = run(&config).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/gzvm: "), "{error}");
}
