// SPDX-License-Identifier: Apache-2.0
//! The tree, read back by somebody else's reader.

use super::*;
use crate::layout::MIB;
use dtoolkit::fdt::Fdt;
use dtoolkit::{Node as _, Property as _};
use gzvm_dtcheck::{check, Reader};

fn blob(memory: u64, swiotlb: Option<u64>, vcpus: u32, pvmfw: bool) -> Vec<u8> {
    let layout = Layout::new(memory, swiotlb, vcpus, false, pvmfw).unwrap();
    let placement = layout.place_kernel(0, 3 * MIB, 4 * MIB, Some(1000)).unwrap();
    let seeds = Seeds { kaslr: 0x0102_0304_0506_0708, rng: [9; 256] };
    let bootargs = "panic=-1 console=ttyS0";
    let description = Description {
        layout: &layout,
        placement: &placement,
        vcpus,
        bootargs,
        seeds: &seeds,
        pci: (PciWindows::default(), 2),
    };
    super::super::write(&description.tree().unwrap()).unwrap()
}

#[test]
fn every_shape_meets_the_demands_of_who_reads_it_first() {
    let shapes = [(None, false, Reader::Plain), (Some(8), false, Reader::Protected)];
    let shapes = shapes.into_iter().chain([(Some(8), true, Reader::Firmware)]);
    for (pool, pvmfw, reader) in shapes {
        for memory in [24, 256, 3 * 1024, 5 * 1024] {
            for vcpus in [1, 2, 8, 9, 16] {
                let blob = blob(memory * MIB, pool.map(|pool| pool * MIB), vcpus, pvmfw);
                let shape = format!("{reader:?}, {memory} MiB, {vcpus} vCPUs");
                let facts = check(&blob, reader).unwrap_or_else(|fault| panic!("{shape}: {fault}"));
                assert_eq!(facts.cpus, usize::try_from(vcpus).unwrap(), "{shape}");
                assert_eq!(facts.memory, 0x8000_0000..0x8000_0000 + memory * MIB, "{shape}");
                assert_eq!(facts.pci_devices, 2, "{shape}");
                assert_eq!(facts.pool.is_some(), pool.is_some(), "{shape}");
                assert_eq!(facts.initrd.map(|range| range.end - range.start), Some(1000));
            }
        }
    }
}

fn bytes<'a>(fdt: &Fdt<'a>, path: &str, name: &str) -> Vec<u8> {
    let node = fdt.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    let property = node.property(name).unwrap_or_else(|| panic!("no {name} in {path}"));
    property.value().to_vec()
}

fn cells(fdt: &Fdt<'_>, path: &str, name: &str) -> Vec<u32> {
    let words = bytes(fdt, path, name);
    words.chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect()
}

fn text(fdt: &Fdt<'_>, path: &str, name: &str) -> String {
    String::from_utf8(bytes(fdt, path, name)).unwrap()
}

#[test]
fn plain_vm() {
    let blob = blob(256 * MIB, None, 2, false);
    let fdt = Fdt::new(&blob).unwrap();
    assert_eq!(cells(&fdt, "/memory", "reg"), [0, 0x8000_0000, 0, 0x1000_0000]);
    assert_eq!(text(&fdt, "/psci", "method"), "hvc\0");
    assert_eq!(
        cells(&fdt, "/intc", "reg"),
        [0, 0x3fff_0000, 0, 0x1_0000, 0, 0x3ffb_0000, 0, 0x4_0000]
    );
    assert_eq!(cells(&fdt, "/timer", "interrupts")[..6], [1, 13, 0x308, 1, 14, 0x308]);
    assert_eq!(text(&fdt, "/cpus/cpu@1", "enable-method"), "psci\0");
    assert!(fdt.find_node("/cpus/cpu@2").is_none());
    assert!(fdt.find_node("/avf").is_some(), "rialto needs it");
    assert!(fdt.find_node("/reserved-memory").is_none());
    assert_eq!(cells(&fdt, "/config", "kernel-size"), [0x30_0000], "crosvm always says so");
    assert_eq!(cells(&fdt, "/cpus/cpu@1", "phandle"), [0x101]);
    assert_eq!(cells(&fdt, "/rtc@2000", "arm,primecell-periphid"), [0x41030]);
    assert_eq!(cells(&fdt, "/rtc@2000", "clocks"), cells(&fdt, "/pclk@3M", "phandle"));
    assert_eq!(cells(&fdt, "/vmwdt@3000", "interrupts"), [1, 15, 0x301]);
    assert_eq!(cells(&fdt, "/vmwdt@3000", "clock-frequency"), [2]);
    assert_eq!(cells(&fdt, "/vmwdt@3000", "timeout-sec"), [10]);
}

/// AVF compares all names with a reference (avf_backcompat_tests).
#[test]
fn nodes_are_crosvms() {
    let names = |blob: &[u8]| {
        let tree = super::super::read::read(blob).unwrap();
        let mut names: Vec<String> = tree.children().iter().map(|n| n.name().into()).collect();
        names.sort();
        names
    };
    let mut expected = vec![
        "U6_16550A@2e8",
        "U6_16550A@2f8",
        "U6_16550A@3e8",
        "U6_16550A@3f8",
        "__symbols__",
        "avf",
        "chosen",
        "config",
        "cpufreq",
        "cpus",
        "intc",
        "memory",
        "pci",
        "pclk@3M",
        "psci",
        "rtc@2000",
        "timer",
        "vmwdt@3000",
    ];
    let plain = blob(64 * MIB, None, 1, false);
    assert_eq!(names(&plain), expected);
    let fdt = Fdt::new(&plain).unwrap();
    assert_eq!(text(&fdt, "/cpufreq", "compatible"), "virtual,kvm-cpufreq\0");
    assert_eq!(text(&fdt, "/__symbols__", "intc"), "/intc\0");
    expected.insert(15, "reserved-memory");
    assert_eq!(names(&blob(64 * MIB, Some(8 * MIB), 1, true)), expected);
}

