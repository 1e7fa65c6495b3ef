// SPDX-License-Identifier: Apache-2.0
//! The Merkle tree of fs-verity (Documentation/filesystems/fsverity.rst): SHA-256, blocks of 4 KiB, no
//! salt.

use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Bytes in a block of data or hashes.
const BLOCK: usize = 4096;
/// Bytes of a hash.
const HASH: usize = 32;

/// A tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashTree {
    /// Hash of the first block of the top level; of the only block, if there is one; zero if there is
    /// none.
    pub root: [u8; HASH],
    /// All levels, the top one first, each in whole blocks. Empty if there is no more than a block.
    pub levels: Vec<u8>,
}

impl HashTree {
    /// Reads everything and hashes it.
    pub fn of(input: &mut impl Read) -> io::Result<Self> {
        let mut level = Vec::new();
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            block.clear();
            let read = input.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            if read == 0 {
                break;
            }
            level.extend(hash(&block));
        }
        let mut levels: Vec<Vec<u8>> = Vec::new();
        while level.len() > HASH {
            let above = level.chunks(BLOCK).flat_map(hash).collect();
            level.resize(level.len().next_multiple_of(BLOCK), 0);
            levels.push(level);
            level = above;
        }
        let mut root = [0; HASH];
        root.iter_mut().zip(level).for_each(|(to, from)| *to = from);
        levels.reverse();
        Ok(Self { root, levels: levels.concat() })
    }
}

/// The hash of a block, which zeros fill up.
fn hash(block: &[u8]) -> [u8; HASH] {
    let mut hasher = Sha256::new();
    hasher.update(block);
    hasher.update([0; BLOCK].get(block.len()..).unwrap_or_default());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest that fs-verity gives a file: of its descriptor, which holds the root
    /// (`struct fsverity_descriptor`, include/uapi/linux/fsverity.h).
    fn measured(size: usize, byte: impl Fn(usize) -> u8) -> String {
        let data: Vec<u8> = (0..size).map(byte).collect();
        let tree = HashTree::of(&mut data.as_slice()).unwrap();
        let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0];
        descriptor.extend(u64::try_from(size).unwrap().to_le_bytes());
        descriptor.extend(tree.root);
        descriptor.resize(256, 0);
        hash_of(&descriptor)
    }

    fn hash_of(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_are_those_of_fsverity() {
        // From `fsverity digest` (fsverity-utils 1.5).
        let byte = |at: usize| u8::try_from(at * 7 % 251).unwrap();
        for (size, digest) in [
            (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
            (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
            (4096, "258b680fa93e3bfc1586d9b439d29a2172bd0db550fe7da1272fd8120d801182"),
            (10_000, "a113685529ffb9434aa4b55f9e84c9ca21d57da4ccd7e8ade5fda97f380bdee8"),
            (600_000, "a5bf79b7ed19247ef6a89aa83573d19237bf7815d2b3d4bca00c73e7812cf546"),
        ] {
            assert_eq!(measured(size, byte), digest, "{size} bytes");
        }
    }

    #[test]
    fn levels_are_whole_blocks_from_the_top() {
        let data = vec![1; 129 * BLOCK];
        let tree = HashTree::of(&mut data.as_slice()).unwrap();
        assert_eq!(tree.levels.len(), 3 * BLOCK);
        assert_eq!(tree.root, hash(&tree.levels[..BLOCK]));
        assert_eq!(tree.levels[..HASH], hash(&tree.levels[BLOCK..2 * BLOCK]));
        assert_eq!(tree.levels[2 * BLOCK + HASH..], [0; BLOCK - HASH]);
        assert!(HashTree::of(&mut &data[..BLOCK]).unwrap().levels.is_empty());
    }
}
