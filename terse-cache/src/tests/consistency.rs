//! What a write has acknowledged is what the next read sees.

use futures_util::FutureExt;
use terse_core::{Clock, Verdict};
use terse_testkit::Gate;

use super::*;

/// Lets the first look-up do its reading, then hold its answer.
fn hold_first_answer(fixture: &Fixture) -> Arc<Gate> {
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Resolve, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    gate
}

/// A cache that has `abc` in version 1, fresh.
async fn warm() -> Fixture {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    fixture
}

#[tokio::test]
async fn deleting_answers_gone_on_the_very_next_request() {
    let fixture = warm().await;
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    let found = fixture.cache.peek("abc").unwrap();
    assert_eq!(found.link.unwrap().verdict(fixture.clock.now()), Verdict::Gone);
    assert_eq!(fixture.answer("abc").await, (2, Tier::L1));
}

#[tokio::test]
async fn creating_a_code_that_was_just_missing_makes_it_redirect_at_once() {
    let fixture = Fixture::new();
    assert_eq!(fixture.answer("abc").await, (0, Tier::Store));
    assert_eq!(fixture.create("abc").await, Ok(Insert::Created));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    assert_eq!(fixture.cache.memory.negative(), 0);
}

#[tokio::test]
async fn a_read_that_began_before_an_edit_does_not_bring_the_old_version_back() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold_first_answer(&fixture);
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    fixture.edit("abc", 1, LinkState::Disabled).await.unwrap();
    assert_eq!(fixture.answer("abc").await, (2, Tier::L1));
    gate.open();
    assert_eq!(reader.await.0, 2, "the newest that is known is answered");
    assert_eq!(fixture.peek("abc"), Some((2, Tier::L1)));
}

#[tokio::test]
async fn a_read_that_began_before_a_lost_edit_is_neither_stored_nor_joined() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold_first_answer(&fixture);
    fixture.store.faults.add(Operation::Update, When::Every, Fault::LoseAnswer);
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    let outcome = fixture.edit("abc", 1, LinkState::Disabled).await;
    assert_eq!(outcome, Err(StoreErrorKind::UnknownOutcome));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store), "a look-up of its own");
    gate.open();
    assert_eq!(reader.await, (1, Tier::Store), "it was asked before the edit");
    assert_eq!(fixture.peek("abc"), None);
}

#[tokio::test]
async fn a_read_that_began_before_a_create_does_not_make_it_missing() {
    let fixture = Fixture::new();
    let gate = hold_first_answer(&fixture);
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    fixture.create("abc").await.unwrap();
    gate.open();
    assert_eq!(reader.await.0, 0, "it was asked before the create");
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
}

#[tokio::test]
async fn a_read_that_began_before_somebody_elses_create_is_not_stored_as_missing() {
    let fixture = Fixture::new();
    let gate = hold_first_answer(&fixture);
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    gate.arrived(1).await;
    fixture.store_link("abc");
    assert!(matches!(fixture.create("abc").await, Ok(Insert::Taken { .. })));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    gate.open();
    assert_eq!(reader.await.0, 0);
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
}

#[tokio::test]
async fn edits_that_end_in_the_wrong_order_leave_the_newest() {
    let fixture = warm().await;
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Update, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    let mut second = Box::pin(fixture.edit("abc", 1, LinkState::Disabled));
    assert!((&mut second).now_or_never().is_none());
    fixture.edit("abc", 2, LinkState::Blocked).await.unwrap();
    gate.open();
    second.await.unwrap();
    assert_eq!(fixture.peek("abc"), Some((3, Tier::L1)));
}

#[tokio::test]
async fn an_edit_that_ends_late_does_not_come_back_after_a_newer_one_was_forgotten() {
    let fixture = warm().await;
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Update, When::Nth(1), Fault::HoldAnswer(Arc::clone(&gate)));
    let mut late = Box::pin(fixture.edit("abc", 1, LinkState::Disabled));
    assert!((&mut late).now_or_never().is_none());
    fixture.edit("abc", 2, LinkState::Blocked).await.unwrap();
    fixture.edit("abc", 9, LinkState::Blocked).await.unwrap();
    assert_eq!(fixture.peek("abc"), None, "a conflict forgets");
    gate.open();
    late.await.unwrap();
    assert_eq!(fixture.answer("abc").await, (3, Tier::Store));
}

#[tokio::test]
async fn a_refused_edit_has_the_link_read_again() {
    let fixture = warm().await;
    // Somebody else edited it, past this cache.
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Disabled));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    assert_eq!(fixture.edit("abc", 1, LinkState::Active).await, Ok(Update::Conflict { current: Version(2) }));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
    fixture.fail(Operation::Update, StoreErrorKind::Corrupt);
    fixture.edit("abc", 2, LinkState::Active).await.unwrap_err();
    assert_eq!(fixture.peek("abc"), None);
}

