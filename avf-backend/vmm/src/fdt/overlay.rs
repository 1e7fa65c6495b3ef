// SPDX-License-Identifier: Apache-2.0
//! Applies overlays: virtmgr's, whose fragments name their target by path, and those that refer to
//! the tree by phandle or by a label of its own.

mod fixups;

use super::read::{self, ReadError};
use super::tree::Node;
use thiserror::Error;

/// The node whose properties are labels, and the paths of the nodes that have them.
pub const SYMBOLS: &str = "__symbols__";

/// Why an overlay cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OverlayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It refers to a label that the tree does not have.
    #[error("there is no label {0}: overlays can refer to those in /__symbols__")]
    NoSuchLabel(String),
    /// A list of its references points to where none is.
    #[error("damaged: there is no reference at {0}")]
    Fixup(String),
    /// A fragment does not say where it goes.
    #[error("{0} has neither target nor target-path")]
    NoTarget(String),
    /// A fragment goes where nothing is.
    #[error("there is no {0}")]
    NoSuchNode(String),
}

/// Applies the overlay in `blob` to the tree at `root`.
pub fn apply(root: &mut Node, blob: &[u8]) -> Result<(), OverlayError> {
    let mut overlay = read::read(blob)?;
    fixups::resolve(&mut overlay, root)?;
    for fragment in overlay.children() {
        if let Some(contents) = fragment.find("__overlay__") {
            target(root, fragment)?.merge(contents);
        }
    }
    Ok(())
}

/// Where a fragment goes.
fn target<'a>(root: &'a mut Node, fragment: &Node) -> Result<&'a mut Node, OverlayError> {
    if let Some(phandle) = fragment.property("target").and_then(fixups::cell) {
        let missing = || OverlayError::NoSuchNode(format!("node with phandle {phandle:#x}"));
        return with_phandle(root, phandle).ok_or_else(missing);
    }
    let path = fragment.property("target-path").and_then(text);
    let path = path.ok_or_else(|| OverlayError::NoTarget(fragment.name().into()))?;
    root.find_mut(path).ok_or_else(|| OverlayError::NoSuchNode(path.into()))
}

fn with_phandle(node: &mut Node, phandle: u32) -> Option<&mut Node> {
    match fixups::phandle(node) == Some(phandle) {
        true => Some(node),
        false => node.children_mut().find_map(|child| with_phandle(child, phandle)),
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree() -> Node {
        let mut root = Node::new("");
        root.child("avf").set_cells("old", &[1]);
        root.child("intc").set_cells("phandle", &[1]);
        root.child(SYMBOLS).set_strings("intc", &["/intc"]);
        root.child("clock").set_cells("phandle", &[24]);
        root
    }

    fn overlay(target: &str) -> Node {
        let mut overlay = Node::new("");
        let fragment = overlay.child("fragment@0");
        fragment.set_strings("target-path", &[target]);
        fragment
            .child("__overlay__")
            .child("avf")
            .set_cells("old", &[2])
            .child("untrusted")
            .set_bytes("instance-id", vec![7; 64]);
        overlay
    }

    fn applied(overlay: &Node) -> Result<Node, OverlayError> {
        let mut root = tree();
        apply(&mut root, &overlay.to_blob())?;
        Ok(root)
    }

    #[test]
    fn contents_are_merged() {
        let root = applied(&overlay("/")).unwrap();
        let avf = root.find("avf").unwrap();
        assert_eq!(avf.property("old"), Some(&[0, 0, 0, 2][..]));
        assert_eq!(avf.find("untrusted").unwrap().property("instance-id"), Some(&[7; 64][..]));
        assert!(root.find("intc").is_some());
        let deeper = applied(&overlay("/clock")).unwrap();
        assert!(deeper.find("clock/avf/untrusted").is_some());
    }

    /// As `dtc -@` makes it of a device with a regulator, both new, at the label `intc`.
    fn with_references() -> Node {
        let mut overlay = Node::new("");
        let fragment = overlay.child("fragment@0").set_cells("target", &[u32::MAX]);
        let contents = fragment.child("__overlay__");
        contents.child("regulator").set_cells("phandle", &[1]);
        contents
            .child("device")
            .set_cells("interrupts-extended", &[u32::MAX, 0, 7, 4])
            .set_cells("supplies", &[0, 1]);
        let places =
            ["/fragment@0:target:0", "/fragment@0/__overlay__/device:interrupts-extended:0"];
        overlay.child("__fixups__").set_strings("intc", &places);
        let local = overlay.child("__local_fixups__").child("fragment@0").child("__overlay__");
        local.child("device").set_cells("supplies", &[4]);
        overlay
    }

    #[test]
    fn references_are_filled_in_and_phandles_do_not_collide() {
        let root = applied(&with_references()).unwrap();
        let cells = |path: &str, name: &str| -> Vec<u32> {
            let value = root.find(path).unwrap().property(name).unwrap();
            value.chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect()
        };
        assert_eq!(cells("/intc/regulator", "phandle"), [25], "24 is the tree's largest");
        assert_eq!(cells("/intc/device", "supplies"), [0, 25], "only the second is a reference");
        assert_eq!(cells("/intc/device", "interrupts-extended"), [1, 0, 7, 4]);
        assert_eq!(cells("/clock", "phandle"), [24]);
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        assert_eq!(applied(&overlay("/nope")), Err(OverlayError::NoSuchNode("/nope".into())));
        let mut by_phandle = overlay("/");
        by_phandle.child("fragment@0").set_cells("target", &[9]);
        let error = applied(&by_phandle).unwrap_err().to_string();
        assert_eq!(error, "there is no node with phandle 0x9");
        let mut label = with_references();
        label.child("__fixups__").set_strings("uart", &["/fragment@0:target:0"]);
        assert_eq!(applied(&label), Err(OverlayError::NoSuchLabel("uart".into())));
        for place in ["", "x", "/fragment@0:target", "/fragment@0:target:1", "/none:target:0"] {
            let mut wrong = with_references();
            wrong.child("__fixups__").set_strings("intc", &[place]);
            let error = applied(&wrong).map(drop);
            match place {
                // Then the target is still the compiler's placeholder.
                "" => assert!(matches!(error, Err(OverlayError::NoSuchNode(_)))),
                _ => assert!(matches!(error, Err(OverlayError::Fixup(_))), "{place}: {error:?}"),
            }
        }
        let mut nowhere = with_references();
        let local = nowhere.child("__local_fixups__").child("fragment@0").child("__overlay__");
        local.child("device").set_cells("supplies", &[5]);
        assert_eq!(applied(&nowhere), Err(OverlayError::Fixup("device:supplies:5".into())));
        assert!(matches!(apply(&mut tree(), b"junk"), Err(OverlayError::Read(_))));
    }

    proptest! {
        #[test]
        fn any_damage_is_survived(changes in proptest::collection::vec((0_usize..700, any::<u8>()), 1..8)) {
            let mut blob = with_references().to_blob();
            for (at, byte) in changes {
                if let Some(place) = blob.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = apply(&mut tree(), &blob);
        }
    }
}
