// SPDX-License-Identifier: Apache-2.0
//! Whether the rings of a protected guest's queues are this process's to touch. It must be known
//! before vhost gets them: vhost reads through the kernel, which sees zeros where a page is private,
//! and hangs.

use crate::memory::host_page;
use gzvm::abi::PAGE_SIZE;
use gzvm::{RangeState, Vm};
use nix::sys::prctl;
use std::ffi::CString;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// What the driver says of a queue's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// They may be touched.
    Reachable,
    /// This guest address may not.
    Private(u64),
}

/// Asks the driver; `None` if it cannot tell.
pub fn find_private(vm: &Vm, queue: &Queue) -> gzvm::Result<Option<Answer>> {
    look(queue, host_page(), |at, size| vm.range_state(at, size))
}

fn look<E>(
    queue: &Queue,
    page: u64,
    mut state: impl FnMut(u64, u64) -> Result<Option<(RangeState, u64)>, E>,
) -> Result<Option<Answer>, E> {
    for (start, size) in rings(queue) {
        let mut at = start - start % page;
        // In guest memory, as was checked, so no sum overflows.
        let end = (start + size).next_multiple_of(page);
        while at < end {
            match state(at, end - at)? {
                None => return Ok(None),
                Some((RangeState::Private, _)) => return Ok(Some(Answer::Private(at.max(start)))),
                Some((_, known)) => at += known.max(page),
            }
        }
    }
    Ok(Some(Answer::Reachable))
}

/// Where a driver and its hypervisor cannot tell: reads each page of the rings. A private one ends
/// this process ([`crate::sigbus`]), with the thread's name, which names device and queue meanwhile.
pub fn touch(name: &str, index: usize, queue: &Queue, memory: &GuestMemoryMmap) {
    let before = prctl::get_name();
    let temporary = CString::new(format!("{name} queue {index}")).unwrap_or_default();
    // Names are for messages only.
    let _ = prctl::set_name(&temporary);
    for (start, size) in rings(queue) {
        // CAST: a small constant.
        let pages = (start..start + size).step_by(PAGE_SIZE as usize).chain([start + size - 1]);
        for address in pages {
            // The ring is in guest memory, as was checked.
            let _ = memory.read_obj::<u8>(GuestAddress(address));
        }
    }
    if let Ok(before) = before {
        let _ = prctl::set_name(&before);
    }
}

/// Addresses and sizes in bytes of a queue's three rings (2.7).
fn rings(queue: &Queue) -> [(u64, u64); 3] {
    let size = u64::from(queue.size());
    [
        (queue.desc_table(), 16 * size),
        (queue.avail_ring(), 6 + 2 * size),
        (queue.used_ring(), 6 + 8 * size),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn queue() -> Queue {
        let mut queue = Queue::new(256).unwrap();
        queue.set_desc_table_address(Some(0x8000_1000), None);
        queue.set_avail_ring_address(Some(0x8000_2000), None);
        queue.set_used_ring_address(Some(0x8000_4ffc), None);
        queue
    }

    #[test]
    fn each_page_of_each_ring_is_asked_for() {
        for (page, privates) in [
            (4096, &[0x8000_1000_u64, 0x8000_2000, 0x8000_4000, 0x8000_5000][..]),
            (16384, &[0x8000_0000, 0x8000_4000]),
        ] {
            for &private in privates {
                let answer = look::<Infallible>(&queue(), page, |at, size| {
                    assert_eq!((at % page, size % page), (0, 0));
                    let is_private = at == private;
                    let state = if is_private { RangeState::Private } else { RangeState::Shared };
                    Ok(Some((state, page)))
                });
                // The address is one of a ring's, not only of its page.
                let ring = [0x8000_1000, 0x8000_2000, 0x8000_4ffc, 0x8000_5000];
                let inside = |at: &&u64| (private..private + page).contains(*at);
                let expected = ring.iter().find(inside).copied().unwrap_or(0);
                assert_eq!(answer, Ok(Some(Answer::Private(expected))), "{page} {private:#x}");
            }
        }
    }

    #[test]
    fn what_is_not_private_may_be_touched() {
        let shared = |_, size| Ok::<_, Infallible>(Some((RangeState::Unpinned, size)));
        assert_eq!(look(&queue(), 4096, shared), Ok(Some(Answer::Reachable)));
        assert_eq!(look::<Infallible>(&queue(), 4096, |_, _| Ok(None)), Ok(None));
        assert_eq!(look(&queue(), 4096, |_, _| Err(5)), Err(5));
    }
}
