// SPDX-License-Identifier: Apache-2.0
//! Tests of the guest's calls against the fake hypervisor.

use crate::fake::FakeHypervisor;
use crate::{Counter, Error, GenieZone, SharedRange, Status, Trng, Uid};
use gzvm_abi::guest;

const BASE: u64 = 0x8000_0000;
const PAGE: u64 = gzvm_abi::PAGE_SIZE;

/// Shares memory that does not exist, so that nothing can refer to it.
#[allow(unsafe_code)]
fn share<'a>(
    geniezone: &'a GenieZone<&'a FakeHypervisor>,
    base: u64,
    size: u64,
) -> Result<SharedRange<'a, &'a FakeHypervisor>, Error> {
    // SAFETY: The fake hypervisor shares nothing.
    unsafe { geniezone.share(base, size) }
}

#[test]
fn only_geniezone_is_detected() {
    let hypervisor = FakeHypervisor::new(true);
    assert!(GenieZone::detect(&hypervisor).is_ok());
    let kvm = [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d];
    hypervisor.set_uid(kvm);
    assert_eq!(GenieZone::detect(&hypervisor).unwrap_err(), Error::NotGenieZone(Uid(kvm)));
}

#[test]
fn features_tell_a_protected_vm_from_another() {
    for protected in [true, false] {
        let hypervisor = FakeHypervisor::new(protected);
        let features = GenieZone::detect(&hypervisor).unwrap().features().unwrap().unwrap();
        assert_eq!(features.memory_sharing(), protected);
        assert!(features.clock() && features.mmio_guard());
    }
}

#[test]
fn a_hypervisor_without_a_features_bitmap_is_not_an_error() {
    let hypervisor = FakeHypervisor::new(true);
    // As a 32-bit answer in either form: sign-extended to 64 bits, or not.
    for minus_one in [-1, 0xffff_ffff] {
        hypervisor.set_answer(guest::VENDOR_FEATURES, None, minus_one);
        assert_eq!(GenieZone::detect(&hypervisor).unwrap().features(), Ok(None));
    }
}

#[test]
fn a_shared_range_is_private_again_when_dropped() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    let range = share(&geniezone, BASE, 3 * PAGE).unwrap();
    assert_eq!((range.base(), range.size()), (BASE, 3 * PAGE));
    assert_eq!(hypervisor.shared(), [BASE, BASE + PAGE, BASE + 2 * PAGE]);
    drop(range);
    assert!(hypervisor.shared().is_empty());
    assert_eq!(geniezone.stuck_granules(), 0);
}

#[test]
fn a_refused_granule_takes_back_those_before_it() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    hypervisor.set_answer(guest::MEM_SHARE, Some(BASE + 2 * PAGE), -3);
    let error = share(&geniezone, BASE, 4 * PAGE).unwrap_err();
    let status = Status::INVALID_PARAMETER;
    assert_eq!(error, Error::Refused { function: guest::MEM_SHARE, status });
    assert!(hypervisor.shared().is_empty());
}

#[test]
fn a_granule_that_stays_shared_is_counted_and_the_others_return() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    hypervisor.set_answer(guest::MEM_UNSHARE, Some(BASE + PAGE), -3);
    let range = share(&geniezone, BASE, 3 * PAGE).unwrap();
    assert!(range.unshare().is_err());
    assert_eq!(hypervisor.shared(), [BASE + PAGE]);
    assert_eq!(geniezone.stuck_granules(), 1);
}

#[test]
fn ranges_must_consist_of_granules() {
    let hypervisor = FakeHypervisor::new(true);
    hypervisor.set_granule(4 * PAGE);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    let last = u64::MAX - (4 * PAGE - 1);
    for (base, size) in
        [(BASE, 0), (BASE, PAGE), (BASE + PAGE, 4 * PAGE), (last, 8 * PAGE), (BASE, u64::MAX)]
    {
        let expected = Error::BadRange { base, size, granule: 4 * PAGE };
        assert_eq!(share(&geniezone, base, size).unwrap_err(), expected);
    }
    assert!(!hypervisor.calls().contains(&guest::MEM_SHARE));
    assert_eq!(share(&geniezone, BASE, 8 * PAGE).unwrap().size(), 8 * PAGE);
}

