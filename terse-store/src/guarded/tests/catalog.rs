//! Catalog reads: they pass the guard of the redirects and never harm it.

use terse_core::Timestamp;
use terse_core::ports::{IdempotencyRecord, IdempotencyStore};

use super::*;

/// Catalog reads by the schedule's name.
const READS: [Operation; 7] = [
    Operation::Get,
    Operation::List,
    Operation::FindKey,
    Operation::Setting,
    Operation::Leases,
    Operation::Keys,
    Operation::KeysRevision,
];

pub(super) fn record() -> IdempotencyRecord {
    let created_at = Timestamp::from_millis(1);
    IdempotencyRecord { body_hash: [1; 32], code: code("abc"), attempt: attempt(1), created_at }
}

pub(super) async fn claim(store: &Store, record: &IdempotencyRecord) -> Result<Option<IdempotencyRecord>, StoreError> {
    store.claim_key(&Owner::open(), "key", record, Timestamp::from_millis(0)).await
}

pub(super) async fn replace(store: &Store, record: &IdempotencyRecord) -> Result<bool, StoreError> {
    store.replace_key(&Owner::open(), "key", attempt(1), record).await
}

pub(super) async fn purge(store: &Store) -> Result<usize, StoreError> {
    store.purge_keys(Timestamp::from_millis(0), 10).await
}

/// How a catalog read ended.
async fn read(store: &Store, operation: Operation) -> Result<(), StoreErrorKind> {
    let ended = match operation {
        Operation::Get => store.get(&code("abc")).await.map(drop),
        Operation::List => store.list(&Owner::open(), None, 10).await.map(drop),
        Operation::FindKey => store.find_key(&Owner::open(), "key").await.map(drop),
        Operation::Setting => store.setting("a").await.map(drop),
        Operation::Leases => store.leases("codes", 0, 10).await.map(drop),
        Operation::Keys => store.keys().await.map(drop),
        Operation::KeysRevision => store.keys_revision().await.map(drop),
        other => panic!("{other:?} is no catalog read"),
    };
    ended.map_err(|error| error.kind)
}

#[tokio::test]
async fn failing_catalog_reads_never_trip_the_guard_of_redirects() {
    for operation in READS {
        let fixture = Fixture::new();
        fixture.fails(operation);
        for _ in 0..50 {
            assert_eq!(read(&fixture.store, operation).await, Err(StoreErrorKind::Unavailable), "{operation:?}");
        }
        let seen = fixture.read().snapshot();
        assert_eq!((seen.state, seen.counts.ignored, seen.consecutive_failures), (State::Closed, 50, 0));
        assert_eq!(fixture.resolve().await.unwrap(), None);
        assert_eq!(fixture.write().snapshot().counts, Counts::default(), "{operation:?} is a read");
    }
}

#[tokio::test]
async fn an_open_guard_rejects_catalog_reads_too() {
    let fixture = Fixture::new();
    fixture.read().force(Some(Forced::Open));
    for operation in READS {
        assert_eq!(read(&fixture.store, operation).await, Err(StoreErrorKind::Unavailable));
        assert_eq!(fixture.calls(operation), 0, "{operation:?} was attempted");
    }
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn lists_that_hang_are_unavailable_and_trip_nothing() {
    let fixture = Fixture::new();
    fixture.hangs(Operation::List);
    let began = tokio::time::Instant::now();
    for _ in 0..10 {
        let error = fixture.list().await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (StoreErrorKind::Unavailable, "no answer within 1500 ms"));
    }
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    assert_eq!((fixture.read().state(), fixture.read().snapshot().counts.timeouts), (State::Closed, 0));
    fixture.assert_idle();
}

#[tokio::test]
async fn slow_lists_do_not_starve_redirects() {
    let mut small = settings();
    (small.read.permits, small.catalog.permits, small.redirects) = (8, 2, always(6));
    let fixture = Fixture::with(small);
    let gate = fixture.hangs(Operation::List);
    let lists: Vec<_> = (0..2)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.list(&Owner::open(), None, 10).await })
        })
        .collect();
    arrived(&gate, 2).await;
    let refused = fixture.list().await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (StoreErrorKind::Overloaded, "main/catalog: all 2 slots are taken")
    );
    assert_eq!(fixture.metrics.bulkhead_rejected("main/catalog").get(), 1);
    assert_eq!(fixture.calls(Operation::List), 2, "nothing was attempted");
    let redirects = Gate::closed();
    fixture.every(Operation::Resolve, Fault::HoldCall(redirects.clone()));
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.resolve(&code("abc")).await })
        })
        .collect();
    arrived(&redirects, 6).await;
    redirects.open();
    for redirect in waiting {
        redirect.await.unwrap().unwrap();
    }
    gate.open();
    for list in lists {
        list.await.unwrap().unwrap();
    }
    fixture.assert_idle();
}

#[tokio::test]
async fn a_list_that_is_cancelled_late_counts_as_nothing() {
    let fixture = Fixture::new();
    let gate = fixture.hangs(Operation::List);
    for number in 1..=10 {
        let store = fixture.store.clone();
        let list = tokio::spawn(async move { store.list(&Owner::open(), None, 10).await });
        arrived(&gate, number).await;
        fixture.clock.advance(Duration::from_secs(60));
        list.abort();
        assert!(list.await.unwrap_err().is_cancelled());
    }
    let counts = fixture.read().snapshot().counts;
    assert_eq!((counts.timeouts, counts.failures, fixture.read().state()), (0, 0, State::Closed));
    fixture.assert_idle();
}

#[tokio::test]
async fn lists_that_hang_leave_probes_for_redirects() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    let gate = fixture.hangs(Operation::List);
    let store = fixture.store.clone();
    let list = tokio::spawn(async move { store.list(&Owner::open(), None, 10).await });
    arrived(&gate, 1).await;
    for _ in 0..20 {
        let refused = fixture.list().await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_ms), (StoreErrorKind::Unavailable, 500));
        assert_eq!(refused.message, "main/read: a probe is under way");
    }
    assert_eq!(fixture.calls(Operation::List), 1);
    for _ in 0..2 {
        assert_eq!(fixture.resolve().await.unwrap(), None);
    }
    assert_eq!(fixture.read().state(), State::Closed);
    gate.open();
    list.await.unwrap().unwrap();
    fixture.assert_idle();
}

#[tokio::test]
async fn a_failing_list_decides_no_probe_and_gives_its_place_back() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    fixture.fails(Operation::List);
    for _ in 0..10 {
        assert_eq!(kind(fixture.list().await), StoreErrorKind::Unavailable);
    }
    let seen = fixture.read().snapshot();
    assert_eq!((seen.state, seen.probes_in_flight, seen.probes_succeeded), (State::HalfOpen, 0, 0));
}

#[tokio::test]
async fn where_only_lists_come_they_find_that_the_shard_is_back() {
    let fixture = Fixture::new();
    fixture.to_half_open().await;
    for _ in 0..2 {
        fixture.list().await.unwrap();
    }
    assert_eq!(fixture.read().state(), State::Closed);
}
