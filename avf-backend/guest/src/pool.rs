// SPDX-License-Identifier: Apache-2.0
//! Memory for virtio drivers: a pool of pages that a protected guest shares with the host once, and
//! `virtio-drivers`' [`Hal`] on top. What is not in the pool is copied to it and back, so the host
//! never sees more than what is meant for it.

use crate::error::Error;
use crate::geniezone::GenieZone;
use crate::hvc::Hvc;
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use virtio_drivers::{BufferDirection, Hal, PhysAddr, PAGE_SIZE};

/// Pages of the pool: the rings of four devices, and 160 KiB of buffers.
const PAGES: usize = 64;

/// A page that the host may write to at any moment.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

/// Pages, and which of them are in use.
struct Pool {
    pages: [Page; PAGES],
    used: [AtomicBool; PAGES],
}

// SAFETY: the pages are given out by `take` to one owner at a time, who gets an address and makes no
// reference of it.
#[allow(unsafe_code)]
unsafe impl Sync for Pool {}

static POOL: Pool = Pool {
    pages: [const { Page(UnsafeCell::new([0; PAGE_SIZE])) }; PAGES],
    used: [const { AtomicBool::new(false) }; PAGES],
};

impl Pool {
    /// Takes `count` pages in a row; answers the first one's index.
    fn take(&self, count: usize) -> Option<usize> {
        (0..=PAGES.checked_sub(count.max(1))?).find(|&start| {
            let run = &self.used[start..start + count];
            let taken = run.iter().take_while(|used| !used.swap(true, Ordering::AcqRel)).count();
            if taken < count {
                run[..taken].iter().for_each(|used| used.store(false, Ordering::Release));
            }
            taken == count
        })
    }

    fn give_back(&self, address: usize, count: usize) {
        let start = address.wrapping_sub(self.address(0).addr().get()) / PAGE_SIZE;
        for used in self.used.iter().skip(start).take(count) {
            used.store(false, Ordering::Release);
        }
    }

    fn address(&self, index: usize) -> NonNull<u8> {
        NonNull::from(&self.pages[index]).cast()
    }
}

/// Shares the pool with the host, for good. Only protected guests need it, and only once.
///
/// # Errors
///
/// The hypervisor's refusal.
pub fn share_pool<H: Hvc>(geniezone: &GenieZone<H>) -> Result<(), Error> {
    // CAST: an address fits in 64 bits.
    let (start, size) = (POOL.address(0).addr().get() as u64, (PAGES * PAGE_SIZE) as u64);
    // SAFETY: the pool is nobody's but this module's, which accesses it through addresses only.
    #[allow(unsafe_code)]
    let shared = unsafe { geniezone.share(start, size) }?;
    core::mem::forget(shared);
    Ok(())
}

/// What `virtio-drivers` needs of a guest whose addresses are mapped to themselves.
#[derive(Debug)]
pub struct PoolHal;

/// Pages that `len` bytes take.
fn pages(len: usize) -> usize {
    len.div_ceil(PAGE_SIZE)
}

// SAFETY: `dma_alloc` gives out pages that are aligned, that no one else has, and zeroes them;
// addresses are mapped to themselves; `share` copies to such pages.
#[allow(unsafe_code)]
unsafe impl Hal for PoolHal {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match POOL.take(count) {
            Some(index) => {
                let address = POOL.address(index);
                // SAFETY: these pages are this caller's now, and in a row.
                unsafe { address.write_bytes(0, count * PAGE_SIZE) };
                (address.addr().get(), address)
            }
            // What virtio-drivers takes for a failure.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, count: usize) -> i32 {
        POOL.give_back(address, count);
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        let address = core::ptr::with_exposed_provenance_mut(address);
        NonNull::new(address).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        // There is no way to say that there is no room: the device refuses address 0.
        let Some(index) = POOL.take(pages(buffer.len())) else { return 0 };
        let copy = POOL.address(index);
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the caller's buffer is valid for its length; the pages are new and hold it.
            unsafe { copy.copy_from_nonoverlapping(buffer.cast(), buffer.len()) };
        }
        copy.addr().get()
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        if address == 0 {
            return;
        }
        let copy = core::ptr::with_exposed_provenance::<u8>(address);
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: `share` returned `address` for this buffer, so both have its length.
            unsafe { buffer.cast::<u8>().as_ptr().copy_from_nonoverlapping(copy, buffer.len()) };
        }
        POOL.give_back(address, pages(buffer.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHypervisor;

    fn pool() -> Pool {
        Pool {
            pages: [const { Page(UnsafeCell::new([0; PAGE_SIZE])) }; PAGES],
            used: [const { AtomicBool::new(false) }; PAGES],
        }
    }

    #[test]
    fn pages_are_given_out_once() {
        let pool = pool();
        assert_eq!(pool.take(3), Some(0));
        assert_eq!(pool.take(2), Some(3));
        assert_eq!(pool.take(PAGES), None);
        pool.give_back(pool.address(1).addr().get(), 1);
        assert_eq!(pool.take(2), Some(5), "a hole of one page is too small for two");
        assert_eq!(pool.take(1), Some(1));
        assert_eq!(pool.take(PAGES - 7), Some(7));
        assert_eq!(pool.take(1), None);
        assert_eq!(pool.take(PAGES + 1), None);
    }

    #[test]
    #[allow(unsafe_code)]
    fn buffers_are_copied_in_their_direction() {
        let mut data = [7; 5000];
        let buffer = NonNull::from(&mut data[..]);
        for (direction, there, back) in [
            (BufferDirection::DriverToDevice, true, false),
            (BufferDirection::DeviceToDriver, false, true),
            (BufferDirection::Both, true, true),
        ] {
            // SAFETY: the buffer outlives both calls; between them only the copy is accessed.
            let seen = unsafe {
                buffer.cast::<u8>().write_bytes(7, 5000);
                let copy = PoolHal::share(buffer, direction);
                let copy_at = core::ptr::with_exposed_provenance_mut::<u8>(copy);
                let seen = copy_at.add(4999).read();
                copy_at.write_bytes(9, 5000);
                PoolHal::unshare(copy, buffer, direction);
                seen
            };
            assert_eq!(seen == 7, there, "{direction:?}");
            // SAFETY: as above.
            let after = unsafe { buffer.cast::<u8>().add(4999).read() };
            assert_eq!(after == 9, back, "{direction:?}");
        }
    }

    #[test]
    fn all_of_the_pool_is_shared() {
        let hypervisor = FakeHypervisor::new(true);
        share_pool(&GenieZone::detect(&hypervisor).unwrap()).unwrap();
        let first = POOL.address(0).addr().get() as u64;
        let expected: Vec<u64> = (0..PAGES as u64).map(|page| first + page * 4096).collect();
        assert_eq!(hypervisor.shared(), expected);
    }
}
