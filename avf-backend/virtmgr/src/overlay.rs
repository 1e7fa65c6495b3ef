// SPDX-License-Identifier: Apache-2.0
//! What virtmgr adds to a VM's device tree, at `/avf`: what the host's bootloader wants every VM to
//! see, and the VM's identity.

use anyhow::{ensure, Context, Result};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::fs;
use std::path::Path;

/// Where the host's own device tree has what VMs are to see.
pub const REFERENCE: &str = "/proc/device-tree/avf/reference";
/// Bytes of the largest overlay, as in AVF.
const LIMIT: usize = 2000;

/// An overlay with what is below `reference`, and with an identity at `/avf/untrusted/instance-id`
/// unless it is all zeros, which is that of a VM without one. None, if there is neither.
pub fn overlay(reference: &Path, id: &[u8; 64]) -> Result<Option<Vec<u8>>> {
    // The names that are not the host's are constants, some of which only overlays have.
    let mut avf = DeviceTreeNode::new_unchecked("avf");
    if reference.is_dir() {
        copy(reference, &mut avf).with_context(|| reference.display().to_string())?;
    }
    if id.iter().any(|&byte| byte != 0) {
        let mut untrusted = DeviceTreeNode::new_unchecked("untrusted");
        untrusted.add_property(DeviceTreeProperty::new_unchecked("instance-id", id.to_vec()));
        avf.add_child(untrusted);
    }
    if avf == DeviceTreeNode::new_unchecked("avf") {
        return Ok(None);
    }
    let mut inside = DeviceTreeNode::new_unchecked("__overlay__");
    inside.add_child(avf);
    let mut fragment = DeviceTreeNode::new_unchecked("fragment@0");
    fragment.add_property(DeviceTreeProperty::new_unchecked("target-path", b"/\0".to_vec()));
    fragment.add_child(inside);
    let mut tree = DeviceTree::new();
    tree.root.add_child(fragment);
    let blob = tree.to_dtb();
    ensure!(blob.len() <= LIMIT, "/avf has {} bytes, {LIMIT} are allowed", blob.len());
    Ok(Some(blob))
}

/// Copies a directory of the kernel's view of a device tree: files are properties.
fn copy(dir: &Path, node: &mut DeviceTreeNode) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name that is no text")?;
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), node.add_child_mut(DeviceTreeNode::new_unchecked(name)))?;
        } else if name != "name" {
            // The kernel makes a property of each node's name.
            let value = fs::read(entry.path()).with_context(|| name.clone())?;
            node.add_property(DeviceTreeProperty::new_unchecked(name, value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node as _, Property as _};

    #[test]
    fn the_identity_is_where_guests_look() {
        let nothing = Path::new("/nonexistent");
        assert_eq!(overlay(nothing, &[0; 64]).unwrap(), None);
        let blob = overlay(nothing, &[7; 64]).unwrap().unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        let fragment = fdt.find_node("/fragment@0").unwrap();
        assert_eq!(fragment.property("target-path").unwrap().value(), b"/\0");
        let untrusted = fdt.find_node("/fragment@0/__overlay__/avf/untrusted").unwrap();
        assert_eq!(untrusted.property("instance-id").unwrap().value(), [7; 64]);
    }

    #[test]
    fn what_the_host_wants_vms_to_see_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("name", &b"reference\0"[..]),
            ("vendor_root_digest", &[1; 32]),
            ("oem/name", b"oem\0"),
            ("oem/key", b"value\0"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        }
        let blob = overlay(dir.path(), &[0; 64]).unwrap().unwrap();
        let fdt = Fdt::new(&blob).unwrap();
        let avf = fdt.find_node("/fragment@0/__overlay__/avf").unwrap();
        assert_eq!(avf.property("vendor_root_digest").unwrap().value(), [1; 32]);
        assert!(avf.property("name").is_none() && avf.child("untrusted").is_none());
        assert_eq!(avf.child("oem").unwrap().property("key").unwrap().value(), b"value\0");
        fs::write(dir.path().join("large"), [0; 2000]).unwrap();
        let error = overlay(dir.path(), &[7; 64]).unwrap_err().to_string();
        assert!(error.contains("2000 are allowed"), "{error}");
    }
}
