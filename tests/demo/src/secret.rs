// SPDX-License-Identifier: Apache-2.0
//! What the payload says in its mode `secret`.

use anyhow::{ensure, Context, Result};
use sha2::{Digest, Sha256};

/// Guest physical address of the first byte of main memory, which is also the first byte of the
/// memfd (crosvm's memory map; no firmware).
const RAM_BASE: u64 = 0x8000_0000;

/// What the guest publishes about its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Offset of the secret in guest memory.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl Published {
    /// Reads what follows `secret: hash `: `<hex> at IPA 0x... size N`.
    pub fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [hash, "at", "IPA", address, "size", size] = words[..] else {
            anyhow::bail!("\"{text}\" is not a hash, an address and a size");
        };
        let hash = hex(hash)?.try_into().ok().context("the hash does not have 32 bytes")?;
        let address = address.strip_prefix("0x").context("the address is not hexadecimal")?;
        let address = u64::from_str_radix(address, 16).context("the address is no number")?;
        let offset = address.checked_sub(RAM_BASE).context("the address is not in RAM")?;
        Ok(Self { hash, offset, size: size.parse().context("the size is no number")? })
    }

    /// Checks a revealed secret against what was published.
    pub fn check(&self, secret: &[u8]) -> Result<()> {
        let size = u64::try_from(secret.len())?;
        ensure!(size == self.size, "{size} bytes were revealed, not {}", self.size);
        ensure!(
            Sha256::digest(secret).as_slice() == self.hash,
            "what was revealed does not have the published hash"
        );
        Ok(())
    }
}

/// Bytes from hexadecimal digits.
pub fn hex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair)?;
        u8::from_str_radix(text, 16).with_context(|| format!("\"{text}\" is not hexadecimal"))
    };
    text.as_bytes().chunks_exact(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_checked_against_what_is_revealed() {
        let secret = [7; 4096];
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let published = Published::parse(&format!("{digits} at IPA 0x80041000 size 4096")).unwrap();
        assert_eq!(published, Published { hash, offset: 0x4_1000, size: 4096 });
        published.check(&secret).unwrap();
        assert!(published.check(&secret[1..]).is_err());
        assert!(published.check(&[8; 4096]).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let digits = "00".repeat(32);
        for text in [
            String::new(),
            "abcd at IPA 0x80041000 size 4096".to_owned(),
            format!("{digits} at IPA 0x1000 size 4096"),
            format!("{digits} at IPA 80041000 size 4096"),
            format!("{digits} at IPA 0x80041000 size x"),
            format!("{digits} at IPA 0x80041000 size 4096 more"),
        ] {
            assert!(Published::parse(&text).is_err(), "{text}");
        }
        assert!(hex("0").is_err() && hex("0g").is_err() && hex("éé").is_err());
    }
}
