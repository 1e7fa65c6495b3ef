// SPDX-License-Identifier: Apache-2.0
//! `createOrUpdateIdsigFile`: the APK Signature Scheme v4 file of an APK, as AVF makes it: hash tree and digest,
//! without a signature of its own (<https://source.android.com/docs/security/features/apksigning/v4>).

mod apk;
mod tree;

use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use tree::HashTree;

/// The format's version, its number for SHA-256, and the logarithm of its block size.
const VERSION: u32 = 2;
const SHA256: u32 = 1;
const LOG2_BLOCK: u8 = 12;

/// Makes the file `idsig` that of the APK `apk`; what it held is lost, but not if this fails before.
pub fn write(apk: &impl AsFd, idsig: &impl AsFd) -> Result<()> {
    let mut input = File::from(apk.as_fd().try_clone_to_owned()?);
    ensure!(input.metadata().context("inputFd")?.is_file(), "inputFd: not a regular file");
    let digest = apk::digest(&mut input).context("inputFd")?;
    input.rewind().context("inputFd")?;
    let tree = HashTree::of(&mut input).context("inputFd")?;
    let contents = contents(&digest, &tree)?;
    let mut output = File::from(idsig.as_fd().try_clone_to_owned()?);
    output.set_len(0).and_then(|()| output.rewind()).context("idsigFd: it cannot be emptied")?;
    output.write_all(&contents).context("idsigFd: it cannot be written to")
}

/// The file's bytes.
fn contents(apk: &apk::Digest, tree: &HashTree) -> Result<Vec<u8>> {
    let hashing = Bytes::default().u32(SHA256).u8(LOG2_BLOCK).sized(&[])?.sized(&tree.root)?;
    // Certificate, additional data, key and signature: AVF's are empty too.
    let signing = Bytes::default().sized(&apk.digest)?.sized(&[])?.sized(&[])?.sized(&[])?;
    let signing = signing.u32(apk.algorithm).sized(&[])?;
    let file = Bytes::default().u32(VERSION).sized(&hashing.0)?.sized(&signing.0)?;
    Ok(file.sized(&tree.levels)?.0)
}

/// Little-endian fields, one behind the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// The size in four bytes, and the bytes.
    fn sized(self, bytes: &[u8]) -> Result<Self> {
        // The format's sizes are signed.
        let size = i32::try_from(bytes.len()).context("too large for an idsig file")?;
        let mut this = self.u32(size.unsigned_abs());
        this.0.extend(bytes);
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn fields_are_in_the_formats_order() {
        let apk = apk::Digest { algorithm: 0x0103, digest: vec![7; 32] };
        let tree = HashTree { root: [9; 32], levels: vec![5; 4096] };
        let bytes = contents(&apk, &tree).unwrap();
        let words = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
        assert_eq!((words(0), words(4), words(8), bytes[12]), (2, 45, 1, 12));
        assert_eq!((words(13), words(17), &bytes[21..53]), (0, 32, &[9; 32][..]));
        assert_eq!((words(53), words(57), &bytes[61..93]), (56, 32, &[7; 32][..]));
        assert_eq!((words(93), words(97), words(101)), (0, 0, 0));
        assert_eq!((words(105), words(109)), (0x0103, 0));
        assert_eq!((words(113), bytes.len()), (4096, 117 + 4096));
    }

    #[test]
    fn a_signed_apk_gets_its_file() {
        let mut apk = tempfile::tempfile().unwrap();
        apk.write_all(&apk::tests::signed(&[(0x0103, &[1; 32])])).unwrap();
        // What was there is replaced, however long it was, and wherever the files' positions are.
        let mut idsig = tempfile::tempfile().unwrap();
        idsig.write_all(&[0; 9000]).unwrap();
        write(&apk, &idsig).unwrap();
        idsig.rewind().unwrap();
        let mut bytes = Vec::new();
        idsig.read_to_end(&mut bytes).unwrap();
        assert_eq!((bytes[0], &bytes[61..93]), (2, &[1; 32][..]));
        assert!(bytes.len() < 9000);
    }

    #[test]
    fn errors_name_the_file_and_leave_the_other() {
        let mut idsig = tempfile::tempfile().unwrap();
        idsig.write_all(b"mine").unwrap();
        let error = |apk: &File| format!("{:#}", write(apk, &idsig).unwrap_err());
        let dir = File::open(std::env::temp_dir()).unwrap();
        assert_eq!(error(&dir), "inputFd: not a regular file");
        let mut apk = tempfile::tempfile().unwrap();
        apk.write_all(b"PK").unwrap();
        assert!(error(&apk).starts_with("inputFd: not an APK"), "{}", error(&apk));
        assert_eq!(idsig.metadata().unwrap().len(), 4);
    }
}
