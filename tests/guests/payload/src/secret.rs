// SPDX-License-Identifier: Apache-2.0
//! A random secret that the host may look for: its hash and its address are said at once, itself
//! only when a line comes in.
//!
//! ```text
//! secret: hash <SHA-256, hex> at IPA 0x80041000 size 4096
//! secret: send a line to have it revealed
//! secret: reveal <the page as it is now, hex>
//! secret: own copy intact|CHANGED
//! ```

use crate::line::wait_for_line;
use crate::{say, Platform};
use guest_bare::page::{Page, PAGE_SIZE};
use gzvm_guest::{Error, Trng};

/// Makes a secret in `page` and reveals it when a line has come in. Returns whether the page was
/// still as it had been made.
///
/// # Errors
///
/// There are no random numbers to be had.
pub fn run<P: Platform>(platform: &mut P, page: &Page) -> Result<bool, Error> {
    let trng = Trng::new(platform.hypervisor())?;
    page.fill(|| {
        let mut word = [0; 8];
        trng.fill(&mut word).map(|()| u64::from_le_bytes(word))
    })?;
    let hash = page.hash();
    say!(platform, "secret: hash {} at IPA {:#x} size {PAGE_SIZE}", Hex(&hash), page.ipa());
    say!(platform, "secret: send a line to have it revealed");
    wait_for_line(platform);

    // Taken before anything is printed, so that what is said fits together.
    let intact = page.hash() == hash;
    say!(platform, "secret: reveal {}", Words(page));
    say!(platform, "secret: own copy {}", if intact { "intact" } else { "CHANGED" });
    Ok(intact)
}

/// Bytes in hexadecimal.
struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A page's bytes in hexadecimal, in order of address.
struct Words<'a>(&'a Page);

impl core::fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.words().try_for_each(|word| write!(f, "{:016x}", word.swap_bytes()))
    }
}
