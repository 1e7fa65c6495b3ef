// SPDX-License-Identifier: Apache-2.0
//! The balloon's queues with anything in them, and its features.

use super::*;
use crate::devices::virtio::hostile::rings;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn balloon(rule: Rule, protected: bool, reporting: bool) -> Balloon {
    Balloon::new(Arc::new(Handle::new().unwrap()), rule, protected, reporting)
}

#[test]
fn reporting_is_offered_where_it_frees_memory() {
    for (rule, wanted, offered) in [
        (Rule::Followed, true, true),
        (Rule::Unpinned, true, true),
        (Rule::Unpinned, false, false),
        (Rule::Never, true, false),
    ] {
        let balloon = balloon(rule, false, wanted);
        assert_eq!(balloon.features() & REPORTING != 0, offered, "{rule:?}");
        assert_eq!(balloon.queue_sizes().len(), if offered { 4 } else { 3 });
    }
}

#[test]
fn private_rings_are_refused_in_a_protected_vm_only() {
    let mainline = STATS_VQ;
    assert_eq!(balloon(Rule::Unpinned, false, true).refuses(mainline), None);
    let protected = balloon(Rule::Unpinned, true, true);
    assert_eq!(protected.refuses(mainline | ACCESS_PLATFORM), None);
    assert!(protected.handle.adjust(0, false).is_ok());
    assert_eq!(protected.refuses(mainline), Some(UNSUPPORTED));
    assert_eq!(protected.handle.adjust(0, false), Err(UNSUPPORTED.into()));
}

#[test]
fn the_guest_writes_its_size_and_nothing_else() {
    let balloon = balloon(Rule::Never, false, false);
    balloon.handle.adjust(7 * UNIT, false).unwrap();
    balloon.write_config(0, &[9, 0, 0, 0]);
    balloon.write_config(4, &[1, 0]);
    balloon.write_config(5, &[1, 0, 0, 0]);
    balloon.write_config(u64::MAX, &[1, 0, 0, 0]);
    assert_eq!(balloon.handle.sizes(), (7, 0));
    balloon.write_config(4, &[0xff; 4]);
    let mut config = [0; 16];
    balloon.read_config(0, &mut config);
    assert_eq!(config[..8], [7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(config[8..], [0; 8]);
}

#[test]
fn neighbours_make_one_range() {
    let all: Vec<_> = runs(vec![1, 2, 3, 7, u32::MAX - 1, u32::MAX]).collect();
    let last = u64::from(u32::MAX - 1) * UNIT;
    assert_eq!(all, [(UNIT, 3 * UNIT), (7 * UNIT, UNIT), (last, 2 * UNIT)]);
    assert_eq!(runs(Vec::new()).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn ranges_are_the_numbers_again(numbers in proptest::collection::btree_set(0..50_u32, 0..40)) {
        let found: BTreeSet<u32> = runs(numbers.iter().copied().collect())
            .flat_map(|(start, len)| start / UNIT..(start + len) / UNIT)
            .map(|number| u32::try_from(number).unwrap())
            .collect();
        prop_assert_eq!(found, numbers);
    }

    #[test]
    fn any_rings_are_survived(rings in rings()) {
        rings.serve(|memory, chain| {
            let numbers = page_numbers(memory, chain.clone());
            assert!(!numbers.is_ok_and(|numbers| numbers.len() > NUMBERS / 4));
            Pages(None).report(memory, chain.clone());
            read_stats(memory, chain);
            Some(0)
        });
    }
}
