//! Which answers are believed when there is no quorum.

use std::time::{Duration, Instant};

use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use terse_core::ports::{
    ChangeFeed, Insert, LinkCatalog, LinkChange, LinkReader, LinkWriter, SettingsStore, StoreErrorKind, StoreHealth,
    Tier, Update,
};
use terse_core::{LinkState, Version};
use terse_resilience::{Forced, State};
use terse_testkit::links::{attempt, code, link};

use crate::cluster::{Keyspace, connected, now, with_keyspace, with_shared_keyspace};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_quorum_breaker_is_open_one_replica_is_asked() {
    with_shared_keyspace(|keyspace| async move {
        let (store, quorum) = connected(&keyspace).await;
        let first = link("one");
        assert_eq!(store.insert_if_absent(&first, attempt(1)).await.unwrap(), Insert::Created);
        assert_eq!(store.resolve(&first.code).await.unwrap().tier, Tier::Store);
        // A commit is acknowledged by two replicas of three: wait for the third, or it may say "not found" by right.
        wait_for_all_replicas(&keyspace, "one").await;
        quorum.force(Some(Forced::Open));
        let before = quorum.snapshot().counts;
        let lookup = store.resolve(&first.code).await.unwrap();
        assert_eq!((lookup.link.as_ref(), lookup.tier), (Some(&first.resolution()), Tier::Stale));
        let error = store.resolve(&code("missing")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "one replica's not found is no answer");
        assert!(error.retry_after_ms > 0);
        let after = quorum.snapshot().counts;
        assert_eq!(after.successes, before.successes, "only what a quorum says is told to its breaker");
        quorum.force(None);
        assert_eq!(store.resolve(&code("missing")).await.unwrap().tier, Tier::Store);
    })
    .await;
}

async fn wait_for_all_replicas(keyspace: &Keyspace, code: &str) {
    let mut query = Statement::new(format!("SELECT code FROM {}.links WHERE code = ?", keyspace.name));
    query.set_consistency(Consistency::All);
    // A read from all replicas repairs those that lag.
    let answer = keyspace.session.query_unpaged(query, (code,)).await.unwrap();
    assert_eq!(answer.into_rows_result().unwrap().rows_num(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_quorum_links_still_resolve_and_nothing_is_missing() {
    with_keyspace(|keyspace| async move {
        let (store, quorum) = connected(&keyspace).await;
        let first = link("there");
        store.insert_if_absent(&first, attempt(1)).await.unwrap();
        wait_for_all_replicas(&keyspace, "there").await;
        // Of nine replicas three exist: one can be asked, five can't.
        keyspace.set_replicas(9, false).await;
        let mut opened = false;
        for _ in 0..20 {
            let lookup = store.resolve(&first.code).await.unwrap();
            assert_eq!((lookup.link.as_ref(), lookup.tier), (Some(&first.resolution()), Tier::Stale));
            let error = store.resolve(&code("missing")).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Unavailable);
            opened |= quorum.state() == State::Open;
        }
        assert!(opened, "{:?}", quorum.snapshot());
        let refused = store.insert_if_absent(&link("new"), attempt(2)).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused}");
        let change = LinkChange { state: LinkState::Disabled, ..LinkChange::of(&first) };
        let refused = store.update(&first.code, Version::FIRST, &change).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused}");
        assert!(store.marks(now().plus_millis(-10_000), now(), None, 10).await.is_err());
        keyspace.set_replicas(3, true).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while store.resolve(&code("new")).await.map(|lookup| lookup.tier).ok() != Some(Tier::Store) {
            assert!(Instant::now() < deadline, "{:?}", quorum.snapshot());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(store.resolve(&code("new")).await.unwrap().link.is_none(), "a refused create made a link");
        let update = store.update(&first.code, Version::FIRST, &change).await.unwrap();
        assert!(matches!(update, Update::Updated(_)), "{update:?}");
    })
    .await;
}

/// What stands of a setting is believed without a quorum; that writes succeed never is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_quorum_a_write_that_is_tried_fails_whatever_stands() {
    with_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        // The second one finds what the first one did.
        for _ in 0..2 {
            let failed = store.check_writes(true).await;
            assert!(failed.is_empty(), "{failed:?}");
        }
        keyspace.set_replicas(9, false).await;
        let failed = store.check_writes(true).await;
        assert!(matches!(failed.as_slice(), [(shard, _)] if shard == "main"), "{failed:?}");
        assert!(store.check_writes(false).await.is_empty(), "nobody doubts them");
        keyspace.set_replicas(3, true).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !store.check_writes(true).await.is_empty() {
            assert!(Instant::now() < deadline, "writes succeed no more");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(store.names("", 10).await.unwrap(), [""; 0], "it leaves nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_that_fail_say_nothing_of_the_quorum() {
    with_keyspace(|keyspace| async move {
        let (store, quorum) = connected(&keyspace).await;
        let first = link("listed");
        store.insert_if_absent(&first, attempt(1)).await.unwrap();
        // Nothing of any list can be read any more, and all else can.
        keyspace.run("DROP TABLE KS.owner_months").await;
        for _ in 0..20 {
            assert_eq!(store.list(&first.owner, None, 10).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        }
        assert_eq!((quorum.state(), quorum.snapshot().counts.failures), (State::Closed, 0));
        assert_eq!(store.resolve(&first.code).await.unwrap().tier, Tier::Store);
        assert_eq!(store.resolve(&code("missing")).await.unwrap().link, None);
        let change = LinkChange { state: LinkState::Disabled, ..LinkChange::of(&first) };
        assert!(matches!(store.update(&first.code, Version::FIRST, &change).await.unwrap(), Update::Updated(_)));
    })
    .await;
}
