// SPDX-License-Identifier: Apache-2.0
//! A tree that everybody accepts, and what happens when one thing in it is changed.

use super::*;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Sets cells at a path, making the nodes that are missing.
fn set(tree: &mut DeviceTree, path: &str, name: &str, cells: &[u32]) {
    add(tree, path, DeviceTreeProperty::new(name, cells).unwrap());
}

fn set_text(tree: &mut DeviceTree, path: &str, name: &str, text: &str) {
    add(tree, path, DeviceTreeProperty::new(name, text).unwrap());
}

fn add(tree: &mut DeviceTree, path: &str, property: DeviceTreeProperty) {
    let mut node = &mut tree.root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if node.child_mut(name).is_none() {
            node.add_child(DeviceTreeNode::new(name).unwrap());
        }
        node = node.child_mut(name).unwrap();
    }
    // The trait is implemented for references.
    let name = dtoolkit::Property::name(&&property).to_owned();
    node.remove_property(&name);
    node.add_property(property);
}

fn remove(tree: &mut DeviceTree, path: &str, name: &str) {
    tree.find_node_mut(path).unwrap().remove_property(name).unwrap();
}

const MEMORY: &str = "/memory@80000000";
const WATCHDOG: &str = "/vmwdt@3000";
const POOL: &str = "/reserved-memory/pool@84000000";
const RANGES: [u32; 14] =
    [0x200_0000, 0, 0x2c00_0000, 0, 0x2c00_0000, 0, 0x200_0000, 0x4300_0000, 1, 0, 1, 0, 0xff, 0];
const MAP: [u32; 20] = [0x800, 0, 0, 1, 1, 0, 0, 0, 4, 4, 0x1000, 0, 0, 1, 1, 0, 0, 0, 5, 4];

/// A protected VM with 72 MiB, two CPUs and two devices.
fn good() -> DeviceTree {
    let mut tree = DeviceTree::new();
    let t = &mut tree;
    set(t, "/", "#address-cells", &[2]);
    set(t, "/", "#size-cells", &[2]);
    set_text(t, MEMORY, "device_type", "memory");
    set(t, MEMORY, "reg", &[0, 0x8000_0000, 0, 0x480_0000]);
    set(t, "/reserved-memory", "#address-cells", &[2]);
    set(t, "/reserved-memory", "#size-cells", &[2]);
    set_text(t, POOL, "compatible", "restricted-dma-pool");
    set(t, POOL, "reg", &[0, 0x8400_0000, 0, 0x80_0000]);
    set(t, "/cpus", "#address-cells", &[1]);
    set(t, "/cpus", "#size-cells", &[0]);
    for id in 0..2 {
        set_text(t, &format!("/cpus/cpu@{id}"), "compatible", "arm,armv8");
        set(t, &format!("/cpus/cpu@{id}"), "reg", &[id]);
    }
    set(t, "/chosen", "linux,initrd-start", &[0x8100_0000]);
    set(t, "/chosen", "linux,initrd-end", &[0x8100_1000]);
    set(t, "/config", "kernel-address", &[0x8000_0000]);
    set(t, "/config", "kernel-size", &[0x30_0000]);
    set_text(t, "/pci", "compatible", "pci-host-cam-generic");
    set(t, "/pci", "reg", &[0, 0x2e00_0000, 0, 0x100_0000]);
    set(t, "/pci", "ranges", &RANGES);
    set(t, "/pci", "interrupt-map", &MAP);
    set(t, "/pci", "interrupt-map-mask", &[0xf800, 0, 0, 7]);
    set_text(t, "/serial@3f8", "compatible", "ns16550a");
    set(t, "/serial@3f8", "reg", &[0, 0x3f8, 0, 8]);
    set_text(t, WATCHDOG, "compatible", "qemu,vcpu-stall-detector");
    set(t, WATCHDOG, "reg", &[0, 0x3000, 0, 0x1000]);
    set(t, WATCHDOG, "interrupts", &[1, 15, 0x301]);
    set_text(t, "/intc", "compatible", "arm,gic-v3");
    set(t, "/intc", "reg", &[0, 0x3fff_0000, 0, 0x1_0000, 0, 0x3ffb_0000, 0, 0x4_0000]);
    set(t, "/avf/untrusted", "instance-id", &[1, 2, 3]);
    tree
}

fn checked(change: impl FnOnce(&mut DeviceTree)) -> Result<Facts, Fault> {
    let mut tree = good();
    change(&mut tree);
    check(&tree.to_dtb(), Reader::Firmware)
}

