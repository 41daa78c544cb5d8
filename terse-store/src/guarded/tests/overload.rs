//! More than a shard can do: what goes first, and what is done all the same.

use terse_core::ports::clicks::ClickStats;
use terse_core::stats::{Row, Span};
use terse_core::{KeyId, Timestamp};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::*;

/// A read model that knows nothing.
struct Nothing;

#[async_trait]
impl ClickStats for Nothing {
    async fn overall(&self, _: &ShortCode) -> Result<Option<Row>, StoreError> {
        Ok(None)
    }

    async fn spans(&self, _: &ShortCode, _: Span, _: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        Ok(Vec::new())
    }

    async fn as_of(&self, _: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }
}

/// A shard for eight redirects and eight creates at once, and statistics that give way to them.
fn shard_for_eight() -> (Fixture, GuardedStats) {
    shard_with(GuardSettings { redirects: always(8), creates: always(8), ..settings() })
}

/// A shard, and statistics that give way to it.
fn shard_with(settings: GuardSettings) -> (Fixture, GuardedStats) {
    let fixture = Fixture::with(settings);
    let clock: Arc<dyn MonotonicClock> = Arc::new(CoreClock(fixture.clock.clone()));
    let stats = GuardedStats::new(Arc::new(Nothing), &StatsGuardSettings::default(), clock, 1, &fixture.metrics);
    let links = fixture.store.loads().map(|(_, limit)| Arc::clone(limit)).collect();
    (fixture, stats.unwrap().giving_way_to(links))
}

/// Has `count` more redirects wait at the gate where all wait.
async fn hold(fixture: &Fixture, count: usize, held: &mut Vec<JoinHandle<()>>) {
    held.extend((0..count).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move { drop(store.resolve(&code("abc")).await) })
    }));
    let waiting = fixture.metrics.concurrency("main/read").1;
    let all_wait = async {
        while waiting.get() < i64::try_from(held.len()).unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_wait).await.unwrap();
}

/// Which of redirects, creates, reads of the API and statistics are let in.
async fn admitted(fixture: &Fixture, stats: &GuardedStats, name: &str) -> [bool; 4] {
    let in_time = |store: Arc<Store>| async move {
        let code = code("abc");
        // One that is let in waits with the others.
        tokio::time::timeout(Duration::from_millis(20), store.resolve(&code))
            .await
            .map_or(true, |answer| answer.is_ok())
    };
    [
        in_time(fixture.store.clone()).await,
        fixture.insert(name).await.is_ok(),
        fixture.store.get(&code("abc")).await.is_ok(),
        stats.overall(&code("abc")).await.is_ok(),
    ]
}

#[tokio::test]
async fn statistics_go_first_then_creates_then_redirects() {
    let (fixture, stats) = shard_for_eight();
    let gate = fixture.hangs(Operation::Resolve);
    let mut held = Vec::new();
    for (waiting, expected) in [
        (3, [true, true, true, true]),
        (4, [true, true, true, false]),
        (5, [true, true, true, false]),
        (6, [true, false, false, false]),
        (7, [true, false, false, false]),
        (8, [false, false, false, false]),
    ] {
        hold(&fixture, waiting - held.len(), &mut held).await;
        let seen = admitted(&fixture, &stats, &format!("at{waiting}")).await;
        assert_eq!(seen, expected, "{waiting} redirects wait");
    }
    assert_eq!([Shed::Stats, Shed::Create, Shed::Redirect].map(|kind| fixture.metrics.shed(kind).get()), [5, 6, 1]);
    assert_eq!(fixture.metrics.concurrency("main/read").1.get(), 8);
    // What the server needs itself is done.
    fixture.store.lease("ids", 5, "here", Timestamp::from_millis(0)).await.unwrap();
    fixture.store.keys_revision().await.unwrap();
    assert!(!fixture.store.revoke_key(&KeyId::parse("0123456789").unwrap(), Timestamp::from_millis(0)).await.unwrap());
    assert!(fixture.store.check().await[0].1.is_ok());
    gate.open();
    for call in held {
        call.await.unwrap();
    }
    assert_eq!(fixture.metrics.concurrency("main/read").1.get(), 0);
    fixture.assert_idle();
}

#[tokio::test]
async fn what_memory_has_is_read_again_only_while_half_of_the_gate_is_free() {
    let (fixture, _stats) = shard_for_eight();
    let gate = fixture.hangs(Operation::Resolve);
    let mut held = Vec::new();
    hold(&fixture, 3, &mut held).await;
    let again = fixture.store.clone();
    held.push(tokio::spawn(async move { drop(again.refresh(&code("abc")).await) }));
    hold(&fixture, 0, &mut held).await;
    let refused = fixture.store.refresh(&code("abc")).await.unwrap_err();
    assert_eq!((refused.kind, fixture.metrics.shed(Shed::Redirect).get()), (StoreErrorKind::Overloaded, 1));
    // What nobody knows is looked up all the same.
    hold(&fixture, 4, &mut held).await;
    gate.open();
    for call in held {
        call.await.unwrap();
    }
    assert!(fixture.store.refresh(&code("abc")).await.is_ok());
    fixture.assert_idle();
}

