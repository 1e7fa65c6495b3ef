// SPDX-License-Identifier: Apache-2.0
//! A device tree in memory: nodes with properties and children, in the order in which they were
//! added.

use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// Characters in a property's name, at most (Devicetree Specification v0.4, 2.2.4.1).
const LONGEST_NAME: usize = 31;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    name: String,
    properties: Vec<(String, Vec<u8>)>,
    children: Vec<Node>,
}

impl Node {
    /// A node without contents; `name` includes the unit address. The root's name is empty.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets a property, replacing one of the same name.
    pub fn set_bytes(&mut self, name: &str, value: Vec<u8>) -> &mut Self {
        match self.properties.iter_mut().find(|(n, _)| n == name) {
            Some(property) => property.1 = value,
            None => self.properties.push((name.into(), value)),
        }
        self
    }

    /// A property without value.
    pub fn set_flag(&mut self, name: &str) -> &mut Self {
        self.set_bytes(name, Vec::new())
    }

    /// A property of 32-bit cells.
    pub fn set_cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        self.set_bytes(name, cells.iter().flat_map(|cell| cell.to_be_bytes()).collect())
    }

    /// A property of pairs of cells: addresses and sizes where both have two cells.
    pub fn set_pairs(&mut self, name: &str, values: &[u64]) -> &mut Self {
        self.set_bytes(name, values.iter().flat_map(|value| value.to_be_bytes()).collect())
    }

    /// A property of strings.
    pub fn set_strings(&mut self, name: &str, values: &[&str]) -> &mut Self {
        let with_end = |value: &&str| value.bytes().chain([0]).collect::<Vec<u8>>();
        self.set_bytes(name, values.iter().flat_map(with_end).collect())
    }

    /// The child of this name, made if it does not exist.
    pub fn child(&mut self, name: &str) -> &mut Node {
        let at = match self.children.iter().position(|child| child.name == name) {
            Some(at) => at,
            None => {
                self.children.push(Node::new(name));
                self.children.len() - 1
            }
        };
        &mut self.children[at]
    }

    /// Adds a child, or merges it into one of the same name.
    pub fn add(&mut self, node: Node) {
        match self.children.iter_mut().find(|child| child.name == node.name) {
            Some(child) => child.merge(&node),
            None => self.children.push(node),
        }
    }

    /// Takes over properties and children of `other`, whose values win.
    pub fn merge(&mut self, other: &Node) {
        for (name, value) in &other.properties {
            self.set_bytes(name, value.clone());
        }
        other.children.iter().for_each(|child| self.add(child.clone()));
    }

    /// Its name, with the unit address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its children.
    pub fn children(&self) -> &[Node] {
        &self.children
    }

    /// The same, to be changed.
    pub fn children_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.children.iter_mut()
    }

    /// Names and values of its properties.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.properties.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        self.properties.iter().find(|(n, _)| n == name).map(|(_, value)| &value[..])
    }

    /// The same, to be changed.
    pub fn property_mut(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        self.properties.iter_mut().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The node at `path`, seen from this one.
    pub fn find(&self, path: &str) -> Option<&Node> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(self, |node, name| node.children.iter().find(|child| child.name == name))
    }

    /// The same, to be changed.
    pub fn find_mut(&mut self, path: &str) -> Option<&mut Node> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(self, |node, name| node.children.iter_mut().find(|c| c.name == name))
    }

    /// The tree as a flattened device tree.
    pub fn to_blob(&self) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        tree.root = self.model();
        tree.to_dtb()
    }

    /// The same without properties whose names are longer than the Devicetree Specification allows:
    /// for readers that refuse them. `None` if there are none.
    pub fn without_long_names(&self) -> Option<Node> {
        let mut short = self.clone();
        short.drop_long_names().then_some(short)
    }

    fn drop_long_names(&mut self) -> bool {
        let before = self.properties.len();
        self.properties.retain(|(name, _)| name.len() <= LONGEST_NAME);
        let here = self.properties.len() < before;
        self.children.iter_mut().fold(here, |found, child| child.drop_long_names() || found)
    }

    /// Names are as they are: hosts have longer ones than the Devicetree Specification allows (31
    /// characters; AVF's `vendor_hashtree_descriptor_root_digest` has 38), and so have overlays.
    fn model(&self) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new_unchecked(&*self.name);
        for (name, value) in &self.properties {
            node.add_property(DeviceTreeProperty::new_unchecked(&**name, value.clone()));
        }
        self.children.iter().for_each(|child| node.add_child(child.model()));
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::fdt::Fdt;
    use dtoolkit::{Node as _, Property as _};

    #[test]
    fn what_is_set_can_be_read_back() {
        let mut root = Node::new("");
        root.set_cells("#address-cells", &[2]);
        root.child("a@1").set_strings("compatible", &["x,y", "z"]).set_flag("on");
        root.child("a@1").child("b").set_pairs("reg", &[0x1_0000_0002, 3]);
        root.child("a@1").set_cells("n", &[1]).set_cells("n", &[5]);
        let blob = root.to_blob();
        let fdt = Fdt::new(&blob).unwrap();
        let a = fdt.find_node("/a@1").unwrap();
        assert_eq!(a.property("compatible").unwrap().value(), b"x,y\0z\0");
        assert_eq!(a.property("n").unwrap().value(), [0, 0, 0, 5], "replaced, not repeated");
        assert!(a.property("on").unwrap().value().is_empty());
        let b = fdt.find_node("/a@1/b").unwrap();
        assert_eq!(
            b.property("reg").unwrap().value(),
            [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
        );
    }

    #[test]
    fn names_may_be_long() {
        let name = "vendor_hashtree_descriptor_root_digest";
        let mut root = Node::new("");
        root.child("a-node-whose-name-has-more-than-31-characters").set_cells(name, &[7]);
        assert_eq!(super::super::read::read(&root.to_blob()), Ok(root.clone()));
        let short = root.without_long_names().unwrap();
        assert_eq!(short.children().len(), 1);
        assert_eq!(short.children()[0].properties().count(), 0);
        assert_eq!(short.without_long_names(), None);
    }
}
