//! The rules of the guards, each as a test, on a store whose faults are on
//! schedule and a clock that the test moves. Timeouts run in tokio's paused time.

use std::time::Duration;

use async_trait::async_trait;
use terse_core::ports::{
    AttemptId, Insert, KeyStore, LeaseStore, LinkCatalog, LinkChange, LinkReader, LinkWriter, Lookup, SettingsStore,
    StoreHealth, Tier, Update,
};
use terse_core::{Owner, ShortCode, Version};
use terse_resilience::{ConcurrencySettings, Counts, Forced, Policy, State};
use terse_testkit::links::{attempt, code, link};
use terse_testkit::{Fault, FaultyStore, Gate, Operation, TestClock, When};

use super::*;
use crate::{CoreClock, MemoryStore};

mod admission;
mod catalog;
mod marks;
mod overload;
mod probes;

type Store = Guarded<FaultyStore<MemoryStore>>;

/// Nothing in these tests takes longer than this, in real time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `count` callers have come to `gate`.
async fn arrived(gate: &Gate, count: usize) {
    let arrived = tokio::time::timeout(PATIENCE, gate.arrived(count)).await;
    assert!(arrived.is_ok(), "fewer than {count} callers were let through");
}

/// Five failures trip, 500 ms open, no jitter; three probes, of which two must succeed.
fn settings() -> GuardSettings {
    let mut settings = GuardSettings::default();
    settings.read.breaker.jitter_percent = 0;
    settings.write.breaker.jitter_percent = 0;
    settings
}

/// A limit of so many calls at once, however long they take.
fn always(calls: u32) -> ConcurrencySettings {
    ConcurrencySettings { initial: calls, min: calls, max: calls, ..ConcurrencySettings::default() }
}

struct Fixture {
    store: Arc<Store>,
    clock: Arc<TestClock>,
    metrics: Metrics,
}

impl Fixture {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: GuardSettings) -> Self {
        let (clock, metrics) = (Arc::new(TestClock::default()), Metrics::new());
        let time: Arc<dyn MonotonicClock> = Arc::new(CoreClock(clock.clone()));
        let inner = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let store = Guarded::new("main", inner, &settings, &time, 7, &metrics).unwrap();
        Self { store: Arc::new(store), clock, metrics }
    }

    /// From now on every call of `operation` goes wrong by `fault`.
    fn every(&self, operation: Operation, fault: Fault) {
        self.store.inner().faults.add(operation, When::Every, fault);
    }

    fn fails(&self, operation: Operation) {
        self.every(operation, Fault::Fail(StoreErrorKind::Unavailable));
    }

    /// From now on every call of `operation` waits for a gate that stays closed.
    fn hangs(&self, operation: Operation) -> Arc<Gate> {
        let gate = Gate::closed();
        self.every(operation, Fault::HoldCall(gate.clone()));
        gate
    }

    fn heal(&self) {
        self.store.inner().faults.heal();
    }

    fn calls(&self, operation: Operation) -> usize {
        self.store.inner().faults.calls(operation)
    }

    async fn resolve(&self) -> Result<Option<u64>, StoreError> {
        self.store.resolve(&code("abc")).await.map(|lookup| lookup.link.map(|link| link.version.0))
    }

    async fn insert(&self, text: &str) -> Result<Insert, StoreError> {
        self.store.insert_if_absent(&link(text), attempt(1)).await
    }

    async fn list(&self) -> Result<usize, StoreError> {
        self.store.list(&Owner::open(), None, 10).await.map(|links| links.len())
    }

    fn read(&self) -> &Breaker {
        &self.store.read.breaker
    }

    fn write(&self) -> &Breaker {
        &self.store.write.breaker
    }

    /// Trips the guard of reads and lets its open time pass.
    async fn to_half_open(&self) {
        self.fails(Operation::Resolve);
        for _ in 0..5 {
            self.resolve().await.unwrap_err();
        }
        assert_eq!(self.read().state(), State::Open);
        self.heal();
        self.clock.advance(Duration::from_millis(500));
    }

    /// Asserts that nothing is held any more.
    fn assert_idle(&self) {
        for name in ["main/read", "main/write", "main/catalog"] {
            assert_eq!(self.metrics.bulkhead_in_use(name).get(), 0, "{name}");
        }
        for breaker in [self.read(), self.write()] {
            let snapshot = breaker.snapshot();
            assert_eq!((snapshot.counts.in_flight(), snapshot.probes_in_flight), (0, 0), "{snapshot:?}");
        }
    }
}

