//! The ring around a read model, for those who ask for statistics.
//!
//! Bulkhead, breaker `stats` and timeout around every call, as around a shard's store: a read model that is slow
//! or away holds no request for longer than [`StatsGuardSettings::timeout_ms`], no more of them than
//! [`StatsGuardSettings::permits`], and after a few none at all until a probe finds it back. What is refused is told when
//! to come again. Links are in stores of their own, behind guards of their own; while one of these is half full,
//! statistics are refused: they are the first to go when there is too much.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use prometheus::IntCounter;
use terse_core::metrics::{Metrics, Shed};
use terse_core::ports::clicks::ClickStats;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::{Row, Span};
use terse_core::{ShortCode, Timestamp};
use terse_resilience::{Breaker, BreakerSettings, ConcurrencyLimit, MonotonicClock, SettingsError};

use super::gate::{STATS_GIVE_WAY, overloaded};
use super::lane::{Lane, within};
use super::settings::LaneSettings;

/// What the guard is called: in metrics, and where operators look at breakers. Those of shards have a slash.
const NAME: &str = "stats";

/// How a [`GuardedStats`] shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsGuardSettings {
    /// Calls that may run at once; at least 1. Beyond, they are refused as overloaded.
    pub permits: u32,
    /// How long a call may take, in milliseconds; at least 1. It is one step of a report.
    pub timeout_ms: u64,
    /// The breaker. Its `call_limit_ms` is taken from `timeout_ms`.
    pub breaker: BreakerSettings,
}

/// 64 calls of at most 2 s each: what a file answers in 2 s with two readers, and as many as a cluster is asked at once.
impl Default for StatsGuardSettings {
    fn default() -> Self {
        Self { permits: 64, timeout_ms: 2_000, breaker: BreakerSettings::cheap_to_probe(2_000) }
    }
}

/// A read model behind its guard.
pub struct GuardedStats {
    lane: Lane,
    inner: Arc<dyn ClickStats>,
    /// What comes before statistics.
    links: Vec<Arc<ConcurrencyLimit>>,
    shed: IntCounter,
}

impl GuardedStats {
    /// Guards `inner`. `seed` spreads the breaker's open times, and has to differ from node to node.
    ///
    /// # Errors
    /// The first setting outside its limits.
    pub fn new(
        inner: Arc<dyn ClickStats>,
        settings: &StatsGuardSettings,
        clock: Arc<dyn MonotonicClock>,
        seed: u64,
        metrics: &Metrics,
    ) -> Result<Self, SettingsError> {
        let StatsGuardSettings { permits, timeout_ms, breaker } = *settings;
        let settings = LaneSettings { permits, timeout_ms, breaker };
        settings.check()?;
        let lane = Lane::new(NAME.to_owned(), &settings, clock, seed, metrics)?;
        Ok(Self { lane, inner, links: Vec::new(), shed: metrics.shed(Shed::Stats) })
    }

    /// The same, refusing what is asked while one of `links` is half full ([`Guarded::loads`](super::Guarded::loads)).
    #[must_use]
    pub fn giving_way_to(self, links: Vec<Arc<ConcurrencyLimit>>) -> Self {
        Self { links, ..self }
    }

    /// Its breaker, and what that is called.
    #[must_use]
    pub fn breaker(&self) -> (&str, &Arc<Breaker>) {
        (&self.lane.name, &self.lane.breaker)
    }

    async fn guard<T, F>(&self, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        if let Some(full) = self.links.iter().find(|limit| limit.is_filled(STATS_GIVE_WAY)) {
            self.shed.inc();
            full.note_shed();
            return Err(overloaded(&self.lane.name, &"links come first"));
        }
        let _place = self.lane.places.enter()?;
        let permit = self.lane.permit()?;
        let ended = within(self.lane.timeout, call()).await;
        ended.judge(permit);
        ended.answer(StoreErrorKind::Unavailable, self.lane.timeout)
    }
}

