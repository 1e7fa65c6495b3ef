// SPDX-License-Identifier: Apache-2.0
//! The Linux guest's device tree.

use super::linux::{GUEST, INITRD, SIZE};
use super::vmm::{DISTRIBUTOR, REDISTRIBUTORS};
use alloc::format;
use alloc::vec::Vec;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::ToPropertyValue;

fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

fn set<T: ToPropertyValue>(node: &mut DeviceTreeNode, name: &str, value: T) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn wide(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn cpus(count: usize) -> DeviceTreeNode {
    let mut cpus = node("cpus");
    set(&mut cpus, "#address-cells", 1u32);
    set(&mut cpus, "#size-cells", 0u32);
    for index in (0u32..).take(count) {
        let mut cpu = node(&format!("cpu@{index}"));
        set(&mut cpu, "device_type", "cpu");
        set(&mut cpu, "compatible", "arm,armv8");
        set(&mut cpu, "enable-method", "psci");
        set(&mut cpu, "reg", index);
        cpus.add_child(cpu);
    }
    cpus
}

fn devices(root: &mut DeviceTreeNode) {
    let mut gic = node(&format!("intc@{DISTRIBUTOR:x}"));
    set(&mut gic, "compatible", "arm,gic-v3");
    set(&mut gic, "#interrupt-cells", 3u32);
    set(&mut gic, "interrupt-controller", [0u8; 0]);
    set(&mut gic, "reg", wide(&[DISTRIBUTOR, 0x1_0000, REDISTRIBUTORS, 0x4_0000]));
    set(&mut gic, "phandle", 1u32);
    root.add_child(gic);
    let mut timer = node("timer");
    set(&mut timer, "compatible", "arm,armv8-timer");
    set(&mut timer, "always-on", [0u8; 0]);
    set(&mut timer, "interrupts", cells(&[1, 13, 8, 1, 14, 8, 1, 11, 8, 1, 10, 8]));
    root.add_child(timer);
    let mut uart = node("uart@3f8");
    set(&mut uart, "compatible", "ns16550a");
    set(&mut uart, "reg", wide(&[0x3f8, 8]));
    set(&mut uart, "clock-frequency", 1_843_200u32);
    set(&mut uart, "interrupts", cells(&[0, 0, 1]));
    root.add_child(uart);
    let mut psci = node("psci");
    set(&mut psci, "compatible", "arm,psci-1.0");
    set(&mut psci, "method", "hvc");
    root.add_child(psci);
}

/// A machine with an initramfs of `initrd` bytes.
pub fn build(initrd: u64, vcpus: usize) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    set(root, "compatible", "linux,dummy-virt");
    set(root, "#address-cells", 2u32);
    set(root, "#size-cells", 2u32);
    set(root, "interrupt-parent", 1u32);
    let mut chosen = node("chosen");
    set(&mut chosen, "bootargs", "console=ttyS0 earlycon=uart8250,mmio,0x3f8 panic=-1");
    set(&mut chosen, "linux,initrd-start", GUEST + INITRD);
    set(&mut chosen, "linux,initrd-end", GUEST + INITRD + initrd);
    root.add_child(chosen);
    let mut memory = node(&format!("memory@{GUEST:x}"));
    set(&mut memory, "device_type", "memory");
    set(&mut memory, "reg", wide(&[GUEST, SIZE]));
    root.add_child(memory);
    root.add_child(cpus(vcpus));
    devices(root);
    tree.to_dtb()
}
