// SPDX-License-Identifier: Apache-2.0
//! The device tree, as far as this guest needs it.

use core::fmt;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};

/// What the guest wants to know about its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    /// Address of PCI's configuration space (CAM).
    pub cam: u64,
    /// First address behind the first range of RAM.
    pub memory_end: u64,
    /// Whether firmware ran before, and asks for a strict boot.
    pub strict_boot: bool,
    /// The command line.
    pub command_line: &'a str,
}

/// What a device tree lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing(
    /// A node or property.
    pub &'static str,
);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device tree has no {}", self.0)
    }
}

impl<'a> Machine<'a> {
    /// Reads the device tree. AOSP's guests demand the node `/avf`, so does this one.
    ///
    /// # Errors
    ///
    /// What is missing from it.
    pub fn from_device_tree(dtb: &'a [u8]) -> Result<Self, Missing> {
        let fdt = Fdt::new(dtb).map_err(|_| Missing("contents that can be parsed"))?;
        let child = |name: &'static str| {
            fdt.root().children().find(|node| node.name_without_address() == name)
        };
        child("avf").ok_or(Missing("node /avf"))?;
        let chosen = child("chosen").ok_or(Missing("node /chosen"))?;
        let pci = fdt.root().children().find(|node| node.is_compatible("pci-host-cam-generic"));
        let (cam, _) = pci.and_then(range).ok_or(Missing("PCI host"))?;
        let (start, size) = child("memory").and_then(range).ok_or(Missing("memory"))?;
        let property = |name| chosen.properties().find(|property| property.name() == name);
        Ok(Self {
            cam,
            memory_end: start.checked_add(size).ok_or(Missing("end of memory"))?,
            strict_boot: property("avf,strict-boot").is_some(),
            command_line: property("bootargs").and_then(|p| p.value_as().ok()).unwrap_or(""),
        })
    }

    /// The word of the command line that follows `name=`.
    pub fn word(&self, name: &str) -> Option<&'a str> {
        let mut words = self.command_line.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A node's first range: address and size.
fn range(node: FdtNode<'_>) -> Option<(u64, u64)> {
    let first = node.reg().ok().flatten()?.next()?;
    Some((first.address().ok()?, first.size().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_by_name() {
        let machine =
            Machine { cam: 0, memory_end: 0, strict_boot: false, command_line: "a=1 bc=2" };
        assert_eq!(
            (machine.word("bc"), machine.word("b"), machine.word("c")),
            (Some("2"), None, None)
        );
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        assert!(Machine::from_device_tree(&[]).is_err());
        assert!(Machine::from_device_tree(&[0xd0; 64]).is_err());
    }
}
