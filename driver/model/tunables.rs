// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Values that the administrator may write to `/sys/kernel/gzvm`.

use super::caps;
use super::refusal::{invalid, Result};

/// Parses a decimal number with an optional newline.
fn parse(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    text.strip_suffix('\n').unwrap_or(text).parse().ok()
}

/// Pages per MAP_GUEST_BLOCK: a divisor of 512.
pub fn demand_batch(text: &[u8]) -> Result<u32> {
    parse(text)
        .and_then(caps::demand_batch)
        .ok_or(invalid("demand_paging_batch_pages must divide 512"))
}

/// Pages per DESTROY_VM: a power of two up to 65536.
pub fn destroy_batch(text: &[u8]) -> Result<u32> {
    parse(text)
        .filter(|pages| *pages <= caps::MAX_DESTROY_BATCH)
        .and_then(caps::destroy_batch)
        .ok_or(invalid("destroy_batch_pages must be a power of two up to 65536"))
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_tunables))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    #[test]
    fn w21_zero_and_huge_batches_are_refused() {
        for bad in ["", "0", "0\n", "-1", "3", "2147483648", "128 ", "0x80", "18446744073709551616"]
        {
            assert!(destroy_batch(bad.as_bytes()).is_err());
            assert!(demand_batch(bad.as_bytes()).is_err());
        }
        assert_eq!(destroy_batch(b"256\n"), Ok(256));
        assert_eq!(demand_batch(b"128"), Ok(128));
        assert!(demand_batch(&[0xff]).is_err());
    }
}
