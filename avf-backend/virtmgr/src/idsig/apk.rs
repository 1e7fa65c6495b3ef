// SPDX-License-Identifier: Apache-2.0
//! The digest by which an APK is known: from its signature of scheme v3, which AVF asks for
//! (<https://source.android.com/docs/security/features/apksigning/v3>). It is taken, not verified,
//! as AVF does at this point.

use anyhow::{bail, ensure, Context, Result};
use std::io::{Read, Seek, SeekFrom};

/// Start of the record at a ZIP file's end, its size without comment, and the longest comment
/// (APPNOTE 4.3.16).
const END_MAGIC: u32 = 0x0605_4b50;
const END_SIZE: usize = 22;
const COMMENT_MAX: usize = 0xffff;
/// Where in that record the central directory's offset is.
const DIRECTORY_OFFSET: usize = 16;
/// What the block of signatures ends with, behind its size.
const BLOCK_MAGIC: &[u8] = b"APK Sig Block 42";
/// Size and magic at the block's end.
const BLOCK_TAIL: u64 = 24;
/// The largest block that is read.
const BLOCK_MAX: u64 = 64 << 20;
/// The id of scheme v3 in the block.
const V3: u32 = 0xf053_68c0;
/// Signature algorithms, from the weakest digest to the strongest: SHA-256 of chunks, of a Merkle
/// tree, SHA-512 of chunks.
const ALGORITHMS: [&[u32]; 3] =
    [&[0x0101, 0x0103, 0x0201, 0x0301], &[0x0421, 0x0423, 0x0425], &[0x0102, 0x0104, 0x0202]];

/// A digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The signature algorithm's number, which tells how it was made.
    pub algorithm: u32,
    /// The digest itself.
    pub digest: Vec<u8>,
}

/// The digest that scheme v4 calls the APK's: of the strongest signature.
pub fn digest(apk: &mut (impl Read + Seek)) -> Result<Digest> {
    let block = signing_block(apk)?;
    let signers = v3(&block)?.context("not signed by scheme v3: sign it (apksigner)")?;
    let mut signers = Fields(signers).sized()?;
    let mut best: Option<(u32, &[u8])> = None;
    while !signers.0.is_empty() {
        let signer = signers.sized()?.signer()?;
        // With several, which are for different versions of Android, the newest counts.
        if best.is_none_or(|(sdk, _)| signer.0 > sdk) {
            best = Some(signer);
        }
    }
    strongest(best.context("its block of signatures has no signer")?.1)
}

/// The digest of the best algorithm among a signer's.
fn strongest(digests: &[u8]) -> Result<Digest> {
    let mut digests = Fields(digests);
    let mut best: Option<(usize, Digest)> = None;
    while !digests.0.is_empty() {
        let mut entry = digests.sized()?;
        let (algorithm, digest) = (entry.u32()?, entry.sized()?.0.to_vec());
        let rank = ALGORITHMS.iter().position(|known| known.contains(&algorithm));
        if rank.is_some_and(|rank| best.as_ref().is_none_or(|(old, _)| rank > *old)) {
            best = rank.map(|rank| (rank, Digest { algorithm, digest }));
        }
    }
    Ok(best.context("signed by unknown algorithms only")?.1)
}

/// The pairs of ids and values before the central directory.
fn signing_block(apk: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
    let size = apk.seek(SeekFrom::End(0))?;
    let tail_size = size.min((END_SIZE + COMMENT_MAX) as u64);
    let tail = read(apk, size - tail_size, tail_size)?;
    let end = end_record(&tail).context("not an APK: no ZIP directory at its end")?;
    let directory = u64::from(Fields(end.get(DIRECTORY_OFFSET..).unwrap_or_default()).u32()?);
    let unsigned = "not signed by scheme v2 or later: sign it (apksigner)";
    let tail_at = directory.checked_sub(BLOCK_TAIL).context(unsigned)?;
    let tail = read(apk, tail_at, BLOCK_TAIL)?;
    ensure!(tail.ends_with(BLOCK_MAGIC), unsigned);
    // The size counts everything but its own copy at the start.
    let block = Fields(&tail).u64()?;
    ensure!((BLOCK_TAIL..=BLOCK_MAX).contains(&block), "its block of signatures has a bad size");
    let start = directory.checked_sub(block).context("its block of signatures has a bad size")?;
    read(apk, start, block - BLOCK_TAIL)
}

/// The record at the end: the last place where it fits exactly.
fn end_record(tail: &[u8]) -> Option<&[u8]> {
    let starts = (0..=tail.len().checked_sub(END_SIZE)?).rev();
    starts.filter_map(|start| tail.get(start..)).find(|record| {
        let comment = record
            .get(END_SIZE - 2..END_SIZE)
            .map_or(0, |b| usize::from(b[0]) | usize::from(b[1]) << 8);
        record.starts_with(&END_MAGIC.to_le_bytes()) && record.len() == END_SIZE + comment
    })
}

fn read(apk: &mut (impl Read + Seek), at: u64, size: u64) -> Result<Vec<u8>> {
    apk.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    apk.take(size).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == size, "it ends too early");
    Ok(bytes)
}