#[tokio::test]
async fn an_edit_that_did_not_happen_keeps_the_link_for_need_but_not_fresh() {
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::Overloaded] {
        let fixture = warm().await;
        fixture.fail(Operation::Update, kind);
        assert_eq!(fixture.edit("abc", 1, LinkState::Disabled).await, Err(kind));
        assert_eq!(fixture.answer("abc").await, (1, Tier::Store), "read again");
        fixture.edit("abc", 1, LinkState::Disabled).await.unwrap_err();
        fixture.fail(Operation::Resolve, kind);
        assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    }
}

#[tokio::test]
async fn an_edit_that_may_have_happened_leaves_nothing_to_serve_stale() {
    let fixture = warm().await;
    fixture.store.faults.add(Operation::Update, When::Every, Fault::LoseAnswer);
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap_err();
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn an_edit_is_what_an_outage_serves_stale() {
    let fixture = warm().await;
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    fixture.clock.advance(Duration::from_secs(1_800));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Stale));
}

#[tokio::test]
async fn a_lost_edit_that_happens_late_is_not_hidden_by_memory() {
    let fixture = warm().await;
    fixture.fail(Operation::Update, StoreErrorKind::UnknownOutcome);
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap_err();
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    assert_eq!(fixture.peek("abc"), None, "read, but not kept");
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Deleted));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
    assert_eq!(fixture.peek("abc"), Some((2, Tier::L1)), "kept again");
}

#[tokio::test]
async fn a_lost_edit_that_a_stuck_disk_makes_long_after_it_was_given_up_shows_within_a_second() {
    let fixture = warm().await;
    fixture.fail(Operation::Update, StoreErrorKind::UnknownOutcome);
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap_err();
    fixture.clock.advance(Duration::from_secs(20));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)), "many who ask meanwhile cost one look-up a second");
    fixture.store.inner().edit(&links::code("abc"), Version(1), &change_to("abc", LinkState::Deleted));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(fixture.peek("abc"), Some((2, Tier::L1)), "and is kept as usual");
}

#[tokio::test]
async fn an_edit_acknowledged_while_another_is_in_doubt_is_not_kept_either() {
    let fixture = warm().await;
    fixture.store.faults.add(Operation::Update, When::Nth(1), Fault::Fail(StoreErrorKind::UnknownOutcome));
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap_err();
    fixture.edit("abc", 1, LinkState::Disabled).await.unwrap();
    assert_eq!(fixture.peek("abc"), None);
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
}

#[tokio::test]
async fn an_edit_whose_caller_goes_away_is_in_doubt() {
    let fixture = warm().await;
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Update, When::Every, Fault::HoldAnswer(gate));
    assert!(fixture.edit("abc", 1, LinkState::Deleted).now_or_never().is_none(), "done, but its caller is gone");
    assert_eq!(fixture.answer("abc").await, (2, Tier::Store));
    assert_eq!(fixture.peek("abc"), None);
    fixture.clock.advance(Duration::from_secs(5));
    fixture.answer("abc").await;
    assert_eq!(fixture.peek("abc"), Some((2, Tier::L1)));
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_ends_missing() {
    let fixture = Fixture::new();
    assert_eq!(fixture.answer("abc").await, (0, Tier::Store));
    fixture.store.faults.add(Operation::InsertIfAbsent, When::Nth(1), Fault::LoseAnswer);
    assert_eq!(fixture.create("abc").await, Err(StoreErrorKind::UnknownOutcome));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[tokio::test]
async fn a_create_whose_caller_goes_away_ends_missing() {
    let fixture = Fixture::new();
    assert_eq!(fixture.answer("abc").await, (0, Tier::Store));
    fixture.store.faults.add(Operation::InsertIfAbsent, When::Nth(1), Fault::HoldAnswer(Gate::closed()));
    assert!(fixture.create("abc").now_or_never().is_none());
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[tokio::test]
async fn nobody_can_push_a_link_out_of_memory_by_asking_for_its_alias() {
    let fixture = warm().await;
    assert!(matches!(fixture.create("abc").await, Ok(Insert::Taken { .. })));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    for kind in [StoreErrorKind::Unavailable, StoreErrorKind::UnknownOutcome] {
        fixture.store.faults.heal();
        fixture.fail(Operation::InsertIfAbsent, kind);
        fixture.create("abc").await.unwrap_err();
        assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    }
}

#[tokio::test]
async fn an_edit_of_nothing_leaves_nothing() {
    let fixture = Fixture::new();
    assert_eq!(fixture.edit("abc", 1, LinkState::Active).await, Ok(Update::NotFound));
    assert_eq!(fixture.peek("abc"), None);
    assert_eq!(fixture.answer("abc").await, (0, Tier::Store));
}
