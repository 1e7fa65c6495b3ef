// SPDX-License-Identifier: Apache-2.0
//! AVF's debug policy: what the host's bootloader lets be seen of VMs that cannot be debugged. Raw VMs
//! have no debug level, and count as such.

use anyhow::{anyhow, Context, Result};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::overlay::OverlayApplier;
use dtoolkit::model::DeviceTree;
use dtoolkit::{Node as _, Property as _};
use gzvm_host::props::Props;
use std::fs;
use std::path::Path;

/// The host's own device tree.
const HOST: &str = "/proc/device-tree";
/// Where the policy is in a device tree: nodes, and properties that allow something.
const LOG: (&str, &str) = ("/avf/guest/common", "log");
const RAMDUMP: (&str, &str) = ("/avf/guest/common", "ramdump");
const ADB: (&str, &str) = ("/avf/guest/microdroid", "adb");
/// What a property is that allows.
const ALLOWED: [u8; 4] = 1_u32.to_be_bytes();

/// The policy. In its `Debug` form it is what AVF's interface says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugPolicy {
    log: bool,
    ramdump: bool,
    adb: bool,
}

impl DebugPolicy {
    /// What the property's file says; where no property is set, what the host's device tree says.
    pub fn load(props: &Props) -> Self {
        let Some(file) = props.debug_policy() else { return Self::of_host(Path::new(HOST)) };
        Self::of_overlay(&file).unwrap_or_else(|e| {
            log::warn!("the debug policy allows nothing: {}: {e:#}", file.display());
            Self::default()
        })
    }

    fn new(allows: impl Fn((&str, &str)) -> bool) -> Self {
        Self { log: allows(LOG), ramdump: allows(RAMDUMP), adb: allows(ADB) }
    }

    /// From the kernel's view of a device tree.
    fn of_host(tree: &Path) -> Self {
        Self::new(|(node, property)| {
            let file = tree.join(node.trim_start_matches('/')).join(property);
            fs::read(file).is_ok_and(|value| value == ALLOWED)
        })
    }

    /// From an overlay, as AVF's property names one.
    fn of_overlay(file: &Path) -> Result<Self> {
        let blob = fs::read(file).context("cannot read it")?;
        let overlay = Fdt::new(&blob).map_err(|e| anyhow!("not a device tree: {e}"))?;
        let mut tree = DeviceTree::new();
        let applied = OverlayApplier::new(&mut tree).apply_overlay(&overlay);
        applied.map_err(|e| anyhow!("not an overlay for an empty device tree: {e}"))?;
        Ok(Self::new(|(node, property)| {
            let property = tree.find_node(node).and_then(|node| node.property(property));
            property.is_some_and(|property| property.value() == ALLOWED)
        }))
    }

    /// Whether a guest's kernel is to print all that it has to say, where it is seen.
    pub fn log(self) -> bool {
        self.log || self.adb
    }

    /// Whether a guest's kernel is to leave its memory when it crashes.
    pub fn ramdump(self) -> bool {
        self.ramdump
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::model::{DeviceTreeNode, DeviceTreeProperty};

    /// What is in the device tree, and what that allows.
    const CASES: &[(&str, &str, [u8; 4], &str)] = &[
        ("common", "log", [0, 0, 0, 1], "log: true, ramdump: false, adb: false"),
        ("common", "ramdump", [0, 0, 0, 1], "log: false, ramdump: true, adb: false"),
        ("microdroid", "adb", [0, 0, 0, 1], "log: false, ramdump: false, adb: true"),
        ("common", "adb", [0, 0, 0, 1], "log: false, ramdump: false, adb: false"),
        ("common", "log", [0, 0, 0, 0], "log: false, ramdump: false, adb: false"),
        // Big-endian, as all of a device tree.
        ("common", "log", [1, 0, 0, 0], "log: false, ramdump: false, adb: false"),
    ];

    fn node(name: &str, child: DeviceTreeNode) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new_unchecked(name);
        node.add_child(child);
        node
    }

    #[test]
    fn the_host_and_the_file_say_it_alike() {
        let dir = tempfile::tempdir().unwrap();
        for (index, (name, property, value, allowed)) in CASES.iter().enumerate() {
            let expected = format!("DebugPolicy {{ {allowed} }}");
            let host = dir.path().join(index.to_string());
            let place = host.join("avf/guest").join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(property), value).unwrap();
            assert_eq!(format!("{:?}", DebugPolicy::of_host(&host)), expected);

            let mut leaf = DeviceTreeNode::new_unchecked(*name);
            leaf.add_property(DeviceTreeProperty::new_unchecked(*property, value.to_vec()));
            let inside = node("__overlay__", node("avf", node("guest", leaf)));
            let mut fragment = node("fragment@avf", inside);
            fragment.add_property(DeviceTreeProperty::new_unchecked("target-path", "/"));
            let mut tree = DeviceTree::new();
            tree.root.add_child(fragment);
            let file = dir.path().join("policy.dtbo");
            fs::write(&file, tree.to_dtb()).unwrap();
            let props =
                format!("hypervisor.virtualizationmanager.debug_policy.path={}", file.display());
            assert_eq!(format!("{:?}", DebugPolicy::load(&Props::parse(&props))), expected);
        }
    }

    #[test]
    fn a_file_that_is_none_allows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.dtbo");
        assert!(DebugPolicy::of_overlay(&file).is_err());
        fs::write(&file, "rubbish").unwrap();
        let error = DebugPolicy::of_overlay(&file).unwrap_err().to_string();
        assert!(error.starts_with("not a device tree"), "{error}");
        let props =
            format!("hypervisor.virtualizationmanager.debug_policy.path={}", file.display());
        assert_eq!(DebugPolicy::load(&Props::parse(&props)), DebugPolicy::default());
    }
}