#[test]
fn a_good_tree_is_understood() {
    let facts = checked(|_| ()).unwrap();
    assert_eq!(facts.memory, 0x8000_0000..0x8480_0000);
    assert_eq!(facts.kernel, Some(0x8000_0000..0x8030_0000));
    assert_eq!(facts.initrd, Some(0x8100_0000..0x8100_1000));
    assert_eq!(facts.pool, Some(Pool::Fixed(0x8400_0000..0x8480_0000)));
    assert_eq!((facts.cpus, facts.pci_devices), (2, 2));
    let mut window = good().to_dtb();
    window.resize(usize::try_from(WINDOW).unwrap(), 0);
    assert_eq!(check(&window, Reader::Firmware), Ok(facts), "what follows is ignored");
    let places = PciPlaces { configuration: 0x2e00_0000, memory: 0x2c00_0000 };
    assert_eq!(pci_places(&good().to_dtb()), Ok(places));
}

#[test]
fn what_differs_in_the_field_is_accepted() {
    let newer = checked(|t| set(t, MEMORY, "reg", &[0, 0x7fc0_0000, 0, 0x4c0_0000])).unwrap();
    assert_eq!(newer.memory, 0x7fc0_0000..0x8480_0000);
    for second in [0x300_0000, 0x4300_0000] {
        let mut ranges = RANGES;
        (ranges[0], ranges[7]) = (0x300_0000, second);
        checked(|t| set(t, "/pci", "ranges", &ranges)).unwrap();
    }
    let anywhere = checked(|t| {
        remove(t, POOL, "reg");
        set(t, POOL, "size", &[0, 0x80_0000]);
        set(t, POOL, "alignment", &[0, 0x1000]);
    });
    assert_eq!(anywhere.unwrap().pool, Some(Pool::Anywhere(0x80_0000)));
    checked(|t| {
        remove(t, "/chosen", "linux,initrd-start");
        remove(t, "/chosen", "linux,initrd-end");
    })
    .unwrap();
}

