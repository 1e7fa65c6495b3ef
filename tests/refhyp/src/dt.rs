// SPDX-License-Identifier: Apache-2.0
//! The machine's device tree: what it says, and what the host is told instead.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property, ToCellInt};

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address beyond.
    pub end: u64,
}

/// What the hypervisor needs to know of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// RAM, in the order of the tree.
    pub memory: Vec<Range>,
    /// MPIDR affinity bits of each CPU.
    pub cpus: Vec<u64>,
    /// Registers of the GICv3 redistributors.
    pub redistributors: Range,
    /// Registers of the first PL011.
    pub uart: Option<Range>,
    /// The host kernel's command line.
    pub bootargs: String,
    /// Entropy from the boot loader.
    pub seed: Vec<u8>,
}

/// The device tree lacks something; the text says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(pub &'static str);

/// The first child of the root that is compatible with `what`.
fn find_compatible<'a, N: Node>(root: &'a N, what: &str) -> Option<N::Child<'a>> {
    root.children().find(|node| {
        node.property("compatible")
            .is_some_and(|p| p.value().split(|b| *b == 0).any(|name| name == what.as_bytes()))
    })
}

/// All entries of a `reg` property whose addresses and sizes have two cells each.
fn reg(node: &impl Node) -> Vec<Range> {
    let Some(property) = node.property("reg") else { return Vec::new() };
    let Ok(entries) = property.as_prop_encoded_array([2, 2]) else { return Vec::new() };
    entries
        .filter_map(|[start, size]| {
            let start = start.to_int::<u64>().ok()?;
            let end = start.checked_add(size.to_int::<u64>().ok()?)?;
            Some(Range { start, end })
        })
        .collect()
}

fn cpu_ids(root: &impl Node) -> Vec<u64> {
    let Some(cpus) = root.child("cpus") else { return Vec::new() };
    let cells = cpus
        .property("#address-cells")
        .and_then(|p| p.value_as::<u32>().ok())
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(1);
    cpus.children()
        .filter(|node| node.name_without_address().as_ref() == "cpu")
        .filter_map(|node| {
            let [id] = node.property("reg")?.as_prop_encoded_array([cells]).ok()?.next()?;
            id.to_int::<u64>().ok()
        })
        .collect()
}

impl Machine {
    /// Reads the device tree.
    pub fn read(dtb: &[u8]) -> Result<Self, Missing> {
        let fdt = Fdt::new(dtb).map_err(|_| Missing("a valid device tree"))?;
        let root = fdt.root();
        let memory: Vec<Range> = root
            .children()
            .filter(|node| node.property("device_type").is_some_and(|p| p.value() == b"memory\0"))
            .flat_map(|node| reg(&node))
            .collect();
        if memory.is_empty() {
            return Err(Missing("a memory node"));
        }
        let gic = find_compatible(&root, "arm,gic-v3").ok_or(Missing("a GICv3"))?;
        let redistributors =
            reg(&gic).get(1).copied().ok_or(Missing("the GIC's redistributor registers"))?;
        let uart = find_compatible(&root, "arm,pl011");
        let chosen = root.child("chosen");
        let text = |name| {
            let value = chosen.as_ref()?.property(name)?.value_as::<&str>().ok()?.to_string();
            Some(value)
        };
        let seed = chosen.as_ref().and_then(|c| c.property("rng-seed"));
        Ok(Self {
            memory,
            cpus: cpu_ids(&root),
            redistributors,
            uart: uart.and_then(|node| reg(&node).first().copied()),
            bootargs: text("bootargs").unwrap_or_default(),
            seed: seed.map(|p| p.value().to_vec()).unwrap_or_default(),
        })
    }
}

fn property<T: dtoolkit::ToPropertyValue>(name: &str, value: T) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

fn set<T: dtoolkit::ToPropertyValue>(node: &mut DeviceTreeNode, name: &str, value: T) {
    match node.property_mut(name) {
        Some(property) => property.set_value(value),
        None => node.add_property(property(name, value)),
    }
}

/// `reg` of one range with two cells each.
fn reg_value(range: Range) -> Vec<u8> {
    let mut value = range.start.to_be_bytes().to_vec();
    value.extend((range.end - range.start).to_be_bytes());
    value
}

