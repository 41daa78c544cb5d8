//! One look-up per code at a time, and nobody left hanging by it.

use futures_util::FutureExt;
use futures_util::future::join_all;
use terse_testkit::Gate;

use super::*;
use crate::read_through::Boarding;

/// Resolves `code` from `tasks` tasks at once; their answers.
async fn crowd(fixture: &Fixture, code: &str, tasks: usize) -> Vec<(u64, Tier)> {
    let tasks = (0..tasks).map(|_| {
        let (cache, code) = (Arc::clone(&fixture.cache), links::code(code));
        tokio::spawn(async move { version_and_tier(cache.resolve(&code).await.unwrap()) })
    });
    join_all(tasks.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
}

fn hold(fixture: &Fixture, when: When) -> Arc<Gate> {
    let gate = Gate::closed();
    fixture.store.faults.add(Operation::Resolve, when, Fault::HoldAnswer(Arc::clone(&gate)));
    gate
}

/// Lets flights that have their answer end, and asserts that none is left.
async fn no_flight_is_left(fixture: &Fixture) {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.cache.stats().flights, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_first_requests_cost_one_read() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let answers = crowd(&fixture, "abc", 10_000).await;
    assert!(answers.iter().all(|(version, _)| *version == 1));
    assert_eq!((answers.len(), fixture.reads()), (10_000, 1));
}

#[tokio::test]
async fn ten_thousand_may_wait_for_one_read() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Every);
    let code = links::code("abc");
    let mut waiting: Vec<_> = (0..10_000).map(|_| fixture.cache.resolve(&code)).collect();
    assert!(waiting.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
    gate.open();
    for answer in join_all(waiting).await {
        assert_eq!(version_and_tier(answer.unwrap()), (1, Tier::Store));
    }
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hot_link_that_ages_out_under_load_costs_one_read() {
    let fixture = Fixture::new();
    fixture.store_link("hot");
    assert_eq!(fixture.answer("hot").await, (1, Tier::Store));
    fixture.clock.advance(Duration::from_secs(1_800));
    let answers = crowd(&fixture, "hot", 2_000).await;
    assert!(answers.iter().all(|(version, tier)| *version == 1 && *tier != Tier::Stale));
    assert_eq!(fixture.reads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_that_asks_for_an_unknown_code_costs_one_read() {
    let fixture = Fixture::new();
    assert!(crowd(&fixture, "nope", 2_000).await.iter().all(|(version, _)| *version == 0));
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test]
async fn who_comes_when_the_flight_has_just_ended_starts_no_other() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    // Memory was looked into before this, in vain; the flight ended between the two.
    fixture.answer("abc").await;
    assert!(matches!(fixture.cache.board(&links::code("abc")), Ok(Boarding::Answered(_))));
    assert_eq!((fixture.reads(), fixture.cache.stats().flights), (1, 0));
}

#[tokio::test]
async fn different_codes_do_not_wait_for_each_other() {
    let fixture = Fixture::new();
    fixture.store_link("slow");
    fixture.store_link("fast");
    let gate = hold(&fixture, When::Nth(1));
    let mut slow = Box::pin(fixture.answer("slow"));
    assert!((&mut slow).now_or_never().is_none());
    gate.arrived(1).await;
    assert_eq!(fixture.answer("fast").await, (1, Tier::Store));
    gate.open();
    assert_eq!(slow.await, (1, Tier::Store));
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_others_their_answer() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Every);
    let mut leader = Box::pin(fixture.answer("abc"));
    let mut other = Box::pin(fixture.answer("abc"));
    assert!((&mut leader).now_or_never().is_none());
    gate.arrived(1).await;
    assert!((&mut other).now_or_never().is_none());
    drop(leader);
    gate.open();
    assert_eq!(other.await, (1, Tier::Store));
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test]
async fn a_look_up_that_nobody_waits_for_any_more_is_not_wasted() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Every);
    assert!(fixture.answer("abc").now_or_never().is_none(), "polled once, then dropped");
    gate.arrived(1).await;
    gate.open();
    assert_eq!(fixture.answer("abc").await.0, 1);
    assert_eq!(fixture.reads(), 1);
}

#[tokio::test]
async fn a_failure_is_shared_like_any_answer_and_not_remembered() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.store.faults.add(Operation::Resolve, When::Nth(1), Fault::Fail(StoreErrorKind::Corrupt));
    let (first, second) = tokio::join!(fixture.resolve("abc"), fixture.resolve("abc"));
    assert_eq!((first.unwrap_err(), second.unwrap_err()), (StoreErrorKind::Corrupt, StoreErrorKind::Corrupt));
    assert_eq!(fixture.reads(), 1);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[tokio::test]
async fn a_panic_in_the_inner_reader_is_an_error_for_all_who_wait() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.store.faults.add(Operation::Resolve, When::Nth(1), Fault::Panic);
    let (first, second) = tokio::join!(fixture.resolve("abc"), fixture.resolve("abc"));
    assert_eq!((first.unwrap_err(), second.unwrap_err()), (StoreErrorKind::Unavailable, StoreErrorKind::Unavailable));
    assert_eq!(fixture.cache.stats().flights, 0);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[tokio::test]