#[tokio::test]
async fn creates_that_hang_take_no_place_of_a_redirect() {
    let (fixture, stats) = shard_for_eight();
    let gate = fixture.hangs(Operation::InsertIfAbsent);
    let creates: Vec<_> = (0..8)
        .map(|number| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.insert_if_absent(&link(&format!("new{number}")), attempt(1)).await })
        })
        .collect();
    arrived(&gate, 8).await;
    let refused = fixture.insert("ninth").await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Overloaded);
    assert_eq!(refused.message, "main/write: all of 8 calls at once are under way");
    assert!(refused.retry_after_ms > 0);
    for _ in 0..20 {
        fixture.resolve().await.unwrap();
    }
    assert_eq!(kind(stats.as_of(&code("abc")).await), StoreErrorKind::Overloaded);
    gate.open();
    for create in creates {
        assert_eq!(create.await.unwrap().unwrap(), Insert::Created);
    }
    fixture.assert_idle();
}

/// Connections that never meet overload protection, whatever is asked for over them.
const CONNECTIONS: usize = 64;
/// Links that all batches of a process create at once.
const OF_BATCHES: usize = 64;

/// Statistics of a shard whose gates are as small as they get, and the shard.
fn smallest_gates() -> (Fixture, GuardedStats) {
    let of = |settings: ConcurrencySettings| always(settings.min);
    let default = settings();
    let (redirects, creates) = (of(default.redirects), of(default.creates));
    shard_with(GuardSettings { redirects, creates, ..default })
}

/// One of the connections asks for statistics. The others create, with a batch or alone, or follow links.
#[tokio::test]
async fn statistics_are_not_shed_for_what_64_connections_ask_for() {
    let (fixture, stats) = smallest_gates();
    let gate = fixture.hangs(Operation::InsertIfAbsent);
    let create = |number: usize| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.insert_if_absent(&link(&format!("new{number}")), attempt(1)).await })
    };
    let most = OF_BATCHES + CONNECTIONS - 2;
    let mut creates: Vec<_> = (0..most).map(create).collect();
    arrived(&gate, most).await;
    stats.overall(&code("abc")).await.unwrap();
    creates.extend((most..2 * CONNECTIONS).map(create));
    arrived(&gate, 2 * CONNECTIONS).await;
    assert_eq!(kind(stats.overall(&code("abc")).await), StoreErrorKind::Overloaded, "one batch more would be too much");
    gate.open();
    for create in creates {
        create.await.unwrap().unwrap();
    }
    let (fixture, stats) = smallest_gates();
    let gate = fixture.hangs(Operation::Resolve);
    let mut held = Vec::new();
    hold(&fixture, CONNECTIONS - 1, &mut held).await;
    stats.overall(&code("abc")).await.unwrap();
    fixture.insert("beside").await.unwrap();
    gate.open();
    for call in held {
        call.await.unwrap();
    }
}

/// The time that tokio's timers go by.
struct TokioTime(Instant);

impl MonotonicClock for TokioTime {
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ns() / 1_000_000
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

/// A store that reads four links at a time, each so long.
struct Slow {
    readers: Semaphore,
    takes: Duration,
}

#[async_trait]
impl LinkReader for Slow {
    async fn resolve(&self, _: &ShortCode) -> Result<Lookup, StoreError> {
        let _reader = self.readers.acquire().await.unwrap();
        sleep(self.takes).await;
        Ok(Lookup { link: None, tier: Tier::Store })
    }
}

/// How many redirects a store of 800 a second answers in 20 s that is asked for 2,400 each second.
async fn answered_in_20_s(redirects: ConcurrencySettings) -> usize {
    let clock: Arc<dyn MonotonicClock> = Arc::new(TokioTime(Instant::now()));
    let slow = Slow { readers: Semaphore::new(4), takes: Duration::from_millis(5) };
    let guards = GuardSettings { redirects, ..settings() };
    let store = Arc::new(Guarded::new("main", Arc::new(slow), &guards, &clock, 7, &Metrics::new()).unwrap());
    let began = Instant::now();
    let mut calls = Vec::new();
    for step in 0..2_000_u32 {
        sleep_until(began + Duration::from_millis(10) * step).await;
        calls.extend((0..24).map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.resolve(&code("abc")).await.is_ok() })
        }));
    }
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap());
    }
    answered
}

#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout, reason = "what was measured")]
async fn a_shard_that_is_asked_for_three_times_what_it_can_do_does_nearly_all_it_can() {
    const CAPACITY: usize = 800 * 20;
    let with = answered_in_20_s(ConcurrencySettings::default()).await;
    assert!(with * 100 >= CAPACITY * 95, "{with} of {CAPACITY}");
    // With as many as there are places, most wait in vain.
    let without = answered_in_20_s(always(1_024)).await;
    assert!(without * 3 < with * 2, "there is nothing to limit: {without} without, {with} with");
    println!("in time {with} with the limit, {without} with as many as there are places, of {CAPACITY}");
}
