// SPDX-License-Identifier: Apache-2.0
//! What virtmgr adds to a VM's device tree.

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// An overlay with the VM's identity at `/avf/untrusted/instance-id`; none for an identity that is
/// all zeros, which is that of a VM without one.
pub fn identity(id: &[u8; 64]) -> Option<Vec<u8>> {
    if id.iter().all(|&byte| byte == 0) {
        return None;
    }
    let inside = |name: &str, child| {
        // The names are constants, some of which only overlays have.
        let mut node = DeviceTreeNode::new_unchecked(name);
        node.add_child(child);
        node
    };
    let mut untrusted = DeviceTreeNode::new_unchecked("untrusted");
    untrusted.add_property(DeviceTreeProperty::new_unchecked("instance-id", id.to_vec()));
    let mut fragment = inside("fragment@0", inside("__overlay__", inside("avf", untrusted)));
    fragment.add_property(DeviceTreeProperty::new_unchecked("target-path", b"/\0".to_vec()));
    let mut tree = DeviceTree::new();
    tree.root.add_child(fragment);
    Some(tree.to_dtb())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node as _, Property as _};

    #[test]
    fn the_identity_is_where_guests_look() {
        assert_eq!(identity(&[0; 64]), None);
        let blob = identity(&[7; 64]).unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        let fragment = fdt.find_node("/fragment@0").unwrap();
        assert_eq!(fragment.property("target-path").unwrap().value(), b"/\0");
        let untrusted = fdt.find_node("/fragment@0/__overlay__/avf/untrusted").unwrap();
        assert_eq!(untrusted.property("instance-id").unwrap().value(), [7; 64]);
    }
}
