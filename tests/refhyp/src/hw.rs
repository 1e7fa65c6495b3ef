// SPDX-License-Identifier: Apache-2.0
//! What the decisions need from the machine, as one trait, so that tests can stand in for it.

/// Bytes in a page and in a translation table.
pub const PAGE_SIZE: u64 = gzvm_abi::PAGE_SIZE;

/// A stage 2 address space as the hardware knows it (the contents of VTTBR_EL2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// VMID; 0 is the host's.
    pub vmid: u16,
    /// Physical address of the first root table.
    pub root: u64,
}

/// Which cached translations to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidate {
    /// Those of the page at this intermediate physical address, and all combined ones.
    Page(u64),
    /// All of the address space.
    All,
}

/// The machine under the hypervisor.
///
/// Physical memory is reached by address. Implementations must refuse (by panicking) addresses
/// outside of RAM and inside of the hypervisor's own image, so that no caller of these safe
/// methods can corrupt a Rust object.
pub trait Hardware {
    /// Reads the 64-bit word at a physical address that is a multiple of 8.
    fn read(&self, pa: u64) -> u64;

    /// Writes the 64-bit word at a physical address that is a multiple of 8, in one access, so
    /// that a table walk sees the old or the new word.
    fn write(&self, pa: u64, value: u64);

    /// Copies from physical memory. The bytes may change under the copy; they are data.
    fn copy_in(&self, pa: u64, bytes: &mut [u8]);

    /// Copies to physical memory.
    fn copy_out(&self, pa: u64, bytes: &[u8]);

    /// Fills the page at `pa` with zeros and cleans it to the point of coherency.
    fn wipe_page(&self, pa: u64);

    /// Writes the 512 words of the page at `pa`: `first`, `first + step` and so on.
    fn fill_page(&self, pa: u64, first: u64, step: u64);

    /// Copies the page at `from` to the page at `to` and cleans that to the point of coherency.
    fn copy_page(&self, from: u64, to: u64);

    /// Cleans and invalidates the page at `pa` to the point of coherency, so that a guest that
    /// runs without caches sees what the host wrote with them.
    fn clean_page(&self, pa: u64);

    /// Makes earlier descriptor writes visible to table walks.
    fn publish(&self);

    /// Drops cached translations on all CPUs and waits until that is done.
    fn invalidate(&self, space: Space, what: Invalidate);

    /// Makes the physical CPU leave its guest soon. It may have left already.
    fn kick(&self, cpu: usize);

    /// The identification register `S3_0_C0_C<crm>_<op2>`.
    fn id_register(&self, crm_op2: (u32, u32)) -> u64;

    /// The physical counter, in ticks.
    fn counter(&self) -> u64;

    /// The counter's frequency in Hz.
    fn frequency(&self) -> u64;
}
