//! `LeaseStore`.

use std::ops::Range;

use terse_core::Timestamp;
use terse_core::ports::{HomeStore, LEASE_HOLDER_MAX_BYTES, Lease};

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
    the_log_tells_who_leased_what_and_when(&store).await;
    the_log_is_read_in_pages(&store).await;
    what_was_not_leased_is_not_in_the_log(&store).await;
    a_long_holder_is_cut(&store).await;
    the_log_agrees_with_concurrent_leases(&store).await;
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
        let (tasks, each) = (store.callers(tasks), store.rounds(each) as u64);
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

fn at(minute: i64) -> Timestamp {
    AT.plus_millis(minute * 60_000)
}

/// All records of `counter`.
async fn log(store: &Store, counter: &str) -> Vec<Lease> {
    store.leases(counter, 0, usize::MAX).await.unwrap()
}

async fn the_log_tells_who_leased_what_and_when(store: &Store) {
    let mut expected = vec![];
    // A time that goes back is a clock that was set: the order is that of the ids.
    for (size, holder, minute) in
        [(10, "web1 10.0.0.1:8080", 5), (1, "web2 [::1]:80", 4), (1 << 33, "", 9), (3, "ü", -9)]
    {
        let ids = store.lease("log", size, holder, at(minute)).await.unwrap();
        expected.push(Lease { ids, holder: holder.to_owned(), leased_at: at(minute) });
    }
    store.lease("another log", 10, HOLDER, AT).await.unwrap();
    assert_eq!(log(store, "log").await, expected);
    assert_eq!(log(store, "another log").await.len(), 1);
    assert_eq!(log(store, "no log").await, []);
}

async fn the_log_is_read_in_pages(store: &Store) {
    for _ in 0..7 {
        store.lease("pages", 10, HOLDER, AT).await.unwrap();
    }
    let all = log(store, "pages").await;
    assert_eq!(all.len(), 7);
    let page = async |from, limit| store.leases("pages", from, limit).await.unwrap();
    assert_eq!(page(0, 3).await, all[..3]);
    assert_eq!(page(all[2].ids.start, 2).await, all[2..4], "the first id itself belongs to the page");
    assert_eq!(page(all[2].ids.start + 1, 2).await, all[3..5], "a block that began before doesn't");
    assert_eq!(page(all[6].ids.start, 9).await, all[6..]);
    assert_eq!(page(0, 0).await, []);
    for beyond in [all[6].ids.end, i64::MAX.unsigned_abs(), u64::MAX] {
        assert_eq!(page(beyond, 9).await, []);
    }
}

async fn what_was_not_leased_is_not_in_the_log(store: &Store) {
    store.lease("refused", 10, HOLDER, AT).await.unwrap();
    let before = log(store, "refused").await;
    store.lease("refused", u64::MAX, HOLDER, AT).await.unwrap_err();
    assert!(store.lease("refused", 0, HOLDER, AT).await.unwrap().is_empty());
    assert_eq!(log(store, "refused").await, before);
    assert!(!store.lease("refused", 10, HOLDER, AT).await.unwrap().is_empty(), "an empty lease stands in nobody's way");
}

async fn a_long_holder_is_cut(store: &Store) {
    let long = "ü".repeat(LEASE_HOLDER_MAX_BYTES);
    store.lease("long", 1, &long, AT).await.unwrap();
    assert_eq!(log(store, "long").await[0].holder, "ü".repeat(LEASE_HOLDER_MAX_BYTES / 2));
}

async fn the_log_agrees_with_concurrent_leases(store: &Store) {
    // Twelve who all want one row are slow on a cluster, which lets one of them have it at a time.
    let each = i64::try_from(store.rounds(60)).unwrap().min(10);
    let results = race(12, |number| {
        let store = store.clone();
        async move {
            let mut leased: Vec<Lease> = Vec::new();
            for step in 0..each {
                let (holder, leased_at) = (format!("node {number}"), at(step));
                let size = 1 + (number as u64 + step.unsigned_abs()) % 9;
                let ids = store.lease("raced log", size, &holder, leased_at).await.unwrap();
                leased.push(Lease { ids, holder, leased_at });
                let page = store.leases("raced log", leased[0].ids.start, usize::MAX).await.unwrap();
                assert!(page.contains(&leased[leased.len() - 1]), "what was answered is in the log");
            }
            leased
        }
    })
    .await;
    let mut leased: Vec<Lease> = results.into_iter().flatten().collect();
    leased.sort_by_key(|lease| lease.ids.start);
    assert_disjoint(leased.iter().map(|lease| lease.ids.clone()).collect());
    assert_eq!(log(store, "raced log").await, leased);
}
