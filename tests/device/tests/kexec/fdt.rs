// SPDX-License-Identifier: Apache-2.0
//! The one change to a flattened device tree that a new kernel needs: where its initramfs is.

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

fn word(tree: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(tree.get(at..at + 4)?.try_into().ok()?))
}

fn offset(tree: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word(tree, at)?).ok()
}

fn text(tree: &[u8], at: usize) -> Option<&[u8]> {
    tree.get(at..)?.split(|byte| *byte == 0).next()
}

/// Place and size of the value of the first property with this name, in any node.
fn find(tree: &[u8], name: &str) -> Option<(usize, usize)> {
    // Offsets of the header's fields: structure block, strings block.
    let (mut at, strings) = (offset(tree, 8)?, offset(tree, 12)?);
    loop {
        let token = word(tree, at)?;
        at += 4;
        match token {
            BEGIN_NODE => at += (text(tree, at)?.len() + 4) & !3,
            END_NODE | NOP => {}
            PROPERTY => {
                let (size, label) = (offset(tree, at)?, offset(tree, at + 4)?);
                if text(tree, strings + label)? == name.as_bytes() {
                    return Some((at + 8, size));
                }
                at += 8 + ((size + 3) & !3);
            }
            _ => return None,
        }
    }
}

/// Replaces the number in a property, of one or of two cells.
pub fn set(tree: &mut [u8], name: &str, value: u64) -> Option<()> {
    let (at, size) = find(tree, name)?;
    let bytes = value.to_be_bytes();
    tree.get_mut(at..at + size)?.copy_from_slice(bytes.get(8 - size..)?);
    Some(())
}