/// The value of scheme v3.
fn v3(block: &[u8]) -> Result<Option<&[u8]>> {
    let mut pairs = Fields(block);
    while !pairs.0.is_empty() {
        let size = usize::try_from(pairs.u64()?)?;
        let mut pair = Fields(pairs.take(size)?);
        if pair.u32()? == V3 {
            return Ok(Some(pair.0));
        }
    }
    Ok(None)
}

/// Little-endian fields, one behind the other.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8]> {
        match self.0.split_at_checked(size) {
            Some((bytes, rest)) => {
                self.0 = rest;
                Ok(bytes)
            }
            None => bail!("its block of signatures ends too early"),
        }
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    /// Bytes behind their size.
    fn sized(&mut self) -> Result<Self> {
        let size = usize::try_from(self.u32()?)?;
        Ok(Self(self.take(size)?))
    }

    /// Of a signer: the first version of Android that it is for, and its digests.
    fn signer(mut self) -> Result<(u32, &'a [u8])> {
        let mut data = self.sized()?;
        Ok((self.u32()?, data.sized()?.0))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::Cursor;

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
    }

    /// A signer for Android versions from `sdk` on.
    fn signer(sdk: u32, digests: &[(u32, &[u8])]) -> Vec<u8> {
        let digest =
            |(id, digest): &(u32, &[u8])| sized(&[&id.to_le_bytes()[..], &sized(digest)].concat());
        let digests: Vec<u8> = digests.iter().flat_map(digest).collect();
        let data = [sized(&digests), sized(b"certificates")].concat();
        sized(&[sized(&data), sdk.to_le_bytes().into(), vec![0xff; 4]].concat())
    }

    /// An APK with a block that has these pairs, and a comment.
    fn apk(pairs: &[(u32, Vec<u8>)], comment: &[u8]) -> Vec<u8> {
        let mut block = Vec::new();
        for (id, value) in pairs {
            block.extend(u64::try_from(value.len() + 4).unwrap().to_le_bytes());
            block.extend(id.to_le_bytes());
            block.extend(value);
        }
        let size = (block.len() as u64 + BLOCK_TAIL).to_le_bytes();
        let mut file = [b"entries".as_slice(), &size, &block, &size, BLOCK_MAGIC].concat();
        let directory = u32::try_from(file.len()).unwrap();
        file.extend(b"directory");
        file.extend(END_MAGIC.to_le_bytes());
        file.extend([0; 12]);
        file.extend(directory.to_le_bytes());
        file.extend(u16::try_from(comment.len()).unwrap().to_le_bytes());
        file.extend(comment);
        file
    }

    /// An APK with one signer.
    pub fn signed(digests: &[(u32, &[u8])]) -> Vec<u8> {
        apk(&[(0x7109_871a, vec![1]), (V3, sized(&signer(28, digests)))], b"")
    }

    fn digest_of(file: Vec<u8>) -> Result<Digest> {
        digest(&mut Cursor::new(file))
    }

    #[test]
    fn the_strongest_digest_counts() {
        let digests: &[(u32, &[u8])] =
            &[(0x0103, &[1; 32]), (0x0104, &[2; 64]), (0x0421, &[3; 32]), (0x9999, &[4; 32])];
        let best = Digest { algorithm: 0x0104, digest: vec![2; 64] };
        assert_eq!(digest_of(signed(digests)).unwrap(), best);
        let best = Digest { algorithm: 0x0421, digest: vec![3; 32] };
        assert_eq!(digest_of(signed(&[digests[0], digests[2]])).unwrap(), best);
    }

    #[test]
    fn the_newest_signer_counts() {
        let old = signer(28, &[(0x0103, &[1; 32])]);
        let new = signer(33, &[(0x0103, &[2; 32])]);
        for signers in [[old.clone(), new.clone()], [new, old]] {
            let file = apk(&[(V3, sized(&signers.concat()))], b"");
            assert_eq!(digest_of(file).unwrap().digest, [2; 32]);
        }
    }

    #[test]
    fn a_comment_does_not_hide_the_end() {
        let comment = [b"x".as_slice(), &END_MAGIC.to_le_bytes(), &[b'y'; 50]].concat();
        let file = apk(&[(V3, sized(&signer(28, &[(0x0201, &[5; 32])])))], &comment);
        assert_eq!(digest_of(file).unwrap().algorithm, 0x0201);
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = |file| format!("{:#}", digest_of(file).unwrap_err());
        assert!(error(Vec::new()).contains("not an APK"));
        assert!(error(vec![0; 100_000]).contains("not an APK"));
        assert!(error(apk(&[(1, vec![])], b"")).contains("not signed by scheme v3"));
        let mut unsigned = apk(&[], b"");
        unsigned[30] = b'?';
        assert!(error(unsigned).contains("scheme v2 or later"));
        assert!(error(signed(&[(0x9999, &[1; 32])])).contains("unknown algorithms"));
        assert!(error(apk(&[(V3, sized(&[]))], b"")).contains("no signer"));
    }

    /// Nothing that a file says makes this crash.
    #[test]
    fn damaged_files_are_errors() {
        let good = signed(&[(0x0103, &[1; 32])]);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                // Some bytes do not matter.
                let _ = digest_of(bad);
            }
            let _ = digest_of(good[at..].to_vec());
            assert!(digest_of(good[..at].to_vec()).is_err());
        }
    }
}