fn kind<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> StoreErrorKind {
    answer.unwrap_err().kind
}

#[tokio::test]
async fn a_link_that_is_not_there_is_a_success() {
    let fixture = Fixture::new();
    for _ in 0..20 {
        assert_eq!(fixture.resolve().await.unwrap(), None);
    }
    assert_eq!(fixture.read().snapshot().counts, Counts { permitted: 20, successes: 20, ..Counts::default() });
    assert_eq!(fixture.write().snapshot().counts, Counts::default());
}

#[tokio::test]
async fn an_unavailable_store_trips_the_read_guard_and_is_then_left_alone() {
    let fixture = Fixture::new();
    fixture.fails(Operation::Resolve);
    for _ in 0..5 {
        assert_eq!(kind(fixture.resolve().await), StoreErrorKind::Unavailable);
    }
    assert_eq!(fixture.read().state(), State::Open);
    fixture.clock.advance(Duration::from_millis(100));
    let rejected = fixture.resolve().await.unwrap_err();
    assert_eq!((rejected.kind, rejected.retry_after_ms), (StoreErrorKind::Unavailable, 400));
    assert_eq!(rejected.message, "main/read: breaker is open, try again in 400 ms");
    assert_eq!(fixture.calls(Operation::Resolve), 5, "the store was not asked");
    fixture.assert_idle();
}

#[tokio::test]
async fn a_full_queue_of_the_store_and_a_spoilt_row_trip_nothing() {
    for (kind_of, ignored, successes) in [(StoreErrorKind::Overloaded, 20, 0), (StoreErrorKind::Corrupt, 0, 20)] {
        let fixture = Fixture::new();
        fixture.every(Operation::Resolve, Fault::Fail(kind_of));
        fixture.every(Operation::InsertIfAbsent, Fault::Fail(kind_of));
        for _ in 0..20 {
            assert_eq!(kind(fixture.resolve().await), kind_of);
            assert_eq!(kind(fixture.insert("x").await), kind_of);
        }
        for breaker in [fixture.read(), fixture.write()] {
            let expected = Counts { permitted: 20, ignored, successes, ..Counts::default() };
            assert_eq!((breaker.state(), breaker.snapshot().counts), (State::Closed, expected), "{kind_of:?}");
        }
    }
}

/// One replica that does not know the link: an answer, if none that may be told.
struct Alone;

#[async_trait]
impl LinkReader for Alone {
    fn peek(&self, code: &str) -> Option<Lookup> {
        (code == "known").then_some(Lookup { link: None, tier: Tier::L1 })
    }

    async fn resolve(&self, _: &ShortCode) -> Result<Lookup, StoreError> {
        Err(StoreError::new(StoreErrorKind::Unavailable, "one replica knows no such link").although_answered())
    }
}

#[tokio::test]
async fn unknown_codes_on_a_single_replica_do_not_cut_off_the_known_ones() {
    let time: Arc<dyn MonotonicClock> = Arc::new(|| 0_u64);
    let store = Guarded::new("main", Arc::new(Alone), &settings(), &time, 7, &Metrics::new()).unwrap();
    for _ in 0..50 {
        assert_eq!(kind(store.resolve(&code("abc")).await), StoreErrorKind::Unavailable);
    }
    assert_eq!((store.read.breaker.state(), store.read.breaker.snapshot().counts.successes), (State::Closed, 50));
}

