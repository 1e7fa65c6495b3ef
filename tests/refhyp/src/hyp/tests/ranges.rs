// SPDX-License-Identifier: Apache-2.0
//! Regions in number, and the extensions about ranges of guest memory.

use super::*;
use crate::regions::MAX_REGIONS;
use gzvm_abi::ext;

fn capability(hyp: &Hypervisor<'_, FakeHardware>, args: [u64; 4]) -> [u64; 4] {
    call(hyp, hvc::ENABLE_CAP, &args)
}

fn map(hyp: &Hypervisor<'_, FakeHardware>, id: u64, gfn: u64, pages: u64) -> i32 {
    status(hyp, hvc::MAP_GUEST, &[id, 5, BACKING, gfn, pages])
}

/// Registers slot 5 over 4 MiB whose pages need two tables, and gives its first frame.
fn region_of_two_tables(hyp: &Hypervisor<'_, FakeHardware>, id: u64) -> u64 {
    let gpa = 0x100_0000;
    assert_eq!(status(hyp, hvc::MEMREGION_PURPOSE, &[id, gpa, 4 << 20, 1]), 0);
    hyp.hw.write(BUFFER + 8, 1024);
    hyp.hw.write(BUFFER + 16, gpa);
    assert_eq!(status(hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
    gpa >> 12
}

const REFUSED: u64 = hvc::ERR_INVALID_ARGS as i64 as u64;

#[test]
fn a_vm_has_room_for_many_regions() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let announce = |n: u64| {
        let gpa = 0x1_0000_0000 + n * 0x10_0000;
        status(&hyp, hvc::MEMREGION_PURPOSE, &[id, gpa, 0x8_0000, 1])
    };
    let room = MAX_REGIONS as u64 - 1;
    assert!((0..room).all(|n| announce(n) == 0));
    assert_eq!(announce(room), hvc::ERR_NO_MEMORY);
    let second = [id, ext::REMOVE_REGION, 0x1_0010_0000, 0x8_0000];
    assert_eq!(capability(&hyp, second)[0], 0);
    assert_eq!(capability(&hyp, second)[0], REFUSED, "it is gone");
    assert_eq!(announce(room), 0);
}

#[test]
fn a_removed_region_can_be_announced_with_other_bounds() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let (gfn, size) = (GUEST >> 12, 8 * PAGE_SIZE);
    assert_eq!(map(&hyp, id, gfn + 2, 3), 0);
    let remove = |gpa: u64, size: u64| capability(&hyp, [id, ext::REMOVE_REGION, gpa, size])[0];
    assert_eq!(remove(GUEST, size), REFUSED, "pages are mapped in it");
    assert_eq!(remove(GUEST, size - PAGE_SIZE), REFUSED, "not its bounds");
    assert_eq!(capability(&hyp, [id, ext::UNMAP_RANGE, gfn, 8]), [0, 8, 0, 0]);
    let run = begin(&hyp, id);
    assert_eq!(remove(GUEST, size), 0, "while a vCPU runs, too");
    drop(run);
    assert_eq!(map(&hyp, id, gfn + 2, 1), hvc::ERR_INVALID_ARGS);
    let announce = [id, GUEST - PAGE_SIZE, 4 * PAGE_SIZE, 1];
    assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &announce), 0);
    assert_eq!(map(&hyp, id, gfn, 1), hvc::ERR_INVALID_ARGS, "not registered yet");
    hyp.hw.write(BUFFER, 5);
    hyp.hw.write(BUFFER + 8, 4);
    hyp.hw.write(BUFFER + 16, GUEST - PAGE_SIZE);
    assert_eq!(status(&hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
    assert_eq!(map(&hyp, id, gfn - 1, 4), 0);
}

#[test]
fn unmapping_goes_on_behind_what_is_done() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let gfn = region_of_two_tables(&hyp, id);
    // A page at each end.
    assert_eq!((map(&hyp, id, gfn, 1), map(&hyp, id, gfn + 1023, 1)), (0, 0));
    let busy = hvc::ERR_BUSY as i64 as u64;
    assert_eq!(capability(&hyp, [id, ext::UNMAP_RANGE, gfn, 1024]), [busy, 512, 0, 0]);
    assert_eq!(capability(&hyp, [id, ext::UNMAP_RANGE, gfn + 512, 512]), [0, 512, 0, 0]);
    assert_eq!(hyp.memory.lock().page(BACKING), Page::FREE);
    for (gfn, pages) in [(gfn, 0), (gfn, 1025), (gfn - 1, 2), (0, 1), (gfn, u64::MAX)] {
        let answer = capability(&hyp, [id, ext::UNMAP_RANGE, gfn, pages]);
        assert_eq!(answer, [REFUSED, 0, 0, 0], "{gfn:#x} {pages}");
    }
}

