// SPDX-License-Identifier: Apache-2.0
//! vsock context ids: one after the other, so that an id is not used again soon.

/// The first id of VMs.
const FIRST: u32 = 2048;
/// The last one.
const LAST: u32 = 65_535;

/// Whether an id may be a VM's.
pub fn is_vms(cid: u32) -> bool {
    (FIRST..=LAST).contains(&cid)
}

/// The next free id behind `last`, from the start again behind the end; `None` if all are taken.
pub fn next(last: Option<u32>, taken: impl Fn(u32) -> bool) -> Option<u32> {
    let after = last.filter(|last| (FIRST..LAST).contains(last)).map_or(FIRST, |last| last + 1);
    (after..=LAST).chain(FIRST..after).find(|&cid| !taken(cid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_each_other_and_wrap() {
        assert_eq!(next(None, |_| false), Some(2048));
        assert_eq!(next(Some(2048), |_| false), Some(2049));
        assert_eq!(next(Some(65_535), |_| false), Some(2048));
        assert_eq!(next(Some(65_534), |cid| cid == 65_535 || cid == 2048), Some(2049));
        // What was kept elsewhere may be anything.
        assert_eq!(next(Some(7), |_| false), Some(2048));
        assert_eq!(next(Some(3000), |_| true), None);
        assert_eq!(next(Some(3000), |cid| cid != 3000), Some(3000));
    }
}