#[async_trait]
impl ClickStats for GuardedStats {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        self.guard(|| self.inner.overall(code)).await
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        self.guard(|| self.inner.spans(code, first, last)).await
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        self.guard(|| self.inner.as_of(code)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    const ANSWERS: u8 = 0;
    const HANGS: u8 = 1;
    const FAILS: u8 = 2;

    /// A read model that does what it is told, and counts what it was asked.
    #[derive(Default)]
    struct Model {
        does: AtomicU8,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl ClickStats for Model {
        async fn overall(&self, _: &ShortCode) -> Result<Option<Row>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            match self.does.load(Ordering::SeqCst) {
                HANGS => std::future::pending().await,
                FAILS => Err(StoreError::new(StoreErrorKind::Unavailable, "away")),
                _ => Ok(None),
            }
        }

        async fn spans(&self, code: &ShortCode, _: Span, _: Span) -> Result<Vec<(Span, Row)>, StoreError> {
            self.overall(code).await.map(|_| Vec::new())
        }

        async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
            self.overall(code).await.map(|_| None)
        }
    }

    struct World {
        model: Arc<Model>,
        guarded: Arc<GuardedStats>,
        now_ms: Arc<AtomicU64>,
    }

    fn world() -> World {
        let (model, now_ms) = (Arc::<Model>::default(), Arc::new(AtomicU64::new(1)));
        let read = Arc::clone(&now_ms);
        let clock: Arc<dyn MonotonicClock> = Arc::new(move || read.load(Ordering::SeqCst));
        let inner = Arc::clone(&model) as Arc<dyn ClickStats>;
        let guarded = GuardedStats::new(inner, &StatsGuardSettings::default(), clock, 1, &Metrics::new()).unwrap();
        World { model, guarded: Arc::new(guarded), now_ms }
    }

    fn code() -> ShortCode {
        ShortCode::parse("abc").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_model_that_hangs_holds_a_few_requests_for_its_timeout_and_then_none() {
        let World { model, guarded, now_ms } = world();
        model.does.store(HANGS, Ordering::SeqCst);
        let began = Instant::now();
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let guarded = Arc::clone(&guarded);
                tokio::spawn(async move { guarded.overall(&code()).await })
            })
            .collect();
        let mut kinds = Vec::new();
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert!(error.retry_after_ms > 0);
            kinds.push(error.kind);
        }
        let overloaded = kinds.iter().filter(|kind| **kind == StoreErrorKind::Overloaded).count();
        assert_eq!((overloaded, kinds.len()), (200 - 64, 200));
        assert_eq!(began.elapsed(), Duration::from_millis(2_000));
        // From here on nobody waits, and the model is asked nothing.
        let asked = model.asked.load(Ordering::SeqCst);
        let refused = guarded.as_of(&code()).await.unwrap_err();
        assert_eq!((refused.kind, model.asked.load(Ordering::SeqCst)), (StoreErrorKind::Unavailable, asked));
        assert!(refused.message.starts_with("stats: "), "{refused}");
        assert_eq!(began.elapsed(), Duration::from_millis(2_000));
        // When it is back, probes find it.
        model.does.store(ANSWERS, Ordering::SeqCst);
        now_ms.fetch_add(5_000, Ordering::SeqCst);
        for _ in 0..10 {
            guarded.spans(&code(), Span::Day(1), Span::Day(2)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_read_model_that_fails_is_left_alone_for_a_while() {
        let World { model, guarded, .. } = world();
        model.does.store(FAILS, Ordering::SeqCst);
        for _ in 0..20 {
            assert_eq!(guarded.overall(&code()).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        }
        assert_eq!(model.asked.load(Ordering::SeqCst), 5);
        assert_eq!(guarded.breaker().0, "stats");
    }

    #[test]
    fn unsound_settings_are_refused() {
        let refused = |settings: StatsGuardSettings| {
            let model = Arc::<Model>::default();
            GuardedStats::new(model, &settings, Arc::new(|| 0_u64), 1, &Metrics::new()).err().map(|e| e.setting)
        };
        let default = StatsGuardSettings::default();
        assert_eq!(refused(StatsGuardSettings { permits: 0, ..default }), Some("permits"));
        assert_eq!(refused(StatsGuardSettings { timeout_ms: 0, ..default }), Some("timeout_ms"));
    }
}