#[test]
fn a_region_that_gets_a_page_while_it_is_looked_at_stays() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    let gfn = region_of_two_tables(&hyp, id);
    // Leaves a table with nothing in it behind, so that looking takes two slices.
    assert_eq!(map(&hyp, id, gfn + 1, 1), 0);
    let mut run = begin(&hyp, id);
    let relinquish = [u64::from(guest::MEM_RELINQUISH), (gfn + 1) << 12, 0, 0];
    assert!(matches!(hvc_call(&hyp, &mut run, &relinquish), Next::Exit(Exit::Hypercall(_))));
    let args = [id, ext::REMOVE_REGION, 0x100_0000, 4 << 20, 0, 0, 0];
    let remove = Call { index: index(hvc::ENABLE_CAP), args };
    assert_eq!(hyp.host_call(&remove), Answer::Again);
    assert_eq!(map(&hyp, id, gfn, 1), 0);
    assert_eq!(hyp.host_call(&remove), Answer::status(hvc::ERR_INVALID_ARGS));
    assert_eq!(capability(&hyp, [id, ext::UNMAP_RANGE, gfn, 1])[0], 0);
    assert_eq!(capability(&hyp, [id, ext::REMOVE_REGION, 0x100_0000, 4 << 20])[0], 0);
}

#[test]
fn a_protected_vm_s_memory_is_not_the_host_s_to_take() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let gfn = GUEST >> 12;
    assert_eq!(map(&hyp, id, gfn, 2), 0);
    let refused = hvc::ERR_NOT_SUPPORTED as i64 as u64;
    assert_eq!(capability(&hyp, [id, ext::UNMAP_RANGE, gfn, 8]), [refused, 0, 0, 0]);
    let state = |gfn: u64, pages: u64| capability(&hyp, [id, ext::QUERY_RANGE_STATE, gfn, pages]);
    assert_eq!(state(gfn, 8), [0, ext::RANGE_PRIVATE, 2, 0]);
    let mut run = begin(&hyp, id);
    hvc_call(&hyp, &mut run, &[u64::from(guest::MEM_SHARE), GUEST + PAGE_SIZE]);
    drop(run);
    assert_eq!(state(gfn, 8), [0, ext::RANGE_PRIVATE, 1, 0]);
    assert_eq!(state(gfn + 1, 8), [0, ext::RANGE_SHARED, 1, 0]);
    assert_eq!(state(gfn + 2, 6), [0, ext::RANGE_ABSENT, 6, 0]);
    for (gfn, pages) in [(gfn, 0), (1 << 28, 1), (0, (1 << 28) + 1), (u64::MAX, 2)] {
        assert_eq!(state(gfn, pages), [REFUSED, 0, 0, 0]);
    }
    // An empty region of a protected VM can go.
    let size = 8 * PAGE_SIZE;
    assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &[id, GUEST + size, size, 1]), 0);
    assert_eq!(capability(&hyp, [id, ext::REMOVE_REGION, GUEST + size, size])[0], 0);
    assert_eq!(capability(&hyp, [id, ext::REMOVE_REGION, GUEST, size])[0], REFUSED);
}
