// SPDX-License-Identifier: Apache-2.0
//! The firmware that protected VMs can be started with: an arm64 Image that a boot loader puts into
//! the hypervisor's own memory, so that no host can choose or change it.

use crate::hw::{Hardware, PAGE_SIZE};

/// Where the image is expected, by its physical address: at the end of the hypervisor's 64 MiB.
pub const ADDRESS: u64 = 0x43c0_0000;
/// Bytes that are kept free for the image, and of its window in a VM.
pub const WINDOW: u64 = 4 << 20;
/// Pages of the window.
pub const WINDOW_PAGES: u64 = WINDOW / PAGE_SIZE;

/// Offset of the image's size in the header (Documentation/arch/arm64/booting.rst).
const SIZE_AT: u64 = 16;
/// Offset of the magic number in the header.
const MAGIC_AT: u64 = 56;
/// "ARM\x64", little endian.
const MAGIC: u64 = 0x644d_5241;

/// A firmware image in the hypervisor's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// Physical address of its first page.
    pub address: u64,
    /// Bytes, 1 to [`WINDOW`]. The rest of its last page is zero.
    pub size: u64,
}

impl Firmware {
    /// The image at a page-aligned physical address, if one is there.
    pub fn find(hw: &impl Hardware, address: u64) -> Option<Self> {
        let size = hw.read(address + SIZE_AT);
        // The magic number is half a word.
        let magic = hw.read(address + MAGIC_AT) & 0xffff_ffff;
        if magic != MAGIC || size == 0 || size > WINDOW {
            return None;
        }
        let end = address + size;
        let zeros = [0; PAGE_SIZE as usize];
        // CAST: less than a page.
        let rest = (end.next_multiple_of(PAGE_SIZE) - end) as usize;
        hw.copy_out(end, zeros.get(..rest).unwrap_or_default());
        Some(Self { address, size })
    }

    /// The image's page `index`, or nothing behind its end.
    pub fn page(&self, index: u64) -> Option<u64> {
        let offset = index.checked_mul(PAGE_SIZE).filter(|offset| *offset < self.size)?;
        Some(self.address + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHardware;

    #[test]
    fn images_have_the_magic_number_and_a_size_that_fits() {
        let hw = FakeHardware::new(0x1000, 3);
        assert_eq!(Firmware::find(&hw, 0x1000), None);
        hw.write(0x1000 + MAGIC_AT, 0xdead_beef << 32 | MAGIC);
        for size in [0, WINDOW + 1, u64::MAX] {
            hw.write(0x1000 + SIZE_AT, size);
            assert_eq!(Firmware::find(&hw, 0x1000), None);
        }
        hw.write(0x1000 + SIZE_AT, 0x1008);
        let firmware = Firmware::find(&hw, 0x1000).expect("an image");
        assert_eq!(firmware, Firmware { address: 0x1000, size: 0x1008 });
        assert_eq!([0, 1, 2].map(|n| firmware.page(n)), [Some(0x1000), Some(0x2000), None]);
        // What is behind the image does not come along.
        assert_ne!(hw.read(0x2000), 0);
        assert_eq!((hw.read(0x2008), hw.read(0x2ff8)), (0, 0));
        assert_ne!(hw.read(0x3000), 0);
    }
}
