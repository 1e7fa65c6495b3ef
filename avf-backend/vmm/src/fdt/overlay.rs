// SPDX-License-Identifier: Apache-2.0
//! Applies overlays as virtmgr makes them: fragments that name their target by path and refer to
//! nothing else in the tree.

use super::read::{self, ReadError};
use super::tree::Node;
use thiserror::Error;

/// Why an overlay cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OverlayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It needs more than is done here.
    #[error("{0}: overlays that refer to the tree by phandle or label are not supported")]
    References(String),
    /// A fragment does not say where it goes.
    #[error("{0} has no target-path")]
    NoTarget(String),
    /// A fragment goes where nothing is.
    #[error("there is no {0}")]
    NoSuchNode(String),
}

/// Applies the overlay in `blob` to the tree at `root`.
pub fn apply(root: &mut Node, blob: &[u8]) -> Result<(), OverlayError> {
    let overlay = read::read(blob)?;
    for name in ["__fixups__", "__local_fixups__"] {
        if overlay.find(name).is_some_and(|node| !node.is_empty()) {
            return Err(OverlayError::References(name.into()));
        }
    }
    for fragment in overlay.children() {
        let Some(contents) = fragment.find("__overlay__") else { continue };
        let name = fragment.name();
        if fragment.property("target").is_some() {
            return Err(OverlayError::References(name.into()));
        }
        let path = fragment.property("target-path").and_then(text);
        let path = path.ok_or_else(|| OverlayError::NoTarget(name.into()))?;
        let target = root.find_mut(path).ok_or_else(|| OverlayError::NoSuchNode(path.into()))?;
        target.merge(contents);
    }
    Ok(())
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A blob with names that the writer refuses: `xx` at both ends of a name becomes `__`.
    pub fn blob(overlay: &Node) -> Vec<u8> {
        let mut blob = overlay.to_blob().unwrap();
        for name in ["xxoverlayxx", "xxfixupsxx"] {
            let real = name.replace("xx", "__");
            let places: Vec<usize> = (0..blob.len() - name.len())
                .filter(|&at| blob[at..].starts_with(name.as_bytes()))
                .collect();
            for at in places {
                blob[at..at + name.len()].copy_from_slice(real.as_bytes());
            }
        }
        blob
    }

    fn tree() -> Node {
        let mut root = Node::new("");
        root.child("avf").set_cells("old", &[1]);
        root.child("memory@80000000");
        root
    }

    fn overlay(target: &str) -> Node {
        let mut overlay = Node::new("");
        let fragment = overlay.child("fragment@0");
        fragment.set_strings("target-path", &[target]);
        fragment
            .child("xxoverlayxx")
            .child("avf")
            .set_cells("old", &[2])
            .child("untrusted")
            .set_bytes("instance-id", vec![7; 64]);
        overlay
    }

    fn applied(overlay: &Node) -> Result<Node, OverlayError> {
        let mut root = tree();
        apply(&mut root, &blob(overlay))?;
        Ok(root)
    }

    #[test]
    fn contents_are_merged() {
        let root = applied(&overlay("/")).unwrap();
        let avf = root.find("avf").unwrap();
        assert_eq!(avf.property("old"), Some(&[0, 0, 0, 2][..]));
        assert_eq!(avf.find("untrusted").unwrap().property("instance-id"), Some(&[7; 64][..]));
        assert!(root.find("memory@80000000").is_some());
        let deeper = applied(&overlay("/memory@80000000")).unwrap();
        assert!(deeper.find("memory@80000000/avf/untrusted").is_some());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        assert_eq!(applied(&overlay("/nope")), Err(OverlayError::NoSuchNode("/nope".into())));
        let mut by_phandle = overlay("/");
        by_phandle.child("fragment@0").set_cells("target", &[1]);
        assert_eq!(applied(&by_phandle), Err(OverlayError::References("fragment@0".into())));
        let mut fixups = overlay("/");
        fixups.child("xxfixupsxx").set_strings("gic", &["/fragment@0:target:0"]);
        assert_eq!(applied(&fixups), Err(OverlayError::References("__fixups__".into())));
        assert!(matches!(apply(&mut tree(), b"junk"), Err(OverlayError::Read(_))));
    }
}
