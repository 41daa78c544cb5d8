//! How long what is answered, and what is served when the store is out of reach.

use terse_core::{Clock, Timestamp, Verdict};

use super::*;

const ALL_KINDS: [StoreErrorKind; 4] =
    [StoreErrorKind::Unavailable, StoreErrorKind::Overloaded, StoreErrorKind::UnknownOutcome, StoreErrorKind::Corrupt];

/// A cache that has loaded `abc`, half an hour ago.
async fn aged() -> Fixture {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    fixture.clock.advance(Duration::from_secs(1_800));
    fixture
}

#[tokio::test]
async fn a_link_is_read_once_and_then_answered_from_memory() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    assert_eq!(fixture.peek("abc"), None);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    assert_eq!(fixture.answer("abc").await, (1, Tier::L1));
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test]
async fn looking_into_memory_takes_any_text_and_never_reads() {
    let fixture = Fixture::new();
    for text in ["", "a/b", "ü", &"x".repeat(10_000), "abc"] {
        assert!(fixture.cache.peek(text).is_none());
    }
    assert_eq!(fixture.reads(), 0);
}

#[tokio::test]
async fn codes_are_told_apart_by_case_and_by_every_letter() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    for other in ["Abc", "ab", "abcd", "abc-"] {
        assert_eq!(fixture.answer(other).await, (0, Tier::Store), "{other}");
    }
}

#[tokio::test]
async fn an_aged_link_is_read_again() {
    let fixture = aged().await;
    assert_eq!(fixture.peek("abc"), None);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
}

#[tokio::test]
async fn a_wall_clock_that_steps_ages_nothing() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    for year in ["1990", "2090"] {
        fixture.clock.set_wall(Timestamp::parse(&format!("{year}-01-01T00:00:00Z")).unwrap());
        assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    }
}

#[tokio::test]
async fn a_negative_entry_is_gone_after_a_second() {
    let fixture = Fixture::new();
    assert_eq!(fixture.answer("abc").await, (0, Tier::Store));
    assert_eq!(fixture.peek("abc"), Some((0, Tier::L1)));
    fixture.clock.advance(Duration::from_millis(999));
    assert_eq!(fixture.answer("abc").await, (0, Tier::L1));
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.peek("abc"), None);
    fixture.store_link("abc");
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[tokio::test]
async fn age_counts_from_the_begin_of_the_look_up() {
    let fixture = Fixture::new();
    let gate = terse_testkit::Gate::closed();
    fixture.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    let (found, ()) = tokio::join!(fixture.answer("abc"), async {
        gate.arrived(1).await;
        fixture.clock.advance(Duration::from_millis(1_000));
        gate.open();
    });
    assert_eq!(found, (0, Tier::Store));
    assert_eq!(fixture.peek("abc"), None, "what was true a second ago is not known now");
}

#[tokio::test]
async fn an_expired_link_stays_in_memory_and_answers_gone() {
    let fixture = Fixture::new();
    let expires_at = fixture.clock.now().plus_millis(60_000);
    let link = Link { expires_at: Some(expires_at), ..links::link("abc") };
    fixture.store.inner().insert(&link);
    fixture.answer("abc").await;
    fixture.clock.advance(Duration::from_secs(60));
    let found = fixture.cache.peek("abc").unwrap();
    assert_eq!(found.link.unwrap().verdict(fixture.clock.now()), Verdict::Gone);
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test]
async fn expiry_can_be_judged_on_a_stale_link_too() {
    let fixture = Fixture::new();
    let expires_at = fixture.clock.now().plus_millis(1_800_000);
    fixture.store.inner().insert(&Link { expires_at: Some(expires_at), ..links::link("abc") });
    fixture.answer("abc").await;
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    fixture.clock.advance(Duration::from_secs(1_800));
    let found = fixture.resolve("abc").await.unwrap();
    assert_eq!(found.tier, Tier::Stale);
    assert_eq!(found.link.unwrap().verdict(fixture.clock.now()), Verdict::Gone);
}

#[tokio::test]
async fn a_fault_is_never_missing() {
    for kind in ALL_KINDS {
        let fixture = Fixture::new();
        fixture.store_link("abc");
        fixture.fail(Operation::Resolve, kind);
        assert_eq!(fixture.resolve("abc").await.unwrap_err(), kind);
        assert_eq!(fixture.peek("abc"), None);
        fixture.store.faults.heal();
        assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    }
}

#[tokio::test]
async fn a_negative_entry_is_not_served_past_its_age_even_in_need() {
    let fixture = Fixture::new();
    fixture.answer("abc").await;
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn an_aged_link_is_served_stale_whatever_the_failure_is() {
    for kind in ALL_KINDS {
        let fixture = aged().await;
        fixture.fail(Operation::Resolve, kind);
        assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
        assert_eq!(fixture.peek("abc"), None, "stale is never fresh");
    }
}

#[tokio::test]
async fn a_stale_link_is_served_within_its_limit_and_the_failure_after_it() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    // An age limit is up to a tenth shorter than half an hour, so the end lies between 87 and 90 minutes.
    fixture.clock.advance(Duration::from_secs(87 * 60 - 1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.clock.advance(Duration::from_secs(3 * 60 + 1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_store_that_comes_back_ends_staleness() {
    let fixture = aged().await;
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.store.faults.heal();
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    assert_eq!(fixture.answer("abc").await, (1, Tier::L1));
}

#[tokio::test]
async fn a_panic_and_an_overload_are_failures_that_stale_links_outlive() {
    let fixture = aged().await;
    fixture.store.faults.add(Operation::Resolve, When::Every, Fault::Panic);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));

    let refusing = Fixture::with(CacheConfig { max_flights: 0, ..CacheConfig::default() });
    refusing.create("abc").await.unwrap();
    refusing.clock.advance(Duration::from_secs(1_800));
    assert_eq!(refusing.answer("abc").await, (1, Tier::Stale));
}

#[tokio::test]
async fn what_the_inner_reader_calls_stale_is_repeated_as_stale_for_a_moment_only() {
    let fixture = Fixture::new();
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.clock.advance(Duration::from_millis(499));
    assert_eq!((fixture.peek("abc"), fixture.reads()), (Some((1, Tier::Stale)), 1));
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.peek("abc"), None);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    assert_eq!((fixture.reads(), fixture.cache.stats().links), (2, 0));
}

#[tokio::test]
async fn a_write_ends_what_was_repeated_as_stale() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.edit("abc", 1, LinkState::Disabled).await.unwrap();
    assert_eq!(fixture.peek("abc"), Some((2, Tier::L1)));
}

#[tokio::test]
async fn an_outdated_answer_prolongs_nothing_of_a_link_in_memory() {
    let fixture = aged().await;
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    fixture.clock.advance(Duration::from_secs(3_600));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn an_outdated_answer_is_refused_even_when_the_newer_one_is_too_old_to_serve() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1_800 + 3_600));
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_known_deletion_is_not_undone_by_an_outdated_answer() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1_800));
    fixture.store.inner().lag(links::resolution("abc", 1));
    let found = fixture.resolve("abc").await.unwrap();
    assert_eq!(found.tier, Tier::Stale);
    assert_eq!(found.link.unwrap().verdict(fixture.clock.now()), Verdict::Gone);
}
