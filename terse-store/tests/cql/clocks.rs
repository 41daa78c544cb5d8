//! A server whose clock is off the store's makes no edits, and does all else.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use terse_core::metrics::Metrics;
use terse_core::ports::{
    ChangeFeed, ChangeMark, Insert, LinkCatalog, LinkChange, LinkReader, LinkWriter, StoreErrorKind, Update,
};
use terse_core::{Clock, LinkState, ShortCode, Timestamp, Version};
use terse_resilience::State;
use terse_store::{CoreClock, CqlStore, GuardSettings, Guarded};
use terse_testkit::Mode;
use terse_testkit::links::{attempt, code, link};

use crate::cluster::{Keyspace, connect, connected, now, unconnected_at, wire, with_keyspace, with_shared_keyspace};
use crate::system_clock::SystemClock;

/// The system's clock, put forward or back by so many milliseconds.
#[derive(Default)]
struct Skewed(AtomicI64);

impl Skewed {
    fn by(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_millis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> u64 {
        SystemClock.monotonic_ms()
    }
}

/// A server whose clock is `ms` ahead of all others'.
async fn server(keyspace: &Keyspace, ms: i64) -> (Arc<CqlStore>, Arc<Skewed>) {
    let clock = Arc::new(Skewed::default());
    clock.by(ms);
    let (store, _) = unconnected_at(keyspace.config(), clock.clone());
    assert_eq!(store.clock_offset_ms(), None);
    connect(&store).await;
    (store, clock)
}

/// The marks of `code` of the last 15 s, as a server in step polls them.
async fn marks_of(reader: &CqlStore, code: &ShortCode) -> Vec<ChangeMark> {
    let found = reader.marks(now().plus_millis(-15_000), now(), None, 1_000).await.unwrap();
    assert_eq!(found.next, None);
    found.marks.into_iter().filter(|mark| mark.code == *code).collect()
}

async fn disable(store: &dyn LinkWriter, text: &str, expected: u64) -> Result<Update, StoreErrorKind> {
    let change = LinkChange { state: LinkState::Disabled, ..LinkChange::of(&link(text)) };
    store.update(&code(text), Version(expected), &change).await.map_err(|error| error.kind)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_whose_clock_is_off_edits_nothing_and_marks_nothing() {
    with_shared_keyspace(|keyspace| async move {
        let (witness, _) = connected(&keyspace).await;
        for (number, skew_ms) in [6_000, -6_000, 3_600_000].into_iter().enumerate() {
            let (store, clock) = server(&keyspace, skew_ms).await;
            let offset = store.clock_offset_ms().unwrap();
            assert!((offset - skew_ms).abs() < 1_500, "{offset} where it is {skew_ms}");
            let text = format!("apart{number}");
            assert_eq!(store.insert_if_absent(&link(&text), attempt(1)).await.unwrap(), Insert::Created);
            let change = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&link(&text)) };
            let refused = store.update(&code(&text), Version(1), &change).await.unwrap_err();
            assert_eq!((refused.kind, refused.answered), (StoreErrorKind::Unavailable, true), "{refused}");
            assert!(refused.retry_after_ms > 0 && refused.message.contains("clock"), "{refused:?}");
            // A conflict would be told, and marked, by a server in step.
            assert_eq!(disable(&*store, &text, 7).await, Err(StoreErrorKind::Unavailable));
            assert!(store.settled().await);
            assert_eq!(witness.get(&code(&text)).await.unwrap(), Some(link(&text)), "nothing was written");
            assert_eq!(marks_of(&witness, &code(&text)).await, []);
            assert!(store.resolve(&code(&text)).await.unwrap().link.is_some(), "reads go on");
            // Put right, and at once believed: no new measurement is needed for that.
            clock.by(0);
            assert!(matches!(disable(&*store, &text, 1).await, Ok(Update::Updated(_))));
            store.clock_once().await.unwrap();
            assert!(store.clock_offset_ms().unwrap().abs() < 1_500);
            assert_eq!(marks_of(&witness, &code(&text)).await.len(), 2);
            clock.by(skew_ms);
            assert_eq!(disable(&*store, &text, 2).await, Err(StoreErrorKind::Unavailable), "and off again");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_is_a_little_off_is_allowed_and_its_marks_stand_in_the_stores_time() {
    with_shared_keyspace(|keyspace| async move {
        let (witness, _) = connected(&keyspace).await;
        for (number, skew_ms) in [4_000, -4_000].into_iter().enumerate() {
            let (store, _) = server(&keyspace, skew_ms).await;
            // A measurement that took long leaves it unsure; another one may not.
            for _ in 0..20 {
                store.clock_once().await.unwrap();
                if (store.clock_offset_ms().unwrap() - skew_ms).abs() < 100 {
                    break;
                }
            }
            let text = format!("near{number}");
            store.insert_if_absent(&link(&text), attempt(1)).await.unwrap();
            let before = now();
            assert!(matches!(disable(&*store, &text, 1).await, Ok(Update::Updated(_))), "{skew_ms}");
            let edited = before.plus_millis(-1_500)..now().plus_millis(1_500);
            let marks = marks_of(&witness, &code(&text)).await;
            assert_eq!(marks.len(), 2);
            assert!(marks.iter().all(|mark| edited.contains(&mark.at)), "by the writer's own clock: {marks:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_whose_clock_is_hours_off_still_finds_the_marks_of_others() {
    with_keyspace(|keyspace| async move {
        let (writer, _) = connected(&keyspace).await;
        let (reader, clock) = server(&keyspace, -7_200_000).await;
        writer.insert_if_absent(&link("found"), attempt(1)).await.unwrap();
        assert!(matches!(disable(&*writer, "found", 1).await, Ok(Update::Updated(_))));
        let until = clock.now();
        let found = reader.marks(until.plus_millis(-15_000), until, None, 100).await.unwrap();
        assert_eq!(found.marks.len(), 2, "{found:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refused_edits_leave_the_guard_of_creates_closed() {
    with_shared_keyspace(|keyspace| async move {
        let (store, _) = server(&keyspace, 60_000).await;
        let time = Arc::new(CoreClock(Arc::new(SystemClock)));
        let mut settings = GuardSettings::default();
        settings.write.timeout_ms = 20_000;
        let time: Arc<dyn terse_resilience::MonotonicClock> = time;
        let guarded = Guarded::new("main", store, &settings, &time, 7, &Metrics::new()).unwrap();
        assert_eq!(guarded.insert_if_absent(&link("refused"), attempt(1)).await.unwrap(), Insert::Created);
        for _ in 0..20 {
            assert_eq!(disable(&guarded, "refused", 1).await, Err(StoreErrorKind::Unavailable));
        }
        let (_, write) = guarded.breakers().find(|(name, _)| *name == "main/write").unwrap();
        assert_eq!(write.state(), State::Closed);
        assert_eq!(guarded.insert_if_absent(&link("unharmed"), attempt(1)).await.unwrap(), Insert::Created);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clock_that_no_node_can_be_asked_for_is_kept_for_seconds() {
    with_shared_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        let mut wire = wire(keyspace.config());
        wire.config.limits.clock_timeout_ms = 500;
        let (store, _) = unconnected_at(wire.config.clone(), Arc::new(SystemClock));
        assert_eq!(store.clock_once().await.unwrap_err().kind, StoreErrorKind::Unavailable);
        connect(&store).await;
        // Two nodes of three that say nothing: the third one tells the time.
        wire.proxies[1..].iter().for_each(|proxy| proxy.set(Mode::Pause));
        store.clock_once().await.unwrap();
        wire.proxies.iter().for_each(|proxy| proxy.set(Mode::Pause));
        assert_eq!(store.clock_once().await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(store.clock_offset_ms().unwrap().abs() < 1_500, "what was known is kept");
        wire.proxies.iter().for_each(terse_testkit::Proxy::restore);
    })
    .await;
}
