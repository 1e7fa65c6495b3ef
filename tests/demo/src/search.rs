// SPDX-License-Identifier: Apache-2.0
//! Searching dumps for a secret.

use crate::dump::{Dump, PAGE};
use memchr::memmem;
use sha2::{Digest, Sha256};

/// Bytes of the secret that count as having found some of it. The chance that so many random bytes
/// occur in a dump by accident is nil.
const PIECE: usize = 16;

/// Offsets of the pages whose SHA-256 hash is `hash`.
pub fn pages_with_hash(dump: &Dump, hash: &[u8; 32]) -> Vec<u64> {
    let matches = |page: &[u8]| Sha256::digest(page).as_slice() == hash;
    dump.pages.iter().filter(|(_, page)| matches(page)).map(|(&offset, _)| offset).collect()
}

/// Pieces of the secret that occur anywhere in the dump, and how many there are.
pub fn pieces_found(dump: &Dump, secret: &[u8]) -> (usize, usize) {
    let runs = runs(dump);
    let found = |piece: &&[u8]| {
        let finder = memmem::Finder::new(piece);
        runs.iter().any(|run| finder.find(run).is_some())
    };
    let pieces = secret.chunks_exact(PIECE);
    (pieces.clone().filter(found).count(), pieces.len())
}

/// The dump's contents, neighbouring pages joined.
fn runs(dump: &Dump) -> Vec<Vec<u8>> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (&offset, page) in &dump.pages {
        match runs.last_mut() {
            Some((end, run)) if *end == offset => {
                run.extend_from_slice(page);
                *end += PAGE;
            }
            _ => runs.push((offset + PAGE, page.clone())),
        }
    }
    runs.into_iter().map(|(_, run)| run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that do not repeat.
    fn secret() -> Vec<u8> {
        (0_u32..128).flat_map(|i| Sha256::digest(i.to_le_bytes())).collect()
    }

    fn dump(pages: &[(u64, Vec<u8>)]) -> Dump {
        Dump { pages: pages.iter().cloned().collect(), refused: 0 }
    }

    #[test]
    fn a_secret_is_found_whole_in_part_and_across_pages() {
        let secret = secret();
        let hash = Sha256::digest(&secret).into();
        let zeros = vec![0; 4096];
        let whole = dump(&[(0, zeros.clone()), (PAGE, secret.clone())]);
        assert_eq!(pages_with_hash(&whole, &hash), [PAGE]);
        assert_eq!(pieces_found(&whole, &secret), (256, 256));

        let mut across = zeros.repeat(2);
        across[4000..4000 + 4096].copy_from_slice(&secret);
        let across = dump(&[(0, across[..4096].to_vec()), (PAGE, across[4096..].to_vec())]);
        assert_eq!(pages_with_hash(&across, &hash), []);
        assert_eq!(pieces_found(&across, &secret), (256, 256));

        let mut some = zeros.clone();
        some[7..23].copy_from_slice(&secret[160..176]);
        assert_eq!(pieces_found(&dump(&[(0, some)]), &secret), (1, 256));

        assert_eq!(pieces_found(&dump(&[(0, zeros)]), &secret), (0, 256));
    }

    #[test]
    fn pages_that_are_not_neighbours_are_not_joined() {
        let secret = secret();
        let (left, right) = secret[..16].split_at(8);
        let page = |at: usize, bytes: &[u8]| {
            let mut page = vec![0; 4096];
            page[at..at + bytes.len()].copy_from_slice(bytes);
            page
        };
        let apart = dump(&[(0, page(4088, left)), (2 * PAGE, page(0, right))]);
        assert_eq!(pieces_found(&apart, &secret[..16]), (0, 1));
    }
}