#[test]
fn absurd_granules_are_refused() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    for granule in [0, 1, 2048, 4097, 12288] {
        hypervisor.set_granule(granule);
        let function = guest::MEMINFO;
        assert_eq!(geniezone.share_granule(), Err(Error::BadGranule { function, granule }));
        assert!(geniezone.enroll_mmio_guard().is_err());
    }
}

#[test]
fn the_guard_is_mapped_until_dropped_or_for_good() {
    let hypervisor = FakeHypervisor::new(false);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    let guard = geniezone.enroll_mmio_guard().unwrap();
    assert_eq!(guard.granule(), PAGE);
    let range = guard.map(0x2c00_0000, 2 * PAGE).unwrap();
    assert_eq!((range.base(), range.size()), (0x2c00_0000, 2 * PAGE));
    guard.map(0, PAGE).unwrap().keep();
    assert_eq!(hypervisor.guarded().len(), 3);
    range.unmap().unwrap();
    assert_eq!(hypervisor.guarded(), [0]);
}

#[test]
fn a_guard_that_is_not_there_is_an_error_with_the_call_in_it() {
    let hypervisor = FakeHypervisor::new(false);
    hypervisor.set_answer(guest::MMIO_GUARD_ENROLL, None, -2);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    let error = geniezone.enroll_mmio_guard().unwrap_err();
    let text = "the hypervisor refused MMIO_GUARD_ENROLL (0xc6000006): not required (-2)";
    assert_eq!(error.to_string(), text);
}

#[test]
#[allow(unsafe_code)]
fn relinquish_names_the_page() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    // SAFETY: The fake hypervisor takes nothing away.
    unsafe { geniezone.relinquish(BASE) }.unwrap();
    assert_eq!(hypervisor.relinquished(), [BASE]);
}

#[test]
fn the_clock_is_joined_from_halves() {
    let hypervisor = FakeHypervisor::new(true);
    let geniezone = GenieZone::detect(&hypervisor).unwrap();
    let sample = geniezone.clock(Counter::Virtual).unwrap();
    assert_eq!((sample.wall_ns, sample.cycles), (0x1122_3344_5566, 0x77_0000_0088));
    hypervisor.set_answer(guest::PTP, Some(guest::PTP_PHYS_COUNTER), -1);
    assert!(geniezone.clock(Counter::Physical).is_err());
}

#[test]
fn random_bytes_fill_buffers_of_any_size() {
    let hypervisor = FakeHypervisor::new(true);
    let trng = Trng::new(&hypervisor).unwrap();
    for size in [0, 1, 23, 24, 25, 4096] {
        let mut buffer = vec![0; size];
        trng.fill(&mut buffer).unwrap();
        let zeros = buffer.iter().filter(|&&byte| byte == 0).count();
        assert!(zeros <= size / 32 + 1, "{zeros} zeros of {size}");
    }
}

#[test]
fn a_trng_that_is_too_old_or_dry_is_an_error() {
    let hypervisor = FakeHypervisor::new(true);
    hypervisor.set_answer(0xc400_0053, None, -3);
    let trng = Trng::new(&hypervisor).unwrap();
    assert!(trng.fill(&mut [0; 8]).is_err());
    assert!(hypervisor.calls().len() < 2000, "bounded");

    hypervisor.set_answer(0x8400_0050, None, 0x2_0000);
    let error = Trng::new(&hypervisor).unwrap_err();
    assert_eq!(error, Error::BadVersion { function: 0x8400_0050, major: 2, minor: 0 });

    hypervisor.set_answer(guest::SMCCC_VERSION, None, 0x1_0000);
    let asked = hypervisor.calls().len();
    assert!(Trng::new(&hypervisor).is_err());
    // Nothing is asked of an SMCCC 1.0 hypervisor.
    assert_eq!(hypervisor.calls()[asked..], [guest::SMCCC_VERSION]);
}
