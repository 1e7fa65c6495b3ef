// SPDX-License-Identifier: Apache-2.0
//! Reads a flattened device tree (Devicetree Specification v0.4, 5) into a [`Node`]. The blob comes
//! from outside: every offset is checked, and depth and size are bounded.

use super::tree::Node;
use thiserror::Error;

const MAGIC: u32 = 0xd00d_feed;
/// The version whose layout is read.
const VERSION: u32 = 17;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Nodes inside of each other; no real tree comes near.
const DEPTH_LIMIT: usize = 32;

/// Why a blob is no device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It starts with something else.
    #[error("not a device tree blob")]
    Magic,
    /// It is of a version with another layout.
    #[error("device tree version {0} is not known")]
    Version(u32),
    /// It ends early, or contradicts itself.
    #[error("damaged at byte {0}")]
    Damaged(usize),
    /// Its nodes are nested too deeply.
    #[error("nested too deeply")]
    Depth,
}

/// Reads the tree in `blob`; what follows it is ignored.
pub fn read(blob: &[u8]) -> Result<Node, ReadError> {
    let header = |index: usize| Reader { blob, at: 4 * index }.word();
    if header(0).map_err(|_| ReadError::Magic)? != MAGIC {
        return Err(ReadError::Magic);
    }
    let compatible = header(6)?;
    if compatible > VERSION {
        return Err(ReadError::Version(compatible));
    }
    let offset = |index| usize::try_from(header(index)?).map_err(|_| ReadError::Damaged(4 * index));
    let size = offset(1)?;
    let blob = blob.get(..size).ok_or(ReadError::Damaged(4))?;
    let strings = offset(3)?;
    Reader { blob, at: offset(2)? }.tree(strings)
}

struct Reader<'a> {
    blob: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn damaged(&self) -> ReadError {
        ReadError::Damaged(self.at)
    }

    fn tree(mut self, strings: usize) -> Result<Node, ReadError> {
        let mut open: Vec<Node> = Vec::new();
        loop {
            match self.word()? {
                NOP => {}
                BEGIN_NODE if open.len() == DEPTH_LIMIT => return Err(ReadError::Depth),
                BEGIN_NODE => {
                    let name = self.string(self.at)?;
                    self.skip(name.len() + 1)?;
                    open.push(Node::new(name));
                }
                PROPERTY => {
                    let (len, name) = (self.word()?, self.word()?);
                    let len = usize::try_from(len).map_err(|_| self.damaged())?;
                    let name = usize::try_from(name).ok().and_then(|n| strings.checked_add(n));
                    let name = self.string(name.ok_or(self.damaged())?)?;
                    let value = self.blob.get(self.at..).and_then(|rest| rest.get(..len));
                    let value = value.ok_or(self.damaged())?.to_vec();
                    self.skip(len)?;
                    open.last_mut().ok_or(self.damaged())?.set_bytes(name, value);
                }
                END_NODE => {
                    let node = open.pop().ok_or(self.damaged())?;
                    match open.last_mut() {
                        Some(parent) => parent.add(node),
                        None if self.word()? == END => return Ok(node),
                        None => return Err(self.damaged()),
                    }
                }
                _ => return Err(self.damaged()),
            }
        }
    }

    fn word(&mut self) -> Result<u32, ReadError> {
        let bytes = self.blob.get(self.at..).and_then(|rest| rest.first_chunk());
        let word = u32::from_be_bytes(*bytes.ok_or(self.damaged())?);
        self.at += 4;
        Ok(word)
    }

    /// Passes `len` bytes and their padding to a whole word.
    fn skip(&mut self, len: usize) -> Result<(), ReadError> {
        let padded = len.checked_next_multiple_of(4).ok_or(self.damaged())?;
        self.at = self.at.checked_add(padded).ok_or(self.damaged())?;
        Ok(())
    }

    fn string(&self, at: usize) -> Result<&'a str, ReadError> {
        let rest = self.blob.get(at..).ok_or(self.damaged())?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or(self.damaged())?;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Node {
        let mut root = Node::new("");
        root.set_cells("#address-cells", &[2]).set_flag("empty");
        root.child("a@1").set_strings("s", &["x", "yz"]).child("b").set_bytes("odd", vec![1, 2, 3]);
        root.child("c");
        root
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&sample().to_blob()), Ok(sample()));
    }

    #[test]
    fn other_things_are_refused() {
        assert_eq!(read(b""), Err(ReadError::Magic));
        assert_eq!(read(&[0; 100]), Err(ReadError::Magic));
        let mut blob = sample().to_blob();
        blob[27] = 18;
        assert_eq!(read(&blob), Err(ReadError::Version(18)));
        let mut deep = Node::new("");
        (0..40).fold(&mut deep, |node, _| node.child("n"));
        assert_eq!(read(&deep.to_blob()), Err(ReadError::Depth));
    }

    proptest! {
        #[test]
        fn damage_is_survived(at in 0_usize..300, byte: u8, cut in 0_usize..300) {
            let mut blob = sample().to_blob();
            blob.truncate(blob.len().saturating_sub(cut));
            if let Some(place) = blob.get_mut(at) {
                *place = byte;
            }
            let _ = read(&blob);
        }
    }
}
