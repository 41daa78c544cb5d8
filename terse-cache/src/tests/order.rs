//! After a version was acknowledged or served, no older one is served, whoever answers.

use futures_util::FutureExt;
use terse_testkit::Gate;

use super::*;

#[tokio::test]
async fn an_outdated_answer_is_not_followed_by_an_older_one() {
    let fixture = Fixture::new();
    fixture.store.inner().lag(links::resolution("abc", 2));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Stale));
    fixture.clock.advance(Duration::from_millis(500));
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
    fixture.store.inner().lag(links::resolution("abc", 3));
    assert_eq!(fixture.answer("abc").await, (3, Tier::Stale));
}

#[tokio::test]
async fn an_aged_link_is_not_served_after_a_newer_outdated_answer() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.clock.advance(Duration::from_secs(1_800));
    fixture.store.inner().lag(links::resolution("abc", 2));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Stale));
    fixture.clock.advance(Duration::from_millis(500));
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn what_an_edit_makes_memory_forget_is_not_undone_by_an_outdated_answer() {
    for kind in [Some(StoreErrorKind::UnknownOutcome), Some(StoreErrorKind::Corrupt), None] {
        let fixture = Fixture::new();
        fixture.create("abc").await.unwrap();
        fixture.edit("abc", 1, LinkState::Disabled).await.unwrap();
        if let Some(kind) = kind {
            fixture.fail(Operation::Update, kind);
        }
        // Without a failure it is a conflict.
        let _ = fixture.edit("abc", 1, LinkState::Active).await;
        assert_eq!(fixture.cache.stats().links, 0, "{kind:?} forgets");
        fixture.store.inner().lag(links::resolution("abc", 1));
        assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable, "{kind:?}");
    }
}

#[tokio::test]
async fn the_version_that_a_conflict_told_is_not_undone_by_an_outdated_answer() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    // Somebody else edited it, past this cache.
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Disabled));
    assert_eq!(fixture.edit("abc", 1, LinkState::Active).await, Ok(Update::Conflict { current: Version(2) }));
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn what_was_served_but_not_kept_is_not_undone_by_an_outdated_answer() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.store.faults.add(Operation::Update, When::Every, Fault::LoseAnswer);
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap_err();
    assert_eq!((fixture.answer("abc").await, fixture.peek("abc")), ((2, Tier::Store), None));
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_quorum_that_forgot_an_acknowledged_edit_is_refused() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1_800 + 3_600));
    fixture.store.inner().links.lock().clear();
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable, "no such link");
    fixture.store_link("abc");
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable, "version 1");
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Disabled));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
}

#[tokio::test]
async fn a_quorum_is_served_but_not_kept_while_one_replica_is_ahead_of_it() {
    let fixture = Fixture::new();
    fixture.store.inner().lag(links::resolution("abc", 2));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Stale));
    fixture.clock.advance(Duration::from_millis(500));
    fixture.store.inner().catch_up();
    fixture.store_link("abc");
    assert_eq!((fixture.answer("abc").await, fixture.peek("abc")), ((1, Tier::Store), None));
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Disabled));
    assert_eq!((fixture.answer("abc").await, fixture.peek("abc")), ((2, Tier::Store), Some((2, Tier::L1))));
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_an_edit_is_no_fault_of_the_store() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    fixture.edit("abc", 1, LinkState::Disabled).await.unwrap();
    fixture.edit("abc", 9, LinkState::Disabled).await.unwrap();
    assert_eq!(fixture.peek("abc"), None, "a conflict forgets");
    gate.open();
    assert_eq!(reader.await, (1, Tier::Store));
}

#[tokio::test]
async fn the_least_versions_are_bounded() {
    let fixture = Fixture::with(CacheConfig { max_least: 100, outdated_for: Duration::ZERO, ..CacheConfig::default() });
    for n in 0..10_000 {
        fixture.store.inner().lag(links::resolution("abc", 2));
        fixture.answer(&format!("code{n}")).await;
    }
    let noted = fixture.cache.memory.least_len();
    assert!((50..=100).contains(&noted), "{noted} are noted");
}