type Mutation = (&'static str, fn(&mut DeviceTree));

/// Each changes one property; the message that it must cause.
const MUTATIONS: &[Mutation] = &[
    ("memory starts at 0x80200000", |t| set(t, MEMORY, "reg", &[0, 0x8020_0000, 0, 0x460_0000])),
    ("0x4800001 bytes of memory", |t| set(t, MEMORY, "reg", &[0, 0x8000_0000, 0, 0x480_0001])),
    ("/config kernel-address (one cell)", |t| {
        set(t, "/config", "kernel-address", &[0, 0x8000_0000])
    }),
    ("the kernel 0x80000000..0x84900000", |t| set(t, "/config", "kernel-size", &[0x490_0000])),
    ("ramdisk overlap", |t| set(t, "/config", "kernel-size", &[0x100_0001])),
    ("/chosen linux,initrd-end", |t| remove(t, "/chosen", "linux,initrd-end")),
    ("ramdisk 0x81000000..0x80ffffff", |t| set(t, "/chosen", "linux,initrd-end", &[0x80ff_ffff])),
    ("PCI range 0 is of kind 0x1000000", |t| {
        set(t, "/pci", "ranges", &[&[0x100_0000][..], &RANGES[1..]].concat())
    }),
    ("PCI range 1 is of kind 0x3000000", |t| {
        set(t, "/pci", "ranges", &[&RANGES[..7], &[0x300_0000][..], &RANGES[8..]].concat())
    }),
    ("PCI ranges, two", |t| set(t, "/pci", "ranges", &RANGES[..7])),
    ("mapped to 0x2c000001", |t| {
        set(t, "/pci", "ranges", &[&RANGES[..4], &[0x2c00_0001][..], &RANGES[5..]].concat())
    }),
    ("PCI range 0x2c000000 overlaps", |t| {
        set(t, "/pci", "ranges", &[&RANGES[..6], &[0x5400_1000][..], &RANGES[7..]].concat())
    }),
    ("behind 40-bit", |t| {
        set(t, "/pci", "ranges", &[&RANGES[..12], &[0x100][..], &RANGES[13..]].concat())
    }),
    ("interrupt-map-mask of PCI", |t| set(t, "/pci", "interrupt-map-mask", &[0xf800, 0, 0, 3])),
    ("slot 2: another slot's", |t| {
        set(t, "/pci", "interrupt-map", &[&MAP[..10], &[0x1800][..], &MAP[11..]].concat())
    }),
    ("slot 1: another pin", |t| {
        set(t, "/pci", "interrupt-map", &[&MAP[..3], &[2][..], &MAP[4..]].concat())
    }),
    ("slot 1: an address", |t| {
        set(t, "/pci", "interrupt-map", &[&MAP[..6], &[2][..], &MAP[7..]].concat())
    }),
    ("slot 2: another interrupt", |t| {
        set(t, "/pci", "interrupt-map", &[&MAP[..18], &[6][..], &MAP[19..]].concat())
    }),
    ("slot 2: another trigger", |t| {
        set(t, "/pci", "interrupt-map", &[&MAP[..19], &[1][..]].concat())
    }),
    ("PCI interrupt-map is missing", |t| set(t, "/pci", "interrupt-map", &MAP[..9])),
    ("17 PCI devices", |t| set(t, "/pci", "interrupt-map", &[0; 170])),
    ("0 CPUs", |t| {
        set_text(t, "/cpus/cpu@0", "compatible", "arm,armv7");
        set_text(t, "/cpus/cpu@1", "compatible", "arm,armv7");
    }),
    ("17 CPUs", |t| {
        (2..17).for_each(|id| set_text(t, &format!("/cpus/cpu@{id}"), "compatible", "arm,armv8"));
    }),
    ("0x3f8", |t| set(t, "/serial@3f8", "reg", &[0, 0x2f8, 0, 8])),
    ("restricted-dma-pool is missing", |t| remove(t, POOL, "compatible")),
    ("0x800800 bytes of restricted-DMA", |t| set(t, POOL, "reg", &[0, 0x8400_0000, 0, 0x80_0800])),
    ("pool 0x84001000..0x84801000", |t| set(t, POOL, "reg", &[0, 0x8400_1000, 0, 0x80_0000])),
    ("pool size is missing", |t| remove(t, POOL, "reg")),
    ("alignment 0x800 is", |t| {
        remove(t, POOL, "reg");
        set(t, POOL, "size", &[0, 0x80_0000]);
        set(t, POOL, "alignment", &[0, 0x800]);
    }),
    ("detector is at 0x4000+0x1000", |t| set(t, WATCHDOG, "reg", &[0, 0x4000, 0, 0x1000])),
    ("interrupt is [1, f, 101]", |t| set(t, WATCHDOG, "interrupts", &[1, 15, 0x101])),
    ("controller is at 0x3fff0000 and 0x3ffd0000", |t| {
        set(t, "/intc", "reg", &[0, 0x3fff_0000, 0, 0x1_0000, 0, 0x3ffd_0000, 0, 0x2_0000]);
    }),
    ("/avf/untrusted has the property phandle", |t| set(t, "/avf/untrusted", "phandle", &[1])),
    ("/avf is missing", |t| drop(t.root.remove_child("avf"))),
    ("/chosen is missing", |t| drop(t.root.remove_child("chosen"))),
    ("/config is missing", |t| drop(t.root.remove_child("config"))),
    ("/memory is missing", |t| drop(t.root.remove_child("memory@80000000"))),
];

#[test]
fn each_change_has_its_own_message() {
    let mut messages = BTreeSet::new();
    for (expected, change) in MUTATIONS {
        let message = checked(change).map_or_else(|fault| fault.to_string(), |_| "accepted".into());
        assert!(message.contains(expected), "wanted {expected:?}: {message}");
        assert!(messages.insert(message.clone()), "twice: {message}");
    }
}

#[test]
fn payloads_demand_less_than_the_firmware() {
    let mut tree = good();
    tree.root.remove_child("config").unwrap();
    assert!(check(&tree.to_dtb(), Reader::Protected).is_ok());
    remove(&mut tree, POOL, "compatible");
    assert!(check(&tree.to_dtb(), Reader::Protected).is_err(), "devices would not work");
    let facts = check(&tree.to_dtb(), Reader::Plain).unwrap();
    assert_eq!((facts.pool, facts.kernel), (None, None));
}

#[test]
fn the_tree_lies_in_main_memory_and_is_no_larger_than_declared() {
    let ram = 0x8000_0000..0x8400_0000;
    let place = |size, start| check_place(size, start, WINDOW, &ram);
    assert_eq!(place(WINDOW, 0x83e0_0000), Ok(()));
    let larger = Fault::LargerThanDeclared { size: WINDOW + 1, declared: WINDOW };
    assert_eq!(place(WINDOW + 1, 0x83e0_0000), Err(larger));
    for start in [0x83f0_0000, 0x8400_0000, 0x7fe0_0000, !(WINDOW - 1)] {
        let fault = Fault::OutsideOfRam { start, declared: WINDOW };
        assert_eq!(place(1, start), Err(fault), "{start:#x}");
    }
}

proptest! {
    #[test]
    fn damage_is_survived(at in 0_usize..2000, byte: u8, cut in 0_usize..2000) {
        let mut blob = good().to_dtb();
        blob.truncate(blob.len().saturating_sub(cut));
        if let Some(place) = blob.get_mut(at) {
            *place = byte;
        }
        let _ = check(&blob, Reader::Firmware);
    }
}
