// SPDX-License-Identifier: Apache-2.0
//! Reading: nodes by compatible string, properties by exact size, as libfdt's callers do.

use crate::fault::Fault;
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// Nodes inside of each other that are looked into; crosvm's trees have three levels.
const DEPTH: usize = 8;

/// A tree that can be parsed.
pub(crate) struct Tree<'a>(pub Fdt<'a>);

impl<'a> Tree<'a> {
    /// The node at `path`.
    pub fn node(&self, path: &'static str) -> Option<FdtNode<'a>> {
        self.0.find_node(path)
    }

    /// The first node, in the tree's order, that is compatible with `what`.
    pub fn compatible(&self, what: &'static str) -> Result<FdtNode<'a>, Fault> {
        let mut found = None;
        visit(self.0.root(), DEPTH, &mut |node| {
            if found.is_none() && node.is_compatible(what) {
                found = Some(node);
            }
        });
        found.ok_or(Fault::Missing(what))
    }

    /// Calls `each` for all nodes that are compatible with `what`.
    pub fn each_compatible(&self, what: &str, mut each: impl FnMut(FdtNode<'a>)) {
        visit(self.0.root(), DEPTH, &mut |node| {
            if node.is_compatible(what) {
                each(node);
            }
        });
    }
}

fn visit<'a>(node: FdtNode<'a>, depth: usize, each: &mut dyn FnMut(FdtNode<'a>)) {
    each(node);
    if let Some(depth) = depth.checked_sub(1) {
        node.children().for_each(|child| visit(child, depth, each));
    }
}

/// The value of a property.
pub(crate) fn value<'a>(node: FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    let property = node.properties().find(|property| property.name() == name)?;
    property.value_as().ok()
}

/// A property of one cell.
pub(crate) fn cell(node: FdtNode<'_>, name: &str) -> Option<u32> {
    value(node, name)?.try_into().ok().map(u32::from_be_bytes)
}

/// A property of two cells.
pub(crate) fn pair(node: FdtNode<'_>, name: &str) -> Option<u64> {
    value(node, name)?.try_into().ok().map(u64::from_be_bytes)
}

/// A property of `N`-cell entries; `None` if it is missing or something is left over.
pub(crate) fn entries<'a, const N: usize>(
    node: FdtNode<'a>,
    name: &str,
) -> Option<impl Iterator<Item = [u32; N]> + 'a> {
    let bytes = value(node, name)?;
    let size = 4 * N;
    (bytes.len() % size == 0).then(|| {
        bytes.chunks_exact(size).map(|entry| {
            let mut words = entry.chunks_exact(4).filter_map(|word| word.try_into().ok());
            [(); N].map(|()| words.next().map_or(0, u32::from_be_bytes))
        })
    })
}

/// Two cells as a number.
pub(crate) fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The ranges of `reg`, at most the first two: start and size.
pub(crate) fn registers(node: FdtNode<'_>) -> [Option<(u64, u64)>; 2] {
    let mut ranges = node.reg().ok().flatten().into_iter().flatten();
    [(); 2].map(|()| {
        let range = ranges.next()?;
        Some((range.address().ok()?, range.size().ok()?))
    })
}

/// `size` bytes from `start` on, if that does not overflow.
pub(crate) fn range(start: u64, size: u64) -> Option<Range<u64>> {
    Some(start..start.checked_add(size)?)
}
