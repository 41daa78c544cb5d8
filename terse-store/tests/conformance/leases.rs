//! `LeaseStore`.

use std::ops::Range;

use terse_core::Timestamp;
use terse_core::ports::HomeStore;

use crate::backends::Held;
use crate::race::race;

type Store = Held<dyn HomeStore>;

const HOLDER: &str = "web1 127.0.0.1:8080";
const AT: Timestamp = Timestamp::from_millis(1_700_000_000_123);

pub(crate) async fn run(store: Store) {
    ids_start_at_zero_and_never_repeat(&store).await;
    counters_are_independent(&store).await;
    a_counter_that_would_overflow_refuses_and_goes_on(&store).await;
    concurrent_leases_are_disjoint(&store).await;
}

/// No id is in two ranges, and each range has `size` ids.
fn assert_disjoint(mut ranges: Vec<Range<u64>>) {
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|two| two[0].end <= two[1].start), "{ranges:?}");
}

async fn ids_start_at_zero_and_never_repeat(store: &Store) {
    let mut ranges = Vec::new();
    for size in [1, 1, 1_000, 7, 1 << 40] {
        let range = store.lease("start", size, HOLDER, AT).await.unwrap();
        assert_eq!(range.end - range.start, size);
        ranges.push(range);
    }
    assert_eq!(ranges[0].start, 0);
    assert_disjoint(ranges);
}

async fn counters_are_independent(store: &Store) {
    assert_eq!(store.lease("one", 10, HOLDER, AT).await.unwrap(), 0..10);
    assert_eq!(store.lease("two", 5, HOLDER, AT).await.unwrap(), 0..5);
    assert!(store.lease("one", 10, HOLDER, AT).await.unwrap().start >= 10);
}

async fn a_counter_that_would_overflow_refuses_and_goes_on(store: &Store) {
    let first = store.lease("overflow", 100, HOLDER, AT).await.unwrap();
    store.lease("overflow", u64::MAX, HOLDER, AT).await.unwrap_err();
    let second = store.lease("overflow", 100, HOLDER, AT).await.unwrap();
    assert_disjoint(vec![first, second]);
}

async fn concurrent_leases_are_disjoint(store: &Store) {
    for (tasks, each) in [(2, 40), (50, 4)] {
        let counter = format!("race{tasks}");
        let results = race(tasks, |number| {
            let (store, counter) = (store.clone(), counter.clone());
            async move {
                let mut ranges: Vec<Range<u64>> = Vec::new();
                for step in 0..each {
                    let size = 1 + (number as u64 + step) % 9;
                    let range = store.lease(&counter, size, HOLDER, AT).await.unwrap();
                    assert_eq!(range.end - range.start, size);
                    assert!(ranges.last().is_none_or(|last| last.end <= range.start), "ids went back");
                    ranges.push(range);
                }
                ranges
            }
        })
        .await;
        assert_disjoint(results.into_iter().flatten().collect());
    }
}
