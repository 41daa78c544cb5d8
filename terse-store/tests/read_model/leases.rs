//! `lease`, under a clock of the test's own.

use std::time::Duration;

use terse_core::stats::Partition;
use terse_core::{Clock, Timestamp};
use terse_testkit::TestClock;

use crate::backends::Backend;
use crate::race::race;

const TTL_MS: u64 = 5_000;

pub(crate) async fn run(backend: &Backend) {
    // Each check long after the one before, whose leases have ended.
    for (number, check) in (1..).zip([Check::Holder, Check::Ends, Check::Partitions, Check::Race]) {
        let clock = TestClock::at(Timestamp::from_millis(1_767_268_800_000 + number * 3_600_000));
        match check {
            Check::Holder => a_lease_is_its_holders_until_it_ends(backend, &clock).await,
            Check::Ends => a_renewed_lease_ends_later(backend, &clock).await,
            Check::Partitions => partitions_are_leased_as_the_backend_says(backend, &clock).await,
            Check::Race => of_many_that_want_it_one_gets_it(backend, &clock).await,
        }
    }
}

#[derive(Clone, Copy)]
enum Check {
    Holder,
    Ends,
    Partitions,
    Race,
}

async fn a_lease_is_its_holders_until_it_ends(backend: &Backend, clock: &TestClock) {
    let (mine, theirs) = (backend.open().await, backend.open().await);
    let partition = Partition::Stream(300);
    assert!(mine.lease(partition, "me", clock.now(), TTL_MS).await.unwrap());
    assert!(!theirs.lease(partition, "they", clock.now(), TTL_MS).await.unwrap());
    assert!(!mine.lease(partition, "they", clock.now(), TTL_MS).await.unwrap(), "the holder counts, not the instance");
    clock.advance(Duration::from_millis(TTL_MS - 1));
    assert!(!theirs.lease(partition, "they", clock.now(), TTL_MS).await.unwrap());
    clock.advance(Duration::from_millis(1));
    assert!(theirs.lease(partition, "they", clock.now(), TTL_MS).await.unwrap());
    assert!(!mine.lease(partition, "me", clock.now(), TTL_MS).await.unwrap());
}

async fn a_renewed_lease_ends_later(backend: &Backend, clock: &TestClock) {
    let model = backend.open().await;
    let partition = Partition::Stream(301);
    for _ in 0..3 {
        assert!(model.lease(partition, "me", clock.now(), TTL_MS).await.unwrap());
        clock.advance(Duration::from_millis(TTL_MS - 1));
        assert!(!model.lease(partition, "they", clock.now(), TTL_MS).await.unwrap());
    }
    clock.advance(Duration::from_millis(1));
    assert!(model.lease(partition, "they", clock.now(), TTL_MS).await.unwrap());
    // A lease is given back by making it end.
    assert!(model.lease(partition, "they", clock.now(), 0).await.unwrap());
    assert!(model.lease(partition, "me", clock.now(), TTL_MS).await.unwrap());
}

async fn partitions_are_leased_as_the_backend_says(backend: &Backend, clock: &TestClock) {
    let model = backend.open().await;
    let (one, other) = (Partition::Stream(302), Partition::Stream(303));
    assert!(model.lease(one, "me", clock.now(), TTL_MS).await.unwrap());
    assert_eq!(model.lease(other, "they", clock.now(), TTL_MS).await.unwrap(), !backend.traits.one_lease);
    assert_eq!(model.lease(other, "me", clock.now(), TTL_MS).await.unwrap(), backend.traits.one_lease);
}

async fn of_many_that_want_it_one_gets_it(backend: &Backend, clock: &TestClock) {
    let partition = Partition::Stream(304);
    for _ in 0..backend.some_of(5) {
        clock.advance(Duration::from_millis(TTL_MS));
        let now = clock.now();
        let got = race(6, |number| {
            let backend = backend.clone();
            async move {
                let model = backend.open().await;
                model.lease(partition, &format!("holder {number}"), now, TTL_MS).await.unwrap()
            }
        })
        .await;
        assert_eq!(got.iter().filter(|got| **got).count(), 1, "{got:?}");
    }
}
