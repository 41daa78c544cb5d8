//! Polls of marks: nothing that holds redirects or lists up holds them up, and nobody hears of how they fare.

use std::sync::atomic::{AtomicUsize, Ordering};

use terse_core::Timestamp;
use terse_core::ports::{ChangeFeed, ChangeMarks, MarkPlace};

use super::*;

/// A feed that answers, fails or hangs.
#[derive(Clone, Copy)]
enum Feed {
    Answers,
    Fails,
    Hangs,
}

/// A shard whose redirects hang, and whose feed does as it is told.
struct Busy {
    feed: Feed,
    polls: AtomicUsize,
}

#[async_trait]
impl LinkReader for Busy {
    async fn resolve(&self, _: &ShortCode) -> Result<Lookup, StoreError> {
        std::future::pending().await
    }
}

#[async_trait]
impl ChangeFeed for Busy {
    async fn marks(
        &self,
        _: Timestamp,
        _: Timestamp,
        _: Option<MarkPlace>,
        _: usize,
    ) -> Result<ChangeMarks, StoreError> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        match self.feed {
            Feed::Answers => Ok(ChangeMarks::default()),
            Feed::Fails => Err(StoreError::new(StoreErrorKind::Unavailable, "no quorum")),
            Feed::Hangs => std::future::pending().await,
        }
    }
}

fn busy(feed: Feed, settings: &GuardSettings, metrics: &Metrics) -> Guarded<Busy> {
    let time: Arc<dyn MonotonicClock> = Arc::new(|| 0_u64);
    let inner = Arc::new(Busy { feed, polls: AtomicUsize::new(0) });
    Guarded::new("main", inner, settings, &time, 7, metrics).unwrap()
}

async fn poll(store: &Guarded<Busy>, span_ms: i64) -> Result<ChangeMarks, StoreError> {
    let now = Timestamp::from_millis(1_767_323_045_000);
    store.marks(now.plus_millis(-span_ms), now, None, 10).await
}

#[tokio::test(start_paused = true)]
async fn marks_are_polled_while_redirects_fill_their_guard() {
    let mut settings = settings();
    (settings.read.permits, settings.catalog.permits, settings.redirects) = (3, 1, always(2));
    let metrics = Metrics::new();
    let store = Arc::new(busy(Feed::Answers, &settings, &metrics));
    let redirects = [(); 2].map(|()| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.resolve(&code("abc")).await.map(drop) })
    });
    tokio::task::yield_now().await;
    assert_eq!(kind(store.resolve(&code("abc")).await), StoreErrorKind::Overloaded);
    assert_eq!(poll(&store, 15_000).await.unwrap().next, None);
    assert_eq!(metrics.store_requests("main", "marks").get_sample_count(), 1);
    redirects.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn marks_are_polled_while_the_read_guard_is_open_and_do_not_close_it() {
    let store = busy(Feed::Answers, &settings(), &Metrics::new());
    store.read.breaker.force(Some(Forced::Open));
    for _ in 0..10 {
        poll(&store, 15_000).await.unwrap();
    }
    assert_eq!(store.read.breaker.snapshot().counts, Counts::default());
}

#[tokio::test]
async fn polls_that_fail_trip_nothing_and_are_asked_again() {
    let store = busy(Feed::Fails, &settings(), &Metrics::new());
    for _ in 0..50 {
        assert_eq!(kind(poll(&store, 15_000).await), StoreErrorKind::Unavailable);
    }
    assert_eq!(store.inner().polls.load(Ordering::Relaxed), 50);
    assert_eq!((store.read.breaker.state(), store.read.breaker.snapshot().counts), (State::Closed, Counts::default()));
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_hangs_ends_early_enough_for_the_next_to_be_in_time() {
    let store = busy(Feed::Hangs, &settings(), &Metrics::new());
    let began = tokio::time::Instant::now();
    assert_eq!(kind(poll(&store, 15_000).await), StoreErrorKind::Unavailable);
    assert_eq!(began.elapsed(), Duration::from_millis(200));
    assert_eq!(store.read.breaker.snapshot().counts, Counts::default());
}

#[tokio::test(start_paused = true)]
async fn so_many_polls_run_at_once_and_the_next_is_refused() {
    let metrics = Metrics::new();
    let store = Arc::new(busy(Feed::Hangs, &settings(), &metrics));
    let held = [(); 4].map(|()| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { poll(&store, 15_000).await })
    });
    tokio::task::yield_now().await;
    let refused = poll(&store, 15_000).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_str()),
        (StoreErrorKind::Overloaded, "main/marks: all 4 slots are taken")
    );
    for poll in held {
        poll.abort();
        assert!(poll.await.unwrap_err().is_cancelled());
    }
    assert_eq!(metrics.bulkhead_in_use("main/marks").get(), 0);
}