#[test]
fn chosen() {
    let blob = blob(64 * MIB, None, 1, false);
    let fdt = Fdt::new(&blob).unwrap();
    assert_eq!(text(&fdt, "/chosen", "bootargs"), "panic=-1 console=ttyS0\0");
    assert_eq!(cells(&fdt, "/chosen", "linux,initrd-start"), [0x8040_0000]);
    assert_eq!(cells(&fdt, "/chosen", "linux,initrd-end"), [0x8040_0000 + 1000]);
    assert_eq!(cells(&fdt, "/chosen", "kaslr-seed"), [0x0102_0304, 0x0506_0708]);
    assert_eq!(bytes(&fdt, "/chosen", "rng-seed"), [9; 256]);
    let stdout = text(&fdt, "/chosen", "stdout-path");
    assert!(fdt.find_node(stdout.trim_end_matches('\0')).is_some(), "{stdout}");
}

#[test]
fn four_serial_ports_on_two_interrupts() {
    let blob = blob(64 * MIB, None, 1, false);
    let fdt = Fdt::new(&blob).unwrap();
    for (name, address, spi) in
        [("3f8", 0x3f8, 0), ("2f8", 0x2f8, 2), ("3e8", 0x3e8, 0), ("2e8", 0x2e8, 2)]
    {
        let path = format!("/U6_16550A@{name}");
        assert_eq!(text(&fdt, &path, "compatible"), "ns16550a\0");
        assert_eq!(cells(&fdt, &path, "reg"), [0, address, 0, 8]);
        assert_eq!(cells(&fdt, &path, "interrupts"), [0, spi, 1]);
    }
}

#[test]
fn pci_slots_have_interrupts_from_four_on() {
    let blob = blob(64 * MIB, Some(2 * MIB), 1, false);
    let fdt = Fdt::new(&blob).unwrap();
    assert_eq!(text(&fdt, "/pci", "compatible"), "pci-host-cam-generic\0");
    assert_eq!(cells(&fdt, "/pci", "reg"), [0, 0x2e00_0000, 0, 0x100_0000]);
    let ranges = cells(&fdt, "/pci", "ranges");
    assert_eq!(ranges[..7], [0x300_0000, 0, 0x2c00_0000, 0, 0x2c00_0000, 0, 0x200_0000]);
    assert_eq!(ranges[7..], [0x4300_0000, 1, 0, 1, 0, 0xff, 0]);
    assert_eq!(
        cells(&fdt, "/pci", "interrupt-map"),
        [0x800, 0, 0, 1, 1, 0, 0, 0, 4, 4, 0x1000, 0, 0, 1, 1, 0, 0, 0, 5, 4]
    );
    let pool = "/reserved-memory/restricted_dma_reserved@83e00000";
    assert_eq!(cells(&fdt, "/pci", "memory-region"), cells(&fdt, pool, "phandle"));
    assert_eq!(cells(&fdt, "/chosen", "linux,pci-probe-only"), [1]);
}

#[test]
fn protected_vm_has_a_pool_with_an_address() {
    let blob = blob(72 * MIB, Some(8 * MIB), 1, true);
    let fdt = Fdt::new(&blob).unwrap();
    assert_eq!(cells(&fdt, "/memory", "reg"), [0, 0x8000_0000, 0, 0x480_0000]);
    let pool = "/reserved-memory/restricted_dma_reserved@84000000";
    assert_eq!(text(&fdt, pool, "compatible"), "restricted-dma-pool\0");
    assert_eq!(cells(&fdt, pool, "reg"), [0, 0x8400_0000, 0, 0x80_0000]);
    assert_eq!(cells(&fdt, pool, "alignment"), [0, u32::try_from(host_page()).unwrap()]);
    assert_eq!(cells(&fdt, "/config", "kernel-address"), [0x8000_0000]);
    assert_eq!(cells(&fdt, "/config", "kernel-size"), [0x30_0000]);
}

#[test]
fn clusters_of_sixteen() {
    let blob = blob(64 * MIB, None, 17, false);
    let fdt = Fdt::new(&blob).unwrap();
    assert_eq!(cells(&fdt, "/cpus/cpu@f", "reg"), [15]);
    assert_eq!(cells(&fdt, "/cpus/cpu@100", "reg"), [0x100]);
}

#[test]
fn long_parameters_are_refused_before_the_kernel_cuts_them() {
    let layout = Layout::new(64 * MIB, None, 1, false, false).unwrap();
    let placement = layout.place_kernel(0, 1, 1, None).unwrap();
    let seeds = Seeds { kaslr: 0, rng: [0; 256] };
    let bootargs = "x".repeat(2048);
    let description = Description {
        layout: &layout,
        placement: &placement,
        vcpus: 1,
        bootargs: &bootargs,
        seeds: &seeds,
        pci: (PciWindows::default(), 0),
    };
    assert!(matches!(description.tree(), Err(FdtError::Bootargs { len: 2048, limit: 2047 })));
}