async fn a_runtime_that_goes_away_releases_those_who_wait_on_another() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Nth(1));
    let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let cache = Arc::clone(&fixture.cache);
    other.spawn(async move { cache.resolve(&links::code("abc")).await });
    gate.arrived(1).await;
    let mut waiter = Box::pin(fixture.resolve("abc"));
    assert!((&mut waiter).now_or_never().is_none());
    other.shutdown_background();
    assert_eq!(waiter.await.unwrap_err(), StoreErrorKind::Unavailable);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[test]
fn a_runtime_that_is_shut_down_answers_with_an_error() {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    assert_eq!(fixture.resolve("abc").now_or_never().unwrap().unwrap_err(), StoreErrorKind::Unavailable);
    assert_eq!(fixture.cache.stats().flights, 0);
}

#[tokio::test]
async fn more_waiters_than_allowed_are_refused() {
    let fixture = Fixture::with(CacheConfig { max_waiters: 2, ..CacheConfig::default() });
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Every);
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(fixture.answer("abc"))).collect();
    assert!(waiting.iter_mut().all(|waiter| waiter.now_or_never().is_none()));
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Overloaded);
    gate.open();
    assert_eq!(join_all(waiting).await, [(1, Tier::Store), (1, Tier::Store)]);
    assert_eq!(fixture.answer("abc").await, (1, Tier::L1));
}

#[tokio::test]
async fn more_flights_than_allowed_are_refused() {
    let fixture = Fixture::with(CacheConfig { max_flights: 1, ..CacheConfig::default() });
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Every);
    let mut first = Box::pin(fixture.answer("abc"));
    assert!((&mut first).now_or_never().is_none());
    assert_eq!(fixture.cache.stats().flights, 1);
    assert_eq!(fixture.resolve("other").await.unwrap_err(), StoreErrorKind::Overloaded);
    gate.open();
    assert_eq!(first.await, (1, Tier::Store));
    no_flight_is_left(&fixture).await;
    assert_eq!(fixture.answer("other").await, (0, Tier::Store));
}

#[tokio::test]
async fn a_detached_look_up_still_counts_as_a_flight() {
    let fixture = Fixture::with(CacheConfig { max_flights: 1, ..CacheConfig::default() });
    fixture.store_link("abc");
    let gate = hold(&fixture, When::Nth(1));
    let mut reader = Box::pin(fixture.answer("abc"));
    assert!((&mut reader).now_or_never().is_none());
    fixture.edit("abc", 7, LinkState::Active).await.unwrap();
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Overloaded);
    gate.open();
    assert_eq!(reader.await, (1, Tier::Store));
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_is_given_up() {
    let fixture = Fixture::with(CacheConfig::default());
    fixture.store_link("abc");
    let _never_opened = hold(&fixture, When::Nth(1));
    let began = tokio::time::Instant::now();
    assert_eq!(fixture.resolve("abc").await.unwrap_err(), StoreErrorKind::Unavailable);
    assert_eq!(began.elapsed().as_millis() / 100, 10, "the default wait is a second");
    no_flight_is_left(&fixture).await;
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
}

#[test]
fn a_flight_on_a_runtime_that_stalls_holds_nobody_for_longer_than_the_wait() {
    let fixture = Fixture::with(CacheConfig::default());
    fixture.store_link("abc");
    let paused = |start| tokio::runtime::Builder::new_current_thread().enable_time().start_paused(start).build();
    let (stalled, running) = (paused(false).unwrap(), paused(true).unwrap());
    stalled.block_on(async { assert!(fixture.resolve("abc").now_or_never().is_none()) });
    let answer = running.block_on(async {
        let patience = Duration::from_millis(1_100);
        tokio::time::timeout(patience, fixture.resolve("abc")).await.expect("waits for a second only")
    });
    assert_eq!(answer.unwrap_err(), StoreErrorKind::Unavailable);
    assert_eq!(fixture.reads(), 0, "the flight was joined, and never ran");
}

#[tokio::test]
async fn a_scan_of_unknown_codes_leaves_links_in_place_and_memory_bounded() {
    let fixture = Fixture::new();
    for n in 0..1_000 {
        fixture.store_link(&format!("hot{n}"));
        fixture.answer(&format!("hot{n}")).await;
    }
    let before = fixture.cache.stats();
    let codes = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    for n in 0..codes {
        assert_eq!(fixture.answer(&format!("scan{n}")).await, (0, Tier::Store));
    }
    let after = fixture.cache.stats();
    assert_eq!((after.links, after.bytes), (before.links, before.bytes));
    let negative = fixture.cache.memory.negative();
    assert!((1..=10_000).contains(&negative), "{negative} negative entries");
    assert!((0..1_000).all(|n| fixture.peek(&format!("hot{n}")) == Some((1, Tier::L1))));
}
