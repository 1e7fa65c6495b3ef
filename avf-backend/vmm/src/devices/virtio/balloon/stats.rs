// SPDX-License-Identifier: Apache-2.0
//! What a guest says about its memory (5.5.6.3), in crosvm's words.

use serde::Serialize;

/// Bytes of one entry: a tag of 16 bits and a value of 64, without padding.
const ENTRY: usize = 10;
/// Bytes of all entries that there are tags for, twice.
pub const LIMIT: usize = 2 * ENTRY * 16;

/// Statistics of a guest; what it does not say is `None`. Amounts of memory are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BalloonStats {
    /// Swapped in since the start.
    pub swap_in: Option<u64>,
    /// Swapped out since the start.
    pub swap_out: Option<u64>,
    /// Page faults that needed a disk.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Used for nothing.
    pub free_memory: Option<u64>,
    /// All.
    pub total_memory: Option<u64>,
    /// What programs could get without swapping.
    pub available_memory: Option<u64>,
    /// Caches of disks.
    pub disk_caches: Option<u64>,
    /// Huge pages that were handed out.
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be.
    pub hugetlb_failures: Option<u64>,
    /// Not in virtio; crosvm's answer has it.
    pub shared_memory: Option<u64>,
    /// Not in virtio; crosvm's answer has it.
    pub unevictable_memory: Option<u64>,
}

impl BalloonStats {
    /// Reads a guest's entries. Unknown tags are left out, as is what is behind the last whole entry.
    pub fn parse(data: &[u8]) -> Self {
        let mut stats = Self::default();
        for entry in data.chunks_exact(ENTRY) {
            let (tag, value) = entry.split_at(2);
            let tag = tag.first_chunk().map_or(u16::MAX, |bytes| u16::from_le_bytes(*bytes));
            let value = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            if let Some(field) = stats.field(tag) {
                *field = value;
            }
        }
        stats
    }

    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        // VIRTIO_BALLOON_S_*
        Some(match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_memory,
            5 => &mut self.total_memory,
            6 => &mut self.available_memory,
            7 => &mut self.disk_caches,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_told_by_their_tags() {
        let mut data = Vec::new();
        for (tag, value) in [(5_u16, 1_u64 << 40), (4, 7), (99, 8), (4, 9)] {
            data.extend(tag.to_le_bytes());
            data.extend(value.to_le_bytes());
        }
        data.extend([0, 0, 1]);
        let stats = BalloonStats::parse(&data);
        let expected = BalloonStats {
            total_memory: Some(1 << 40),
            free_memory: Some(9),
            ..BalloonStats::default()
        };
        assert_eq!(stats, expected);
    }

    proptest! {
        #[test]
        fn any_entries_are_survived(data in proptest::collection::vec(any::<u8>(), 0..LIMIT)) {
            BalloonStats::parse(&data);
        }
    }
}