/// The device tree that the host gets: GenieZone is there, the hypervisor's memory is reserved,
/// only the physical timer is offered, and the boot loader's entropy is replaced by `seed`.
pub fn for_host(dtb: &[u8], own: Range, seed: &[u8]) -> Result<Vec<u8>, Missing> {
    let fdt = Fdt::new(dtb).map_err(|_| Missing("a valid device tree"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    let mut hypervisor = DeviceTreeNode::new_unchecked("hypervisor");
    hypervisor.add_property(property("compatible", "mediatek,geniezone"));
    tree.root.add_child(hypervisor);
    reserve(&mut tree.root, own);
    physical_timer_only(&mut tree.root)?;
    if let Some(chosen) = tree.root.child_mut("chosen") {
        if chosen.remove_property("rng-seed").is_some() && !seed.is_empty() {
            chosen.add_property(property("rng-seed", seed));
        }
    }
    Ok(tree.to_dtb())
}

fn reserve(root: &mut DeviceTreeNode, own: Range) {
    if root.child_mut("reserved-memory").is_none() {
        let mut node = DeviceTreeNode::new_unchecked("reserved-memory");
        node.add_property(property("#address-cells", 2u32));
        node.add_property(property("#size-cells", 2u32));
        node.add_property(property("ranges", [0u8; 0]));
        root.add_child(node);
    }
    let mut node = DeviceTreeNode::new_unchecked(alloc::format!("geniezone@{:x}", own.start));
    node.add_property(property("reg", reg_value(own)));
    node.add_property(property("no-map", [0u8; 0]));
    if let Some(reserved) = root.child_mut("reserved-memory") {
        reserved.add_child(node);
    }
}

/// A kernel at EL1 would take the virtual timer, which is the guests'.
fn physical_timer_only(root: &mut DeviceTreeNode) -> Result<(), Missing> {
    let timer = root.child_mut("timer").ok_or(Missing("a timer node"))?;
    // Interrupts of three cells: secure physical, non-secure physical, virtual, hypervisor.
    let all = timer.property("interrupts").map(|p| p.value().to_vec()).unwrap_or_default();
    let physical = all.get(12..24).ok_or(Missing("the timer's interrupts"))?;
    set(timer, "interrupts", physical);
    set(timer, "interrupt-names", "phys");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let mut memory = DeviceTreeNode::new_unchecked("memory@40000000");
        memory.add_property(property("device_type", "memory"));
        memory.add_property(property(
            "reg",
            reg_value(Range { start: 0x4000_0000, end: 0xc000_0000 }),
        ));
        let mut gic = DeviceTreeNode::new_unchecked("intc@8000000");
        gic.add_property(property("compatible", "arm,gic-v3"));
        let mut gic_reg = reg_value(Range { start: 0x800_0000, end: 0x801_0000 });
        gic_reg.extend(reg_value(Range { start: 0x80a_0000, end: 0x900_0000 }));
        gic.add_property(property("reg", gic_reg));
        let mut cpus = DeviceTreeNode::new_unchecked("cpus");
        cpus.add_property(property("#address-cells", 1u32));
        for id in [0u32, 1, 0x100] {
            let mut cpu = DeviceTreeNode::new_unchecked(alloc::format!("cpu@{id:x}"));
            cpu.add_property(property("reg", id));
            cpus.add_child(cpu);
        }
        let mut timer = DeviceTreeNode::new_unchecked("timer");
        let cells = [1u32, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4];
        let cells: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
        timer.add_property(property("interrupts", cells));
        let mut chosen = DeviceTreeNode::new_unchecked("chosen");
        chosen.add_property(property("bootargs", "quiet refhyp.strict=1"));
        chosen.add_property(property("rng-seed", [7u8; 32]));
        for node in [memory, gic, cpus, timer, chosen] {
            tree.root.add_child(node);
        }
        tree.to_dtb()
    }

    #[test]
    fn the_machine_is_read() {
        let machine = Machine::read(&sample()).expect("sample");
        assert_eq!(machine.memory, [Range { start: 0x4000_0000, end: 0xc000_0000 }]);
        assert_eq!(machine.cpus, [0, 1, 0x100]);
        assert_eq!(machine.redistributors.start, 0x80a_0000);
        assert_eq!(machine.bootargs, "quiet refhyp.strict=1");
        assert_eq!(machine.seed, [7; 32]);
        assert_eq!(machine.uart, None);
    }

    #[test]
    fn the_host_gets_a_changed_tree() {
        let own = Range { start: 0x4000_0000, end: 0x4400_0000 };
        let dtb = for_host(&sample(), own, &[9; 32]).expect("patched");
        let fdt = Fdt::new(&dtb).expect("valid");
        let node = fdt.find_node("/hypervisor").expect("node");
        let compatible = node.property("compatible").expect("property");
        assert_eq!(compatible.value(), b"mediatek,geniezone\0");
        let own_node = fdt.find_node("/reserved-memory/geniezone@40000000").expect("node");
        assert_eq!(reg(&own_node), [own]);
        assert!(own_node.property("no-map").is_some());
        let timer = fdt.find_node("/timer").expect("node");
        let interrupts = timer.property("interrupts").expect("property");
        assert_eq!(interrupts.value(), [0, 0, 0, 1, 0, 0, 0, 14, 0, 0, 0, 4]);
        assert_eq!(Machine::read(&dtb).expect("valid").seed, [9; 32]);
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(Machine::read(b"nonsense").is_err());
        assert!(for_host(&[], Range { start: 0, end: 1 }, &[]).is_err());
    }
}