#[tokio::test]
async fn peeking_passes_straight_through() {
    let time: Arc<dyn MonotonicClock> = Arc::new(|| 0_u64);
    let store = Guarded::new("main", Arc::new(Alone), &settings(), &time, 7, &Metrics::new()).unwrap();
    store.read.breaker.force(Some(Forced::Open));
    assert!(store.peek("known").is_some());
    assert!(store.peek("other").is_none());
    assert_eq!(store.read.breaker.snapshot().counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_unavailable_and_counts_as_a_timeout() {
    let fixture = Fixture::new();
    fixture.hangs(Operation::Resolve);
    let began = tokio::time::Instant::now();
    let error = fixture.resolve().await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (StoreErrorKind::Unavailable, "no answer within 700 ms"));
    assert_eq!(began.elapsed(), Duration::from_millis(700));
    for _ in 0..4 {
        fixture.resolve().await.unwrap_err();
    }
    assert_eq!((fixture.read().state(), fixture.read().snapshot().counts.timeouts), (State::Open, 5));
    let began = tokio::time::Instant::now();
    fixture.resolve().await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for a store that is known to hang");
    fixture.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_has_an_unknown_outcome_and_counts_as_a_timeout() {
    let fixture = Fixture::new();
    fixture.every(Operation::InsertIfAbsent, Fault::HoldAnswer(Gate::closed()));
    let began = tokio::time::Instant::now();
    let error = fixture.insert("abc").await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (StoreErrorKind::UnknownOutcome, "no answer within 3000 ms"));
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(fixture.write().snapshot().counts.timeouts, 1);
    assert_eq!(fixture.resolve().await.unwrap(), Some(1), "it happened, and that is what unknown means");
    fixture.assert_idle();
}

#[tokio::test]
async fn taken_conflict_and_not_found_are_successes_of_a_write() {
    let fixture = Fixture::new();
    assert_eq!(fixture.insert("abc").await.unwrap(), Insert::Created);
    let change = LinkChange::of(&link("abc"));
    for _ in 0..10 {
        let taken = fixture.store.insert_if_absent(&link("abc"), attempt(2)).await.unwrap();
        assert_eq!(taken, Insert::Taken { attempt: AttemptId(1_u128.to_be_bytes()) });
        let conflict = fixture.store.update(&code("abc"), Version(9), &change).await.unwrap();
        assert_eq!(conflict, Update::Conflict { current: Version(1) });
        assert_eq!(fixture.store.update(&code("none"), Version(1), &change).await.unwrap(), Update::NotFound);
    }
    assert_eq!(fixture.write().snapshot().counts, Counts { permitted: 31, successes: 31, ..Counts::default() });
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_a_failure() {
    let fixture = Fixture::new();
    fixture.every(Operation::InsertIfAbsent, Fault::LoseAnswer);
    for number in 0..5 {
        assert_eq!(kind(fixture.insert(&format!("x{number}")).await), StoreErrorKind::UnknownOutcome);
    }
    let rejected = fixture.insert("x6").await.unwrap_err();
    assert_eq!((rejected.kind, rejected.retry_after_ms), (StoreErrorKind::Unavailable, 500));
    assert_eq!(fixture.calls(Operation::InsertIfAbsent), 5, "a rejected write is certain not to have happened");
}

#[tokio::test]
async fn removing_old_keys_does_not_vouch_for_a_shard_that_is_away() {
    let fixture = Fixture::new();
    fixture.fails(Operation::InsertIfAbsent);
    for number in 0..5 {
        assert_eq!(fixture.write().state(), State::Closed);
        fixture.insert(&format!("x{number}")).await.unwrap_err();
        catalog::purge(&fixture.store).await.map_or_else(|error| assert!(number == 4, "{error}"), drop);
    }
    assert_eq!((fixture.write().state(), fixture.write().snapshot().counts.successes), (State::Open, 0));
    fixture.clock.advance(Duration::from_millis(500));
    for _ in 0..10 {
        catalog::purge(&fixture.store).await.unwrap();
    }
    assert_eq!(fixture.write().state(), State::HalfOpen);
    fixture.assert_idle();
}

#[tokio::test]
async fn removing_old_keys_in_vain_counts_against_the_shard() {
    let fixture = Fixture::new();
    fixture.fails(Operation::PurgeKeys);
    for _ in 0..5 {
        catalog::purge(&fixture.store).await.unwrap_err();
    }
    assert_eq!(fixture.write().state(), State::Open);
}

#[tokio::test]
async fn failing_writes_leave_reads_alone() {
    let fixture = Fixture::new();
    fixture.insert("abc").await.unwrap();
    fixture.fails(Operation::InsertIfAbsent);
    for _ in 0..10 {
        fixture.insert("x").await.unwrap_err();
    }
    assert_eq!((fixture.write().state(), fixture.read().state()), (State::Open, State::Closed));
    assert_eq!(fixture.resolve().await.unwrap(), Some(1));
    assert_eq!(fixture.list().await.unwrap(), 1);
}

#[tokio::test]
async fn failing_reads_leave_writes_alone() {
    let fixture = Fixture::new();
    fixture.fails(Operation::Resolve);
    for _ in 0..10 {
        fixture.resolve().await.unwrap_err();
    }
    assert_eq!((fixture.read().state(), fixture.write().state()), (State::Open, State::Closed));
    assert_eq!(fixture.insert("abc").await.unwrap(), Insert::Created);
}

#[tokio::test]
async fn every_write_of_the_ports_passes_the_write_guard() {
    let fixture = Fixture::new();
    fixture.write().force(Some(Forced::Open));
    let (store, at) = (&fixture.store, terse_core::Timestamp::from_millis(1));
    let key = terse_core::ApiKey::issue(
        terse_core::access::KeyRequest {
            name: "k".into(),
            role: terse_core::Role::Reader,
            owner: None,
            expires_at: None,
        },
        at,
        &terse_testkit::SeededEntropy::new(1),
    )
    .0;
    let record = catalog::record();
    let change = LinkChange::of(&link("abc"));
    let refused = [
        kind(fixture.insert("abc").await),
        kind(store.update(&code("abc"), Version(1), &change).await),
        kind(catalog::claim(store, &record).await),
        kind(catalog::replace(store, &record).await),
        kind(catalog::purge(store).await),
        kind(store.settle("a", b"b").await),
        kind(store.lease("codes", 1, "node", at).await),
        kind(store.add_key(&key).await),
        kind(store.revoke_key(&key.id, at).await),
    ];
    assert_eq!(refused, [StoreErrorKind::Unavailable; 9]);
    assert_eq!((fixture.write().snapshot().counts.rejected, fixture.read().snapshot().counts), (9, Counts::default()));
}

#[tokio::test]
async fn requests_are_timed_by_shard_and_operation_and_rejected_ones_are_none() {
    let fixture = Fixture::new();
    fixture.insert("abc").await.unwrap();
    fixture.resolve().await.unwrap();
    fixture.resolve().await.unwrap();
    fixture.list().await.unwrap();
    fixture.store.check().await;
    fixture.read().force(Some(Forced::Open));
    fixture.resolve().await.unwrap_err();
    for (operation, count) in [("insert", 1), ("resolve", 2), ("list", 1), ("check", 1), ("get", 0)] {
        assert_eq!(fixture.metrics.store_requests("main", operation).get_sample_count(), count, "{operation}");
    }
}

#[tokio::test]
async fn the_breakers_are_told_by_name() {
    let fixture = Fixture::new();
    let names: Vec<&str> = fixture.store.breakers().map(|(name, _)| name).collect();
    assert_eq!(names, ["main/read", "main/write"]);
    let mut other = settings();
    other.read.breaker.policy = Policy::Consecutive { failures: 0 };
    let time: Arc<dyn MonotonicClock> = Arc::new(|| 0_u64);
    let refused = Guarded::new("main", Arc::new(Alone), &other, &time, 7, &Metrics::new()).err().unwrap();
    assert_eq!(refused.setting, "failures");
}
