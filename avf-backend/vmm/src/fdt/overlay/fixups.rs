// SPDX-License-Identifier: Apache-2.0
//! Phandles of an overlay (Devicetree Specification v0.4, 2.3.3, and dtc's dt-object-internal.txt):
//! its own must not collide with the tree's, and references to labels of the tree are filled in.

use super::super::tree::Node;
use super::{text, OverlayError, SYMBOLS};

/// The properties that give a node its phandle.
const PHANDLES: [&str; 2] = ["phandle", "linux,phandle"];
/// Bytes of a cell.
const CELL: usize = 4;

/// Gives `overlay` the phandles that it has in the tree at `base`.
pub fn resolve(overlay: &mut Node, base: &Node) -> Result<(), OverlayError> {
    let shift = largest(base);
    for fragment in overlay.children_mut().filter(|node| !node.name().starts_with("__")) {
        move_phandles(fragment, shift)?;
    }
    if let Some(local) = overlay.find("__local_fixups__").cloned() {
        move_references(overlay, &local, shift)?;
    }
    if let Some(fixups) = overlay.find("__fixups__").cloned() {
        for (label, places) in fixups.properties() {
            let phandle = labelled(base, label)?;
            for place in places.split(|&byte| byte == 0).filter(|place| !place.is_empty()) {
                fill_in(overlay, place, phandle)?;
            }
        }
    }
    Ok(())
}

/// The phandle of a node, if it has one.
pub fn phandle(node: &Node) -> Option<u32> {
    PHANDLES.iter().find_map(|name| cell(node.property(name)?))
}

/// A property's value of one cell.
pub fn cell(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn largest(node: &Node) -> u32 {
    let below = node.children().iter().map(largest);
    below.chain(phandle(node)).max().unwrap_or(0)
}

fn move_phandles(node: &mut Node, shift: u32) -> Result<(), OverlayError> {
    for name in PHANDLES {
        if node.property(name).is_some() {
            change(node, name, 0, |own| own.checked_add(shift))?;
        }
    }
    node.children_mut().try_for_each(|child| move_phandles(child, shift))
}

/// `local` mirrors the overlay; its properties are offsets of references in those of the same name.
fn move_references(node: &mut Node, local: &Node, shift: u32) -> Result<(), OverlayError> {
    for (name, offsets) in local.properties() {
        for offset in offsets.chunks(CELL) {
            let offset = cell(offset).and_then(|offset| usize::try_from(offset).ok());
            let offset = offset.ok_or_else(|| OverlayError::Fixup(name.into()))?;
            change(node, name, offset, |own| own.checked_add(shift))?;
        }
    }
    for local in local.children() {
        let name = local.name();
        let child = node.find_mut(name).ok_or_else(|| OverlayError::NoSuchNode(name.into()))?;
        move_references(child, local, shift)?;
    }
    Ok(())
}

fn labelled(base: &Node, label: &str) -> Result<u32, OverlayError> {
    let path = base.find(SYMBOLS).and_then(|symbols| text(symbols.property(label)?));
    let node = path.and_then(|path| base.find(path));
    node.and_then(phandle).ok_or_else(|| OverlayError::NoSuchLabel(label.into()))
}

/// Writes `phandle` to a place that is given as `path:property:offset`.
fn fill_in(overlay: &mut Node, place: &[u8], phandle: u32) -> Result<(), OverlayError> {
    let wrong = || OverlayError::Fixup(String::from_utf8_lossy(place).into_owned());
    let text = std::str::from_utf8(place).map_err(|_| wrong())?;
    let (rest, offset) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (path, property) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let offset = offset.parse().map_err(|_| wrong())?;
    let node = overlay.find_mut(path).ok_or_else(wrong)?;
    change(node, property, offset, |_| Some(phandle))
}

/// Changes the cell at `offset` of a property.
fn change(
    node: &mut Node,
    property: &str,
    offset: usize,
    new: impl FnOnce(u32) -> Option<u32>,
) -> Result<(), OverlayError> {
    let value = node.property_mut(property).and_then(|value| value.get_mut(offset..));
    let bytes = value.and_then(|rest| rest.first_chunk_mut::<CELL>());
    let changed = bytes.and_then(|bytes| {
        *bytes = new(u32::from_be_bytes(*bytes))?.to_be_bytes();
        Some(())
    });
    changed.ok_or_else(|| OverlayError::Fixup(format!("{}:{property}:{offset}", node.name())))
}
